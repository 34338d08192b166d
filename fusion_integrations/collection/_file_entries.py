"""What may stand in a candidates file, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from fusion_integrations.types import PromptMode

__all__ = ["CandidateEntry", "File", "ModelEntry", "Strict", "ThoughtsEntry"]


class Strict(BaseModel):
    """Base of all entries: an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class _PriceEntry(Strict):
    input_usd_per_mtok: Annotated[float, Field(ge=0)] = 0.0
    output_usd_per_mtok: Annotated[float, Field(ge=0)] = 0.0
    usd_per_call: Annotated[float, Field(ge=0)] = 0.0
    is_nominal: bool = False


class _OptionsEntry(Strict):
    max_tokens: Annotated[int, Field(ge=1)] = 256
    temperature: Annotated[float, Field(ge=0)] = 0.0
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    seed: int | None = None


class _LimitsEntry(Strict):
    concurrency: Annotated[int, Field(ge=1)] = 4
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    n_tries: Annotated[int, Field(ge=1)] = 5
    retry_wait_s: Annotated[float, Field(ge=0)] = 1.0
    max_retry_wait_s: Annotated[float, Field(ge=0)] = 60.0


class ModelEntry(Strict):
    """An LLM: what runs it, and what it charges."""

    client: str
    settings: dict[str, JsonValue] = {}
    price: _PriceEntry | None = None


class CandidateEntry(Strict):
    """A candidate: an LLM in a prompt mode, and how it is asked."""

    id: Annotated[str, Field(pattern=r"\S")]
    model: str
    prompt_mode: PromptMode = "direct"
    revision: str | None = None
    capabilities: frozenset[str] = frozenset()
    context_tokens: Annotated[int, Field(ge=1)] | None = None
    description: str = ""
    options: _OptionsEntry | None = None
    samples: Annotated[int, Field(ge=1)] = 1
    limits: _LimitsEntry | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.samples > 1 and (self.options is None or self.options.temperature == 0):
            raise ValueError("several samples need options with a temperature above 0, else all are the same")
        return self


class ThoughtsEntry(Strict):
    """Where the guidance of candidates of prompt mode `thought` comes from."""

    library: Path
    embedder: str | None = None  # the library's own
    k: Annotated[int, Field(ge=1)] = 3
    min_similarity: Annotated[float, Field(ge=-1, le=1)] = 0.3
    max_chars: Annotated[int, Field(ge=1)] = 600
    chroma: Path | None = None


class File(Strict):
    """The whole file."""

    version: Literal[1]
    models: Annotated[dict[Annotated[str, Field(pattern=r"\S")], ModelEntry], Field(min_length=1)]
    thoughts: ThoughtsEntry | None = None
    candidates: Annotated[tuple[CandidateEntry, ...], Field(min_length=1)]
