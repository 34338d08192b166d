"""The distilled student as a chat model: what an application uses once the teachers have taught it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from fusion_integrations.model_level.student_model import StudentModel
from langchain_fusion.clients import ChatClientModel

__all__ = ["DistilledChatModel"]


class DistilledChatModel(ChatClientModel):
    """The student of model-level fusion as a chat model; all of `ChatClientModel` holds for it.

    A student that was just trained, or is served elsewhere, needs no folder: pass it as `client`.

    Example:
        ```python
        model = DistilledChatModel.from_pretrained("student", base="models/smollm2", max_tokens=128)
        chain = prompt | model | StrOutputParser()
        ```

    Source:
        FusionFactory (arXiv 2507.10540), model-level fusion; see docs/paper_map.md.
    """

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        base: str | Path,
        model_name: str | None = None,
        expected_digest: str | None = None,
        n_threads: int | None = None,
        **fields: Any,
    ) -> Self:
        """Load a saved student and its base; neither folder appears in traces.

        Args:
            folder: Where the student lies.
            base: Folder of the base it was distilled on: safetensors, config and tokenizer.
            model_name: Name in traces, logs and price table. Default: the base's name and `-student`.
            expected_digest: Digest the artifact must have; protects against tampering.
            n_threads: CPU threads while generating; None leaves torch's setting.
            **fields: The class's own fields, for example `max_tokens` or `callbacks`.

        Returns:
            The chat model. The student is its `client`.

        Raises:
            ArtifactNotFoundError: If there is no artifact, or no base.
            ArtifactFormatError: If the artifact is damaged, of another kind or of a newer release, or the
                base is another one than it was distilled on.
            MissingDependencyError: If torch, transformers or peft is not installed.
        """
        student = StudentModel.from_pretrained(
            folder, base=base, model_name=model_name, expected_digest=expected_digest, n_threads=n_threads
        )
        return cls(client=student, **fields)

    @property
    def _llm_type(self) -> str:
        return "fusion-distilled"
