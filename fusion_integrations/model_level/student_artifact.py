"""How a student is laid out on disk: a LoRA adapter in PEFT's own files, and a manifest that names its base.

PEFT and vLLM can be pointed at the data folder. Their configuration file has many more fields, some of which
load code or other models; only the few below are written, and only they are accepted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from fusion_integrations.artifacts import LoadedArtifact, load_artifact
from fusion_integrations.errors import ArtifactFormatError
from fusion_integrations.types import canonical_json

__all__ = [
    "BASE_NAME_PATTERN",
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "BaseIdentity",
    "LoraAdapterConfig",
    "StudentAdapter",
    "adapter_files",
    "read_student",
    "student_card",
    "student_details",
]

# The names PEFT looks for.
WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"

_ModuleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.]{1,200}$")]
# A name, also "owner/name"; no path of the machine it was trained on.
BASE_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99})?$"
_BaseName = Annotated[str, StringConstraints(pattern=BASE_NAME_PATTERN)]


class LoraAdapterConfig(BaseModel):
    """The content of `adapter_config.json`, in PEFT's words.

    Attributes:
        base_model_name_or_path: Name of the base, never a path.
        r: Rank.
        lora_alpha: The adapter counts `lora_alpha / r` times.
        lora_dropout: Share of inputs dropped while training; of no effect afterwards.
        target_modules: Names of the adapted layers, sorted.
        peft_type: Always LoRA.
        task_type: Always a causal language model.
        bias: Biases are never trained.
        inference_mode: The adapter is frozen when PEFT loads it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    base_model_name_or_path: _BaseName
    r: Annotated[int, Field(ge=1, le=1024)]
    lora_alpha: Annotated[float, Field(gt=0)]
    lora_dropout: Annotated[float, Field(ge=0, lt=1)]
    target_modules: Annotated[tuple[_ModuleName, ...], Field(min_length=1)]
    peft_type: Literal["LORA"] = "LORA"
    task_type: Literal["CAUSAL_LM"] = "CAUSAL_LM"
    bias: Literal["none"] = "none"
    inference_mode: Literal[True] = True


class BaseIdentity(BaseModel):
    """What has to be equal for a student to be the same model on another machine.

    Attributes:
        name: Name of the base, for people and logs.
        weights: `weights_identity` of its folder.
        chat_template: SHA-256 of the chat template it was trained with; another one is another prompt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: _BaseName
    weights: Annotated[str, StringConstraints(pattern=r"^(gguf|safetensors):[0-9a-f]{64}$")]
    chat_template: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Details(BaseModel):
    """What the manifest of a student holds under `details`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: BaseIdentity


@dataclass(frozen=True, kw_only=True)
class StudentAdapter:
    """What was learned, without the base it was learned on.

    Attributes:
        base: The base it belongs to.
        config: Rank, scale and layers.
        weights: Content of the safetensors file, float32.
    """

    base: BaseIdentity
    config: LoraAdapterConfig
    weights: bytes = field(repr=False)

    @property
    def revision(self) -> str:
        """16 hexadecimal digits that change with the adapter or its base; for `Candidate.revision`."""
        digest = hashlib.sha256(canonical_json(self.to_json()).encode())
        digest.update(self.weights)
        return digest.hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Return base and configuration as JSON data."""
        return {"base": self.base.model_dump(mode="json"), "config": self.config.model_dump(mode="json")}

    @classmethod
    def from_artifact(cls, artifact: LoadedArtifact) -> Self:
        """Read the adapter of a verified artifact; its content is not trusted.

        Args:
            artifact: An artifact of the kind `"student"`.

        Returns:
            The adapter. That its weights fit the base shows only when they are loaded into it.

        Raises:
            ArtifactFormatError: If a file is missing, or says more than an adapter of ours does.
        """
        try:
            details = _Details.model_validate(artifact.manifest.details)
            config = LoraAdapterConfig.model_validate_json(artifact.read_bytes(CONFIG_FILE))
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, problem['loc'])) or CONFIG_FILE}: {problem['msg']}"
                for problem in error.errors(include_url=False, include_input=False)
            )
            message = f"{artifact.folder} is not a student this release can read: {problems}. Save it again."
            raise ArtifactFormatError(message) from error
        if config.base_model_name_or_path != details.base.name:
            message = (
                f"{artifact.folder} is an adapter of '{config.base_model_name_or_path}' by its "
                f"{CONFIG_FILE}, but of '{details.base.name}' by its manifest. Save it again."
            )
            raise ArtifactFormatError(message)
        return cls(base=details.base, config=config, weights=artifact.read_bytes(WEIGHTS_FILE))


def adapter_files(adapter: StudentAdapter) -> dict[str, bytes]:
    """Return the data files of a student."""
    config = json.dumps(adapter.config.model_dump(mode="json"), indent=2) + "\n"
    return {WEIGHTS_FILE: adapter.weights, CONFIG_FILE: config.encode()}


def student_details(adapter: StudentAdapter) -> dict[str, JsonValue]:
    """Return what the manifest of a student holds under `details`."""
    return _Details(base=adapter.base).model_dump(mode="json")


def student_card(adapter: StudentAdapter, *, arguments: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Return the model card, Markdown."""
    base, config = adapter.base, adapter.config
    teachers = metrics.get("n_pairs_by_teacher") or {}
    rows = "\n".join(f"| {teacher} | {count} |" for teacher, count in teachers.items())
    return (
        "# Student\n\n"
        f"A LoRA adapter (rank {config.r}, alpha {config.lora_alpha:g}) for `{base.name}`, distilled from "
        f"{metrics.get('n_pairs', '?')} logged answers to {metrics.get('n_queries', '?')} queries by the "
        f"criterion `{arguments.get('criterion', '?')}`.\n\n"
        f"| teacher | pairs |\n| --- | --- |\n{rows}\n\n"
        f"Base weights: `{base.weights}`. They are not included. The adapter is a derivative of the base and "
        "of its teachers' answers: the licence of the base and the terms of the teachers apply.\n\n"
        "```python\nfrom fusion_integrations import StudentModel\n\n"
        f'student = StudentModel.from_pretrained("path/to/this/folder", base="path/to/{base.name}")\n'
        "```\n"
    )


def read_student(
    folder: str | Path, *, expected_digest: str | None = None
) -> tuple[LoadedArtifact, StudentAdapter]:
    """Load the parts of a saved student.

    Args:
        folder: Where it lies.
        expected_digest: Digest the artifact must have; None accepts any.

    Returns:
        The verified artifact and the adapter in it.

    Raises:
        ArtifactNotFoundError: If there is no artifact.
        ArtifactFormatError: If it is damaged, of another kind or of a newer release.
    """
    artifact = load_artifact(folder, kind="student", expected_digest=expected_digest)
    return artifact, StudentAdapter.from_artifact(artifact)
