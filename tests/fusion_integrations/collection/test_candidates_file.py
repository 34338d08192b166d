from __future__ import annotations

from pathlib import Path

import pytest

from fusion_integrations.artifacts import save_artifact
from fusion_integrations.collection import candidates_file
from fusion_integrations.collection.call_limits import CallLimits
from fusion_integrations.collection.candidates_file import load_candidates
from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import ArtifactFormatError, ArtifactNotFoundError, CandidatesFileError
from fusion_integrations.model_level.student_artifact import (
    BaseIdentity,
    LoraAdapterConfig,
    StudentAdapter,
    adapter_files,
    student_details,
)
from fusion_integrations.thought_level.template_library import ThoughtTemplate, ThoughtTemplateLibrary
from fusion_integrations.thought_level.template_prompt import ThoughtPrompter
from fusion_integrations.thought_level.template_store import InMemoryThoughtTemplateStore
from fusion_integrations.types import Candidate, GenerationOptions, Price

GOOD = """
version: 1
models:
  tiny:
    client: transformers
    settings: {path: models/tiny, batch_size: 8}
    price: {input_usd_per_mtok: 0.02, output_usd_per_mtok: 0.04, is_nominal: true}
  free:
    client: echo
candidates:
  - {id: "tiny:direct", model: tiny, options: {max_tokens: 48, stop: ["\\n"]}, description: quick}
  - {id: "tiny:reasoning", model: tiny, prompt_mode: reasoning, capabilities: [tools], context_tokens: 2048}
  - {id: free, model: free, revision: mine-3}
"""
LEVELS = """
version: 1
models:
  free: {client: echo}
  tiny-student: {client: student, settings: {path: student, base: models/tiny}}
thoughts: {library: templates, k: 2, min_similarity: 0.5, max_chars: 80}
candidates:
  - {id: "free:direct", model: free}
  - {id: "free:thought", model: free, prompt_mode: thought}
  - {id: "student:reasoning", model: tiny-student, prompt_mode: reasoning}
"""
ADAPTER = StudentAdapter(
    base=BaseIdentity(name="tiny", weights=f"safetensors:{'0' * 64}", chat_template="1" * 64),
    config=LoraAdapterConfig(
        base_model_name_or_path="tiny", r=2, lora_alpha=4.0, lora_dropout=0.0, target_modules=("q_proj",)
    ),
    weights=b"weights that nobody loads here",
)


class Echo:
    def __init__(self, model: str, settings: object, folder: Path) -> None:
        self.model, self.settings, self.folder = model, settings, folder


def write(folder: Path, text: str) -> Path:
    path = folder / "candidates.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def save_student(folder: Path, adapter: StudentAdapter = ADAPTER) -> None:
    files, details = adapter_files(adapter), student_details(adapter)
    save_artifact(folder, kind="student", files=files, card="", details=details)


@pytest.fixture
def library() -> ThoughtTemplateLibrary:
    embedder = HashEmbedder(dimensions=16)
    template = ThoughtTemplate(id="t", query_id="q", query="What is 3 + 4?", text="Add them.")
    return ThoughtTemplateLibrary(
        [template], vectors=embedder.embed([template.query]), embedder=embedder.identity
    )


@pytest.fixture
def levels_folder(tmp_path: Path, library: ThoughtTemplateLibrary) -> Path:
    """A folder with a template library and a student, as `LEVELS` names them."""
    library.save_pretrained(tmp_path / "templates")
    save_student(tmp_path / "student")
    return tmp_path


def test_load_candidates_when_good_gives_candidates_prices_and_options(tmp_path):
    loaded = load_candidates(write(tmp_path, GOOD), kinds={"echo": Echo})
    assert loaded.candidates == (
        Candidate(id="tiny:direct", model="tiny", revision="direct-1", description="quick"),
        Candidate(
            id="tiny:reasoning",
            model="tiny",
            prompt_mode="reasoning",
            revision="reasoning-1",
            capabilities=frozenset({"tools"}),
            context_tokens=2048,
        ),
        Candidate(id="free", model="free", revision="mine-3"),
    )
    assert loaded.prices.prices == {
        "tiny": Price(input_usd_per_mtok=0.02, output_usd_per_mtok=0.04, is_nominal=True)
    }
    assert loaded.options == {"tiny:direct": GenerationOptions(max_tokens=48, stop=("\n",))}


