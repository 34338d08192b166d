"""Read who can answer, how, and for what price from a YAML file that holds data only, never code.

version: 1
models:
  smollm2-135m:
    client: transformers            # a built-in kind, or one that an installed package registers
    settings: {path: models/smollm2, batch_size: 64}
    price: {input_usd_per_mtok: 0.02, output_usd_per_mtok: 0.04, is_nominal: true}
candidates:
  - {id: "smollm2:direct", model: smollm2-135m, options: {max_tokens: 48}}
  - {id: "smollm2:reasoning", model: smollm2-135m, prompt_mode: reasoning}
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from fusion_integrations.clients.transformers_client import PromptFormat, TransformersClient
from fusion_integrations.errors import CandidatesFileError, FusionError
from fusion_integrations.prompts import prompt_edit
from fusion_integrations.protocols import ChatClient
from fusion_integrations.types import Candidate, GenerationOptions, Price, PriceTable, PromptMode

__all__ = ["CLIENT_KINDS_GROUP", "CandidateSet", "ClientFactory", "load_candidates"]

# Packages that bring another kind of client register a ClientFactory here, under the kind's name.
CLIENT_KINDS_GROUP = "fusion_integrations.clients"

ClientFactory = Callable[[str, Mapping[str, JsonValue], Path], ChatClient]
"""Makes a client from the model's name, its settings, and the folder that relative paths start from."""


@dataclass(frozen=True, kw_only=True)
class CandidateSet:
    """What a candidates file says.

    Attributes:
        candidates: Who can answer, in the file's order.
        prices: The prices given, by model.
        options: How to generate, by candidate id, where the file says so.
        clients: A client for each model, made (which may load weights) when it is first asked for.
    """

    candidates: tuple[Candidate, ...]
    prices: PriceTable
    options: Mapping[str, GenerationOptions]
    clients: Mapping[str, ChatClient]


def load_candidates(path: str | Path, *, kinds: Mapping[str, ClientFactory] | None = None) -> CandidateSet:
    """Read and check a candidates file; no model is loaded yet.

    Args:
        path: The YAML file. Relative paths inside it start from its folder.
        kinds: More kinds of clients than the built-in and the registered ones, by the name the file uses.

    Returns:
        Its candidates with their prices, options and clients.

    Raises:
        CandidatesFileError: If the file is missing, no valid YAML, has an unknown or missing field, names an
            unknown kind of client, or its candidates repeat an id, name no model of the file, or use a prompt
            mode without a fixed prompt.
    """
    path = Path(path)
    file = _read(path)
    factories = {name: _factory(model.client, kinds or {}, path) for name, model in file.models.items()}
    candidates: list[Candidate] = []
    for entry in file.candidates:
        if entry.model not in file.models:
            known = ", ".join(f"'{name}'" for name in file.models)
            _fail(
                path,
                f"candidate '{entry.id}' names model '{entry.model}', which is not under models: {known}",
            )
        if entry.id in [candidate.id for candidate in candidates]:
            _fail(path, f"there are two candidates '{entry.id}'; ids must be distinct")
        candidates.append(_candidate(entry, path))
    return CandidateSet(
        candidates=tuple(candidates),
        prices=PriceTable(
            prices={
                name: Price(**model.price.model_dump())
                for name, model in file.models.items()
                if model.price is not None
            }
        ),
        options={
            entry.id: GenerationOptions(**entry.options.model_dump())
            for entry in file.candidates
            if entry.options is not None
        },
        clients=_Clients(file.models, factories, path),
    )


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class _PriceEntry(_Strict):
    input_usd_per_mtok: Annotated[float, Field(ge=0)] = 0.0
    output_usd_per_mtok: Annotated[float, Field(ge=0)] = 0.0
    usd_per_call: Annotated[float, Field(ge=0)] = 0.0
    is_nominal: bool = False


class _OptionsEntry(_Strict):
    max_tokens: Annotated[int, Field(ge=1)] = 256
    temperature: Annotated[float, Field(ge=0)] = 0.0
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    seed: int | None = None


class _ModelEntry(_Strict):
    client: str
    settings: dict[str, JsonValue] = {}
    price: _PriceEntry | None = None


class _CandidateEntry(_Strict):
    id: Annotated[str, Field(pattern=r"\S")]
    model: str
    prompt_mode: PromptMode = "direct"
    revision: str | None = None
    capabilities: frozenset[str] = frozenset()
    description: str = ""
    options: _OptionsEntry | None = None


class _File(_Strict):
    version: Literal[1]
    models: Annotated[dict[Annotated[str, Field(pattern=r"\S")], _ModelEntry], Field(min_length=1)]
    candidates: Annotated[tuple[_CandidateEntry, ...], Field(min_length=1)]


class _TransformersSettings(_Strict):
    path: Path
    prompt_format: PromptFormat = "chat"
    few_shot_examples: tuple[tuple[str, str], ...] = ()
    batch_size: Annotated[int, Field(ge=1)] = 32
    n_threads: Annotated[int, Field(ge=1)] | None = None


class _Clients(Mapping[str, ChatClient]):
    """Clients by model, each made once, when it is first asked for."""

    def __init__(
        self, models: Mapping[str, _ModelEntry], factories: Mapping[str, ClientFactory], path: Path
    ) -> None:
        self._models = models
        self._factories = factories
        self._path = path
        self._made: dict[str, ChatClient] = {}

    def __getitem__(self, model: str) -> ChatClient:
        if model not in self._made:
            settings = self._models[model].settings
            try:
                self._made[model] = self._factories[model](model, settings, self._path.parent)
            except ValidationError as error:
                _fail(self._path, f"in models.{model}.settings: {_describe(error)}", error)
        return self._made[model]

    def __contains__(self, model: object) -> bool:
        return model in self._models  # Mapping would make the client to find out

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)


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


_BUILT_IN_KINDS: Mapping[str, ClientFactory] = {"transformers": _transformers_client}


def _factory(kind: str, kinds: Mapping[str, ClientFactory], path: Path) -> ClientFactory:
    """Find who makes clients of a kind; the file gives a name, never a class path."""
    given = {**kinds, **_BUILT_IN_KINDS}
    if kind in given:
        return given[kind]
    registered = {point.name: point for point in entry_points(group=CLIENT_KINDS_GROUP)}
    if kind not in registered:
        known = ", ".join(f"'{name}'" for name in sorted({*given, *registered}))
        _fail(path, f"there is no client kind '{kind}'; known: {known}. An integration you lack may bring it")
    factory: ClientFactory = registered[kind].load()
    return factory


def _read(path: Path) -> _File:
    try:
        return _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        _fail(path, _describe(error), error)
    except (OSError, ValueError, yaml.YAMLError) as error:
        _fail(path, f"it cannot be read: {error}", error)


def _candidate(entry: _CandidateEntry, path: Path) -> Candidate:
    try:
        revision = prompt_edit(entry.prompt_mode).revision
    except FusionError as error:
        _fail(path, f"in candidate '{entry.id}': {error}", error)
    return Candidate(
        id=entry.id,
        model=entry.model,
        prompt_mode=entry.prompt_mode,
        revision=revision if entry.revision is None else entry.revision,
        capabilities=entry.capabilities,
        description=entry.description,
    )


def _describe(error: ValidationError) -> str:
    """Say where and what of every problem, on one line."""
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'file'}: {problem['msg']}" for problem in error.errors()
    )


def _fail(path: Path, problem: str, cause: Exception | None = None) -> NoReturn:
    raise CandidatesFileError(f"Candidates file '{path}' cannot be used: {problem}.") from cause
