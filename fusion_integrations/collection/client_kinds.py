"""What can run a model, by the name that a candidates file uses: built in, or registered by a package.

A file gives a name and data. Which code that names is decided here and by what is installed, never by the
file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

from pydantic import Field, JsonValue

from fusion_integrations.clients.api_key import read_api_key, refuse_secrets
from fusion_integrations.clients.openai_client import MaxTokensField, OpenAIClient
from fusion_integrations.clients.transformers_client import PromptFormat, TransformersClient
from fusion_integrations.collection._file_entries import Strict
from fusion_integrations.errors import CandidatesFileError
from fusion_integrations.model_level.student_model import StudentModel
from fusion_integrations.protocols import ChatClient

__all__ = [
    "CLIENT_KINDS_GROUP",
    "STUDENT",
    "ClientFactory",
    "StudentSettings",
    "client_factory",
    "is_remote",
    "student_client",
]

# Packages that bring another kind of client register a ClientFactory here, under the kind's name.
CLIENT_KINDS_GROUP = "fusion_integrations.clients"

ClientFactory = Callable[[str, Mapping[str, JsonValue], Path], ChatClient]
"""Makes a client from the model's name, its settings, and the folder that relative paths start from."""

STUDENT = "student"
"""The kind whose models are adapters on a base."""

# Kinds whose models run elsewhere: they are asked call by call, with limits, and not in batches.
_REMOTE = ("langchain", "openai", "vllm")


def client_factory(kind: str, kinds: Mapping[str, ClientFactory]) -> ClientFactory:
    """Find who makes clients of a kind.

    Args:
        kind: The name.
        kinds: More kinds than the built-in and the registered ones.

    Returns:
        What makes the client.

    Raises:
        CandidatesFileError: If nobody brings that kind; says which there are.
    """
    given = {**kinds, **_BUILT_IN_KINDS}
    if kind in given:
        return given[kind]
    registered = {point.name: point for point in entry_points(group=CLIENT_KINDS_GROUP)}
    if kind not in registered:
        known = ", ".join(f"'{name}'" for name in sorted({*given, *registered}))
        message = f"there is no client kind '{kind}'; known: {known}. An integration you lack may bring it"
        raise CandidatesFileError(message)
    factory: ClientFactory = registered[kind].load()
    return factory


def is_remote(kind: str) -> bool:
    """Tell whether models of a kind run elsewhere: what limits calls then is a server, not this machine."""
    return kind in _REMOTE


class _TransformersSettings(Strict):
    path: Path
    prompt_format: PromptFormat = "chat"
    few_shot_examples: tuple[tuple[str, str], ...] = ()
    batch_size: Annotated[int, Field(ge=1)] = 32
    n_threads: Annotated[int, Field(ge=1)] | None = None


class StudentSettings(Strict):
    """Settings of the kind `student`."""

    path: Path
    base: Path
    batch_size: Annotated[int, Field(ge=1)] = 32
    n_threads: Annotated[int, Field(ge=1)] | None = None


def _transformers_client(
    model_name: str, settings: Mapping[str, JsonValue], folder: Path
) -> TransformersClient:
    """Make a client of the built-in kind `transformers`."""
    entry = _TransformersSettings.model_validate(settings)
    return TransformersClient.from_folder(
        folder / entry.path.expanduser(),
        model_name=model_name,
        prompt_format=entry.prompt_format,
        few_shot_examples=entry.few_shot_examples,
        batch_size=entry.batch_size,
        n_threads=entry.n_threads,
    )


def student_client(
    model_name: str, settings: Mapping[str, JsonValue], folder: Path, *, expected_digest: str | None = None
) -> StudentModel:
    """Make a client of the built-in kind `student`.

    Args:
        model_name: Name to log and price answers under.
        settings: As `StudentSettings`.
        folder: Where relative paths start.
        expected_digest: What the saved student must hash to; None accepts any.

    Returns:
        The student.
    """
    entry = StudentSettings.model_validate(settings)
    return StudentModel.from_pretrained(
        folder / entry.path.expanduser(),
        base=folder / entry.base.expanduser(),
        model_name=model_name,
        expected_digest=expected_digest,
        batch_size=entry.batch_size,
        n_threads=entry.n_threads,
    )


class _OpenAISettings(Strict):
    model: str | None = None
    base_url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    api_key_env: str | None = "OPENAI_API_KEY"
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    max_tokens_field: MaxTokensField = "max_tokens"
    sends_temperature: bool = True
    extra_body: dict[str, JsonValue] = Field(default_factory=dict)


class _VLLMSettings(_OpenAISettings):
    base_url: Annotated[str, Field(pattern=r"^https?://")] | None = "http://127.0.0.1:8000/v1"
    api_key_env: str | None = None


def _openai_client(model_name: str, settings: Mapping[str, JsonValue], _folder: Path) -> OpenAIClient:
    """Make a client of the built-in kind `openai`: any server that speaks OpenAI's chat completions."""
    return _client_of(model_name, _OpenAISettings.model_validate(settings))


def _vllm_client(model_name: str, settings: Mapping[str, JsonValue], _folder: Path) -> OpenAIClient:
    """Make a client of the built-in kind `vllm`: a vLLM server, by default on this machine, without a key."""
    return _client_of(model_name, _VLLMSettings.model_validate(settings))


def _client_of(model_name: str, entry: _OpenAISettings) -> OpenAIClient:
    refuse_secrets(entry.extra_body)
    return OpenAIClient(
        model_name,
        served_model=entry.model,
        base_url=entry.base_url,
        api_key=read_api_key(entry.api_key_env),
        timeout_s=entry.timeout_s,
        max_tokens_field=entry.max_tokens_field,
        sends_temperature=entry.sends_temperature,
        extra_body=entry.extra_body,
    )


_BUILT_IN_KINDS: Mapping[str, ClientFactory] = {
    "openai": _openai_client,
    STUDENT: student_client,
    "transformers": _transformers_client,
    "vllm": _vllm_client,
}
