"""Read who can answer, how, and for what price from a YAML file that holds data only, never code.

version: 1
models:
  smollm2-135m:
    client: transformers            # a built-in kind, or one that an installed package registers
    settings: {path: models/smollm2, batch_size: 64}
    price: {input_usd_per_mtok: 0.02, output_usd_per_mtok: 0.04, is_nominal: true}
  smollm2-135m-student:
    client: student                 # what `fusion train student` saved, and the base it was taught on
    settings: {path: student, base: models/smollm2}
thoughts:                           # for candidates of prompt mode thought
  library: templates                # what `fusion train thoughts` saved
  k: 3
  min_similarity: 0.3
  max_chars: 600
  chroma: index                     # folder of a Chroma database for the index; without it, in memory
candidates:
  - {id: "smollm2:direct", model: smollm2-135m, options: {max_tokens: 48}}
  - {id: "smollm2:reasoning", model: smollm2-135m, prompt_mode: reasoning}
  - {id: "smollm2:thought", model: smollm2-135m, prompt_mode: thought}
  - {id: "student:direct", model: smollm2-135m-student}
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from fusion_integrations.clients.transformers_client import PromptFormat, TransformersClient
from fusion_integrations.embedders import check_identity, load_embedder
from fusion_integrations.errors import (
    ArtifactFormatError,
    ArtifactNotFoundError,
    CandidatesFileError,
    EmbedderMismatchError,
    FusionError,
    InvalidPolicyError,
)
from fusion_integrations.model_level.student_artifact import read_student
from fusion_integrations.model_level.student_model import StudentModel
from fusion_integrations.prompts import prompt_edit
from fusion_integrations.protocols import ChatClient
from fusion_integrations.thought_level.chroma_store import ChromaThoughtTemplateStore
from fusion_integrations.thought_level.template_library import ThoughtTemplateLibrary
from fusion_integrations.thought_level.template_prompt import ThoughtPrompter
from fusion_integrations.thought_level.template_store import (
    InMemoryThoughtTemplateStore,
    ThoughtTemplateStore,
)
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
        thoughts: Finds the guidance of candidates of prompt mode `thought`; None if the file names none.
    """

    candidates: tuple[Candidate, ...]
    prices: PriceTable
    options: Mapping[str, GenerationOptions]
    clients: Mapping[str, ChatClient]
    thoughts: ThoughtPrompter | None = None


def load_candidates(path: str | Path, *, kinds: Mapping[str, ClientFactory] | None = None) -> CandidateSet:
    """Read and check a candidates file; no LLM is loaded yet.

    The revision of a candidate names what its answers depend on besides the model: its prompt, with prompt
    mode `thought` the template library and how it is searched, and of a student the adapter. Libraries and
    adapters are read for it, and the embedder of a library is loaded.

    Args:
        path: The YAML file. Relative paths inside it start from its folder.
        kinds: More kinds of clients than the built-in and the registered ones, by the name the file uses.

    Returns:
        Its candidates with their prices, options, clients and guidance.

    Raises:
        CandidatesFileError: If the file is missing, no valid YAML, has an unknown or missing field, names an
            unknown kind of client, names a library or student that cannot be loaded, or its candidates
            repeat an id, name no model of the file, or use a prompt mode that it has no prompt for.
        MissingDependencyError: If the package of the embedder, or of Chroma, is not installed.
    """
    path = Path(path)
    file = _read(path)
    factories = {name: _factory(model.client, kinds or {}, path) for name, model in file.models.items()}
    adapters: dict[str, str] = {}
    for name, model in file.models.items():
        if model.client == _STUDENT:
            factories[name], adapters[name] = _pin_student(model, field=f"models.{name}.settings", path=path)
    thoughts = None if file.thoughts is None else _prompter(file.thoughts, path)
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
        candidates.append(_candidate(entry, path, thoughts=thoughts, adapter=adapters.get(entry.model)))
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
        thoughts=thoughts,
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
    context_tokens: Annotated[int, Field(ge=1)] | None = None
    description: str = ""
    options: _OptionsEntry | None = None


class _ThoughtsEntry(_Strict):
    library: Path
    embedder: str | None = None  # the library's own
    k: Annotated[int, Field(ge=1)] = 3
    min_similarity: Annotated[float, Field(ge=-1, le=1)] = 0.3
    max_chars: Annotated[int, Field(ge=1)] = 600
    chroma: Path | None = None


class _File(_Strict):
    version: Literal[1]
    models: Annotated[dict[Annotated[str, Field(pattern=r"\S")], _ModelEntry], Field(min_length=1)]
    thoughts: _ThoughtsEntry | None = None
    candidates: Annotated[tuple[_CandidateEntry, ...], Field(min_length=1)]


class _TransformersSettings(_Strict):
    path: Path
    prompt_format: PromptFormat = "chat"
    few_shot_examples: tuple[tuple[str, str], ...] = ()
    batch_size: Annotated[int, Field(ge=1)] = 32
    n_threads: Annotated[int, Field(ge=1)] | None = None


