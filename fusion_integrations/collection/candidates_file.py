"""Read who can answer, how, and for what price from a YAML file that holds data only, never code.

version: 1
models:
  smollm2-135m:
    client: transformers            # a built-in kind, or one that an installed package registers
    settings: {path: models/smollm2, batch_size: 64}
    price: {input_usd_per_mtok: 0.02, output_usd_per_mtok: 0.04, is_nominal: true}
  gpt-5-mini:
    client: openai                  # any server that speaks OpenAI's chat completions; vllm for vLLM's
    settings: {base_url: "https://api.openai.com/v1", api_key_env: OPENAI_API_KEY}
    price: {input_usd_per_mtok: 0.25, output_usd_per_mtok: 2.0}
  claude:
    client: langchain               # any name that LangChain's init_chat_model knows
    settings: {model: "anthropic:claude-sonnet-4-5", arguments: {timeout: 60}}
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
  - id: gpt-5-mini
    model: gpt-5-mini
    options: {max_tokens: 400, temperature: 0.7}
    samples: 3                      # answers to collect to each query
    limits: {concurrency: 8, requests_per_minute: 300, n_tries: 5}
  - {id: claude, model: claude, options: {max_tokens: 400}}
# Keys stay out of the file: it names the environment variables that hold them.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import yaml
from pydantic import ValidationError

from fusion_integrations.collection._file_entries import CandidateEntry, File, ModelEntry, ThoughtsEntry
from fusion_integrations.collection.call_limits import CallLimits
from fusion_integrations.collection.client_kinds import (
    STUDENT,
    ClientFactory,
    StudentSettings,
    client_factory,
    is_remote,
    student_client,
)
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
from fusion_integrations.prompts import prompt_edit
from fusion_integrations.protocols import ChatClient
from fusion_integrations.thought_level.chroma_store import ChromaThoughtTemplateStore
from fusion_integrations.thought_level.template_library import ThoughtTemplateLibrary
from fusion_integrations.thought_level.template_prompt import ThoughtPrompter
from fusion_integrations.thought_level.template_store import (
    InMemoryThoughtTemplateStore,
    ThoughtTemplateStore,
)
from fusion_integrations.types import Candidate, GenerationOptions, Price, PriceTable

__all__ = ["CandidateSet", "load_candidates"]


@dataclass(frozen=True, kw_only=True)
class CandidateSet:
    """What a candidates file says.

    Attributes:
        candidates: Who can answer, in the file's order.
        prices: The prices given, by model.
        options: How to generate, by candidate id, where the file says so.
        samples: How many answers to collect to a query, by candidate id, where the file asks for several.
        limits: How fast a candidate may be called, by its id; others are asked in batches.
        clients: A client for each model, made (which may load weights) when it is first asked for.
        thoughts: Finds the guidance of candidates of prompt mode `thought`; None if the file names none.
    """

    candidates: tuple[Candidate, ...]
    prices: PriceTable
    options: Mapping[str, GenerationOptions]
    clients: Mapping[str, ChatClient]
    samples: Mapping[str, int] = field(default_factory=dict)
    limits: Mapping[str, CallLimits] = field(default_factory=dict)
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
    factories = {name: _factory(path, model.client, kinds or {}) for name, model in file.models.items()}
    adapters: dict[str, str] = {}
    for name, model in file.models.items():
        if model.client == STUDENT:
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
        samples={entry.id: entry.samples for entry in file.candidates if entry.samples > 1},
        limits=_limits(file),
        clients=_Clients(file.models, factories, path),
        thoughts=thoughts,
    )


def _limits(file: File) -> dict[str, CallLimits]:
    """Return the limits of candidates that have some; models that run elsewhere have them in any case."""
    return {
        entry.id: CallLimits() if entry.limits is None else CallLimits(**entry.limits.model_dump())
        for entry in file.candidates
        if entry.limits is not None or is_remote(file.models[entry.model].client)
    }


class _Clients(Mapping[str, ChatClient]):
    """Clients by model, each made once, when it is first asked for."""

    def __init__(
        self, models: Mapping[str, ModelEntry], factories: Mapping[str, ClientFactory], path: Path
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
            except InvalidPolicyError as error:
                _fail(self._path, f"in models.{model}.settings: {error}", error)
        return self._made[model]

    def __contains__(self, model: object) -> bool:
        return model in self._models  # Mapping would make the client to find out

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)


def _pin_student(model: ModelEntry, *, field: str, path: Path) -> tuple[ClientFactory, str]:
    """Return what makes the client of just the student that is saved now, and the revision of its adapter.

    A student saved there later would answer under the revision of this one.
    """
    try:
        settings = StudentSettings.model_validate(model.settings)
    except ValidationError as error:
        _fail(path, f"in {field}: {_describe(error)}", error)
    with _blame(path, f"{field}.path", ArtifactNotFoundError, ArtifactFormatError):
        artifact, adapter = read_student(path.parent / settings.path.expanduser())
    factory = functools.partial(student_client, expected_digest=artifact.manifest.digest)
    return factory, adapter.revision


def _prompter(entry: ThoughtsEntry, path: Path) -> ThoughtPrompter:
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


def _factory(path: Path, kind: str, kinds: Mapping[str, ClientFactory]) -> ClientFactory:
    try:
        return client_factory(kind, kinds)
    except CandidatesFileError as error:
        _fail(path, str(error), error)


def _read(path: Path) -> File:
    try:
        return File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        _fail(path, _describe(error), error)
    except (OSError, ValueError, yaml.YAMLError) as error:
        _fail(path, f"it cannot be read: {error}", error)


def _candidate(
    entry: CandidateEntry, path: Path, *, thoughts: ThoughtPrompter | None, adapter: str | None
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
    entry: CandidateEntry, path: Path, *, thoughts: ThoughtPrompter | None, adapter: str | None
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
