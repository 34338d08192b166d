"""The whole demo, as a newcomer runs it: a real process, real models, the shipped log."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fusion_integrations import RouterModel
from fusion_integrations.demo.candidates import DEMO_CANDIDATES

IDS = {candidate.id for candidate in DEMO_CANDIDATES}


@pytest.mark.real_model
@pytest.mark.slow
def test_demo_when_run_then_measures_saves_and_answers_in_both_frameworks(tmp_path):
    command = [str(Path(sys.executable).with_name("fusion")), "demo", "--json", "--sample", "1"]

    done = subprocess.run(
        [*command, "--out", str(tmp_path / "router")],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,  # two minutes alone; other work may stretch it several times
    )

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["sample"]["n_answers"] == len(IDS)
    assert {row["strategy"] for row in result["evaluation"]["rows"]} == {
        *("Random", "Best Single", "Best per Task", "Oracle"),
        *("cluster", "xgboost"),
    }
    assert set(result["evaluation"]["policies"]) == {"performance-first", "balance", "cost-first"}
    for framework in ("langchain", "llamaindex"):
        said = "\n".join(result["shown"][framework])
        assert any(f"by {candidate_id}, " in said for candidate_id in IDS)
        assert "USD (nominal)" in said
        assert "cost unknown" not in said
    saved = RouterModel.from_pretrained(tmp_path / "router")
    assert {candidate.id for candidate in saved.candidates} == IDS