class _StudentSettings(_Strict):
    path: Path
    base: Path
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


def _student_client(
    model_name: str, settings: Mapping[str, JsonValue], folder: Path, *, expected_digest: str | None = None
) -> StudentModel:
    """Make a client of the built-in kind `student`."""
    entry = _StudentSettings.model_validate(settings)
    return StudentModel.from_pretrained(
        folder / entry.path.expanduser(),
        base=folder / entry.base.expanduser(),
        model_name=model_name,
        expected_digest=expected_digest,
        batch_size=entry.batch_size,
        n_threads=entry.n_threads,
    )


_STUDENT = "student"
_BUILT_IN_KINDS: Mapping[str, ClientFactory] = {
    "transformers": _transformers_client,
    _STUDENT: _student_client,
}


def _pin_student(model: _ModelEntry, *, field: str, path: Path) -> tuple[ClientFactory, str]:
    """Return what makes the client of just the student that is saved now, and the revision of its adapter.

    A student saved there later would answer under the revision of this one.
    """
    try:
        settings = _StudentSettings.model_validate(model.settings)
    except ValidationError as error:
        _fail(path, f"in {field}: {_describe(error)}", error)
    with _blame(path, f"{field}.path", ArtifactNotFoundError, ArtifactFormatError):
        artifact, adapter = read_student(path.parent / settings.path.expanduser())
    factory = functools.partial(_student_client, expected_digest=artifact.manifest.digest)
    return factory, adapter.revision


def _prompter(entry: _ThoughtsEntry, path: Path) -> ThoughtPrompter:
    with _blame(path, "thoughts.library", ArtifactNotFoundError, ArtifactFormatError):
        library = ThoughtTemplateLibrary.from_pretrained(path.parent / entry.library.expanduser())
    with _blame(path, "thoughts.embedder", InvalidPolicyError, EmbedderMismatchError):
        embedder = load_embedder(entry.embedder or library.embedder)
        check_identity(library.embedder, embedder.identity)
    store: ThoughtTemplateStore
    if entry.chroma is None:
        store = InMemoryThoughtTemplateStore(library, embedder=embedder)
    else:
        index = path.parent / entry.chroma.expanduser()
        if index.is_file():
            _fail(path, f"in thoughts.chroma: '{index}' is a file, not the folder of a Chroma database")
        with _blame(path, "thoughts.chroma", ArtifactFormatError):
            store = ChromaThoughtTemplateStore.from_library(library, embedder=embedder, path=index)
    return ThoughtPrompter(store, k=entry.k, min_similarity=entry.min_similarity, max_chars=entry.max_chars)


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


def _candidate(
    entry: _CandidateEntry, path: Path, *, thoughts: ThoughtPrompter | None, adapter: str | None
) -> Candidate:
    if entry.prompt_mode == "thought":
        revision = _thought_revision(entry, path, thoughts=thoughts, adapter=adapter)
    else:
        revision = prompt_edit(entry.prompt_mode).revision
    if adapter is not None:
        revision = f"{revision}+{adapter}"
        if entry.revision not in (None, revision):
            problem = f"candidate '{entry.id}' has the revision '{entry.revision}', its student '{revision}'"
            _fail(path, f"{problem}: leave it out")
    return Candidate(
        id=entry.id,
        model=entry.model,
        prompt_mode=entry.prompt_mode,
        revision=revision if entry.revision is None else entry.revision,
        capabilities=entry.capabilities,
        context_tokens=entry.context_tokens,
        description=entry.description,
    )


def _thought_revision(
    entry: _CandidateEntry, path: Path, *, thoughts: ThoughtPrompter | None, adapter: str | None
) -> str:
    who = f"candidate '{entry.id}'"
    if thoughts is None:
        _fail(path, f"{who} is prompted with thought templates: say under thoughts which library has them")
    if adapter is not None:
        _fail(path, f"{who} asks a student in prompt mode thought, which no revision can name: use another")
    if entry.revision not in (None, thoughts.revision):
        _fail(
            path,
            f"{who} has the revision '{entry.revision}', but '{thoughts.revision}' is what thoughts gives",
        )
    return thoughts.revision


def _describe(error: ValidationError) -> str:
    """Say where and what of every problem, on one line."""
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'file'}: {problem['msg']}" for problem in error.errors()
    )


@contextlib.contextmanager
def _blame(path: Path, field: str, *errors: type[FusionError]) -> Iterator[None]:
    """Name file and field in errors of these kinds."""
    try:
        yield
    except errors as error:
        _fail(path, f"in {field}: {error}", error)


def _fail(path: Path, problem: str, cause: Exception | None = None) -> NoReturn:
    sentence = problem.removesuffix(".")
    raise CandidatesFileError(f"Candidates file '{path}' cannot be used: {sentence}.") from cause
