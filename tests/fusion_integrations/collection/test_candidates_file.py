from __future__ import annotations

from pathlib import Path

import pytest

from fusion_integrations.collection.candidates_file import load_candidates
from fusion_integrations.errors import ArtifactNotFoundError, CandidatesFileError
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
  - {id: "tiny:reasoning", model: tiny, prompt_mode: reasoning, capabilities: [tools]}
  - {id: free, model: free, revision: mine-3}
"""


class Echo:
    def __init__(self, model: str, settings: object, folder: Path) -> None:
        self.model, self.settings, self.folder = model, settings, folder


def write(folder: Path, text: str) -> Path:
    path = folder / "candidates.yaml"
    path.write_text(text, encoding="utf-8")
    return path


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
        (("client: echo", "client: os.system"), "no client kind 'os.system'; known: 'echo', 'transformers'"),
        (("id: free, model: free", "id: free, model: fee"), "names model 'fee', which is not under models"),
        (("id: free", 'id: "tiny:direct"'), "two candidates 'tiny:direct'"),
        (("prompt_mode: reasoning", "prompt_mode: thought"), "in candidate 'tiny:reasoning': Prompt mode"),
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
