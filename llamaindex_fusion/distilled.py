"""A distilled student as a LlamaIndex LLM: load it where it was saved, and any query engine can use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW

from fusion_integrations.model_level.student_model import StudentModel
from fusion_integrations.types import GenerationOptions
from llamaindex_fusion.chat_client_llm import ChatClientLLM

__all__ = ["DistilledLLM"]


class DistilledLLM(ChatClientLLM):
    """The student of model-level fusion as an LLM; all of `ChatClientLLM` holds for it.

    A student that was just trained, or is served elsewhere, needs no folder: `DistilledLLM(client=student)`.

    Example:
        ```python
        llm = DistilledLLM.from_pretrained("student", base="models/smollm2")
        index.as_query_engine(llm=llm).query("Who wrote the report?")
        ```

    Source:
        FusionFactory (arXiv 2507.10540), model-level fusion; see docs/paper_map.md.
    """

    @classmethod
    def class_name(cls) -> str:
        """Return the name LlamaIndex files the component under."""
        return "DistilledLLM"

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        base: str | Path,
        model_name: str | None = None,
        expected_digest: str | None = None,
        context_window: int | None = None,
        options: GenerationOptions | None = None,
        n_threads: int | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a saved student and its base; neither folder appears in events or serialised forms.

        Args:
            folder: Where the student lies.
            base: Folder of the base it was distilled on: safetensors, config and tokenizer.
            model_name: Name in metadata, logs and price table. Default: the base's name and `-student`.
            expected_digest: Digest the artifact must have; protects against tampering.
            context_window: Tokens of prompt and answer together. Default: those of the base; where its config
                names no limit, LlamaIndex's default.
            options: How to generate; see the class.
            n_threads: CPU threads while generating; None leaves torch's setting.
            **kwargs: LlamaIndex's own fields, for example `system_prompt` or `callback_manager`.

        Returns:
            The LLM. The student is its `client`.

        Raises:
            ArtifactNotFoundError: If there is no artifact, or no base.
            ArtifactFormatError: If the artifact is damaged, of another kind or of a newer release, or the
                base is another one than it was distilled on.
            MissingDependencyError: If torch, transformers or peft is not installed.
        """
        student = StudentModel.from_pretrained(
            folder, base=base, model_name=model_name, expected_digest=expected_digest, n_threads=n_threads
        )
        window = context_window or student.client.context_window or DEFAULT_CONTEXT_WINDOW
        return cls(client=student, context_window=window, options=options, **kwargs)
