"""The artifact of the model level: an adapter taught from logs, running on its base as a chat client."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from fusion_integrations.artifacts import save_artifact
from fusion_integrations.artifacts.loading import read_manifest
from fusion_integrations.clients._random_state import seeded
from fusion_integrations.clients.model_folder import load_model
from fusion_integrations.clients.transformers_client import TransformersClient
from fusion_integrations.errors import ArtifactNotFoundError
from fusion_integrations.model_level.student_artifact import (
    StudentAdapter,
    adapter_files,
    read_student,
    student_card,
    student_details,
)
from fusion_integrations.model_level.student_network import (
    attach_adapter,
    check_base,
    identify_base,
)
from fusion_integrations.types import Completion, GenerationOptions, Message

__all__ = ["StudentModel", "run_adapter"]


@dataclass(frozen=True, kw_only=True, eq=False)
class StudentModel:
    """A distilled student: saved and loaded like any artifact, called like any chat client.

    Immutable; safe to share between threads, whose calls take turns.

    Attributes:
        adapter: What was learned, and on which base.
        client: The base with the adapter merged into it.
        arguments: The training arguments, as JSON data.
        log_fingerprint: Hash of the training logs.
        metrics: What training measured.
        folder: Where it was saved or loaded last; None for a fresh one.

    Example:
        ```python
        student = StudentModel.from_pretrained("student", base="models/smollm2")
        student.complete([Message(role="user", content="What is the capital of France?")]).text
        ```

    Source:
        FusionFactory (arXiv 2507.10540), model-level fusion; see docs/paper_map.md.
    """

    adapter: StudentAdapter
    client: TransformersClient
    arguments: Mapping[str, Any] = field(default_factory=dict)
    log_fingerprint: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def model(self) -> str:
        """Name of the model, as logged and priced."""
        return self.client.model

    @property
    def revision(self) -> str:
        """16 hexadecimal digits that change with the adapter or its base; for `Candidate.revision`."""
        return self.adapter.revision

    @property
    def adapter_folder(self) -> Path:
        """Folder of the saved adapter in PEFT's layout, for PEFT or vLLM; good until the next save.

        Raises:
            ArtifactNotFoundError: If the student was not saved yet.
        """
        if self.folder is None:
            raise ArtifactNotFoundError("This student lies in no folder yet. Call save_pretrained first.")
        return self.folder / read_manifest(self.folder).data_folder

    def complete(
        self, messages: Sequence[Message], *, options: GenerationOptions | None = None
    ) -> Completion:
        """Answer one conversation; see `TransformersClient.complete`."""
        return self.client.complete(messages, options=options)

    async def acomplete(
        self, messages: Sequence[Message], *, options: GenerationOptions | None = None
    ) -> Completion:
        """Answer one conversation in a thread; see `TransformersClient.acomplete`."""
        return await self.client.acomplete(messages, options=options)

    def complete_batch(
        self, conversations: Sequence[Sequence[Message]], *, options: GenerationOptions | None = None
    ) -> list[Completion]:
        """Answer several conversations at once; see `TransformersClient.complete_batch`."""
        return self.client.complete_batch(conversations, options=options)

    def stream(
        self, messages: Sequence[Message], *, options: GenerationOptions | None = None
    ) -> Generator[str, None, Completion]:
        """Yield the answer in pieces while it is generated; see `TransformersClient.stream`."""
        return self.client.stream(messages, options=options)

    def save_pretrained(self, folder: str | Path) -> Self:
        """Save the student as an artifact folder, without its base; a student there is replaced in one step.

        Args:
            folder: Where to.

        Returns:
            The student, which now knows its `adapter_folder`.

        Raises:
            ArtifactWriteError: If it cannot be written; what was there is unchanged.
        """
        save_artifact(
            folder,
            kind="student",
            files=adapter_files(self.adapter),
            card=student_card(self.adapter, arguments=self.arguments, metrics=self.metrics),
            arguments=self.arguments,
            log_fingerprint=self.log_fingerprint,
            metrics=self.metrics,
            details=student_details(self.adapter),
        )
        return replace(self, folder=Path(folder))

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        base: str | Path,
        model_name: str | None = None,
        expected_digest: str | None = None,
        batch_size: int = 32,
        default_options: GenerationOptions | None = None,
        n_threads: int | None = None,
    ) -> Self:
        """Load a saved student and its base.

        Args:
            folder: Where the student lies.
            base: Folder of the base it was distilled on: safetensors, config and tokenizer.
            model_name: Name to log and price the answers under. Default: the base's name and `-student`.
            expected_digest: Digest the artifact must have; protects against tampering.
            batch_size: Most conversations to run at once.
            default_options: Used by calls that pass no options.
            n_threads: CPU threads while generating; None leaves torch's setting.

        Returns:
            The student.

        Raises:
            ArtifactNotFoundError: If there is no artifact, or no base.
            ArtifactFormatError: If the artifact is damaged, of another kind or of a newer release, or the
                base is another one than it was distilled on.
            MissingDependencyError: If torch, transformers or peft is not installed.
        """
        artifact, adapter = read_student(folder, expected_digest=expected_digest)
        client = run_adapter(
            adapter,
            base=base,
            source=folder,
            model_name=model_name,
            batch_size=batch_size,
            default_options=default_options,
            n_threads=n_threads,
        )
        manifest = artifact.manifest
        return cls(
            adapter=adapter,
            client=client,
            arguments=manifest.arguments,
            log_fingerprint=manifest.log_fingerprint,
            metrics=manifest.metrics,
            folder=Path(folder),
        )


def run_adapter(
    adapter: StudentAdapter,
    *,
    base: str | Path,
    source: str | Path,
    model_name: str | None = None,
    batch_size: int = 32,
    default_options: GenerationOptions | None = None,
    n_threads: int | None = None,
) -> TransformersClient:
    """Load a base, check that it is the right one, and merge an adapter into it.

    Merged in float32 the answers are those of base and adapter apart, at the speed of the base alone.

    Args:
        adapter: What was learned.
        base: Folder of its base.
        source: Where the adapter is from, for the messages.
        model_name: As in `StudentModel.from_pretrained`, like all that follow.
        batch_size: See there.
        default_options: See there.
        n_threads: See there.

    Returns:
        The running client.

    Raises:
        ArtifactNotFoundError: If there is no base in the folder.
        ArtifactFormatError: If the base is another one, or the adapter does not fit it.
    """
    network, tokenizer = load_model(base, extra="distill")
    check_base(adapter.base, identify_base(base, name=adapter.base.name, tokenizer=tokenizer), folder=base)
    with seeded(0, device=network.device):  # PEFT draws random numbers to initialise what is then loaded
        adapted = attach_adapter(network, adapter, source=source)
    return TransformersClient(
        model_name or f"{adapter.base.name}-student",
        model=adapted.merge_and_unload(safe_merge=True),
        tokenizer=tokenizer,
        batch_size=batch_size,
        default_options=default_options,
        n_threads=n_threads,
    )