def test_clients_when_asked_for_are_made_once_and_not_before(tmp_path):
    loaded = load_candidates(write(tmp_path, GOOD), kinds={"echo": Echo})
    assert list(loaded.clients) == ["tiny", "free"]
    assert "tiny" in loaded.clients
    assert len(loaded.clients) == 2
    client = loaded.clients["free"]
    assert isinstance(client, Echo)
    assert (client.model, client.settings, client.folder) == ("free", {}, tmp_path)
    assert loaded.clients["free"] is client
    with pytest.raises(ArtifactNotFoundError, match=r"models.tiny"):
        loaded.clients["tiny"]
    with pytest.raises(KeyError):
        loaded.clients["unknown"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("version: 1", "version: 2"), "version: Input should be 1"),
        (("version: 1", "versoin: 1"), "versoin: Extra inputs are not permitted"),
        (
            ("client: echo", "client: os.system"),
            "no client kind 'os.system'; known: 'echo', 'langchain', 'openai', 'student', 'trans",
        ),
        (("id: free, model: free", "id: free, model: fee"), "names model 'fee', which is not under models"),
        (("id: free", 'id: "tiny:direct"'), "two candidates 'tiny:direct'"),
        (
            ("prompt_mode: reasoning", "prompt_mode: thought"),
            "candidate 'tiny:reasoning' is prompted with thought templates: say under thoughts which library",
        ),
        (
            ("prompt_mode: reasoning", "prompt_mode: loud"),
            "candidates.1.prompt_mode: Input should be 'direct'",
        ),
        (("0.02", "-1"), "models.tiny.price.input_usd_per_mtok: Input should be greater"),
        (("0.02", ".nan"), "models.tiny.price.input_usd_per_mtok: Input should be"),
        (("max_tokens: 48", "max_tokens: 0"), "candidates.0.options.max_tokens: Input should be greater"),
        (("version: 1", "version: [1"), "cannot be read"),
        (("version: 1", "version: !!python/object/apply:os.getcwd []"), "cannot be read"),
        (("id: free", 'id: " "'), "candidates.2.id: String should match"),
    ],
)
def test_load_candidates_when_malformed_names_file_and_place(tmp_path, change, problem):
    path = write(tmp_path, GOOD.replace(*change))
    with pytest.raises(CandidatesFileError) as caught:
        load_candidates(path, kinds={"echo": Echo})
    assert problem in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"- a\n- b\n", b"\xff\xfe\x00", b"just text"])
def test_load_candidates_when_no_mapping_raises(tmp_path, content):
    path = tmp_path / "candidates.yaml"
    path.write_bytes(content)
    with pytest.raises(CandidatesFileError):
        load_candidates(path)


def test_load_candidates_when_missing_raises(tmp_path):
    with pytest.raises(CandidatesFileError, match="cannot be read"):
        load_candidates(tmp_path / "none.yaml")


def test_clients_when_settings_are_wrong_names_the_place_without_the_values(tmp_path):
    path = write(tmp_path, GOOD.replace("batch_size: 8", "batch_sice: secret-key"))
    loaded = load_candidates(path, kinds={"echo": Echo})
    with pytest.raises(CandidatesFileError, match=r"models\.tiny\.settings: batch_sice: Extra") as caught:
        loaded.clients["tiny"]
    assert "secret-key" not in str(caught.value)


def test_load_candidates_when_levels_are_named_gives_revisions_that_name_library_and_adapter(
    levels_folder, library
):
    loaded = load_candidates(write(levels_folder, LEVELS), kinds={"echo": Echo})
    store = InMemoryThoughtTemplateStore(library, embedder=HashEmbedder(dimensions=16))
    prompter = ThoughtPrompter(store, k=2, min_similarity=0.5, max_chars=80)
    assert {candidate.id: candidate.revision for candidate in loaded.candidates} == {
        "free:direct": "direct-1",
        "free:thought": prompter.revision,
        "student:reasoning": f"reasoning-1+{ADAPTER.revision}",
    }
    assert loaded.thoughts is not None
    assert loaded.thoughts.revision == loaded.candidates[1].revision
    assert loaded.thoughts.guide(["What is 3 + 4?"])[0].found[0].template == library.templates[0]


def test_load_candidates_when_no_templates_are_named_has_no_guidance(tmp_path):
    assert load_candidates(write(tmp_path, GOOD), kinds={"echo": Echo}).thoughts is None


def test_load_candidates_when_a_chroma_folder_is_named_searches_there_with_the_same_revision(levels_folder):
    pytest.importorskip("chromadb")
    from fusion_integrations.thought_level.chroma_store import ChromaThoughtTemplateStore

    in_memory = load_candidates(write(levels_folder, LEVELS), kinds={"echo": Echo}).candidates
    text = LEVELS.replace("k: 2,", "k: 2, embedder: hash, chroma: index,")
    small = HashEmbedder(dimensions=256)  # what the name `hash` stands for
    vectors = small.embed(["What is 3 + 4?"])
    template = ThoughtTemplate(id="t", query_id="q", query="What is 3 + 4?", text="Add them.")
    library = ThoughtTemplateLibrary([template], vectors=vectors, embedder=small.identity)
    library.save_pretrained(levels_folder / "templates")

    loaded = load_candidates(write(levels_folder, text), kinds={"echo": Echo})

    assert isinstance(loaded.thoughts.store, ChromaThoughtTemplateStore)
    assert (levels_folder / "index").is_dir()
    again = load_candidates(write(levels_folder, text.replace(", chroma: index", "")), kinds={"echo": Echo})
    assert loaded.candidates == again.candidates  # it is the library that counts, not where it is searched
    assert loaded.candidates[1].revision != in_memory[1].revision  # another embedder finds other templates


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("library: templates", "library: none"), "in thoughts.library: There is no artifact at"),
        (("library: templates", "library: student"), "in thoughts.library: "),
        (("k: 2", "embedder: hash"), "in thoughts.embedder: Trained with embedder 'hash-v1 (hash, fp32, 16"),
        (("k: 2", "embedder: os.system"), "in thoughts.embedder: There is no embedder 'os.system'. Known:"),
        (("k: 2", "chroma: candidates.yaml"), "in thoughts.chroma: '"),
        (("k: 2", "k: 0"), "thoughts.k: Input should be greater"),
        (("k: 2", "size: 2"), "thoughts.size: Extra inputs are not permitted"),
        (("path: student", "path: none"), "in models.tiny-student.settings.path: There is no artifact at"),
        (("path: student", "path: templates"), "in models.tiny-student.settings.path: "),
        (("base: models/tiny", "bass: models/tiny"), "in models.tiny-student.settings: base: Field required"),
        (
            ("prompt_mode: thought", "prompt_mode: thought, revision: mine-3"),
            "candidate 'free:thought' has the revision 'mine-3', but 'thought-1+",
        ),
        (
            ("prompt_mode: reasoning", "prompt_mode: thought"),
            "candidate 'student:reasoning' asks a student in prompt mode thought",
        ),
    ],
)
def test_load_candidates_when_levels_are_malformed_names_file_and_place(levels_folder, change, problem):
    path = write(levels_folder, LEVELS.replace(*change))
    with pytest.raises(CandidatesFileError) as caught:
        load_candidates(path, kinds={"echo": Echo})
    assert problem in str(caught.value)
    assert str(path) in str(caught.value)
    assert not str(caught.value).endswith("..")


def test_load_candidates_when_given_the_example_of_the_docstring_reads_it(levels_folder):
    pytest.importorskip("chromadb")
    assert candidates_file.__doc__ is not None
    _, _, example = candidates_file.__doc__.partition("\n\n")
    loaded = load_candidates(write(levels_folder, example), kinds={"langchain": Echo})
    assert [candidate.prompt_mode for candidate in loaded.candidates] == [
        *("direct", "reasoning", "thought", "direct", "direct", "direct")
    ]
    assert loaded.samples == {"gpt-5-mini": 3}
    assert loaded.limits == {
        "gpt-5-mini": CallLimits(concurrency=8, requests_per_minute=300, n_tries=5),
        "claude": CallLimits(),
    }


def test_clients_when_the_student_was_replaced_since_refuse_to_answer_under_its_revision(levels_folder):
    loaded = load_candidates(write(levels_folder, LEVELS), kinds={"echo": Echo})
    another = LoraAdapterConfig(**ADAPTER.config.model_dump() | {"lora_alpha": 8.0})
    save_student(
        levels_folder / "student",
        StudentAdapter(base=ADAPTER.base, config=another, weights=ADAPTER.weights),
    )
    with pytest.raises(ArtifactFormatError, match="has the digest"):
        loaded.clients["tiny-student"]


def test_clients_when_a_student_has_no_base_says_so_when_first_asked_for(levels_folder):
    loaded = load_candidates(write(levels_folder, LEVELS), kinds={"echo": Echo})
    with pytest.raises(ArtifactNotFoundError, match=r"models.tiny"):
        loaded.clients["tiny-student"]
