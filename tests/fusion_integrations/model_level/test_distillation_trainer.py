from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fusion_integrations.errors import ArtifactNotFoundError, InvalidPolicyError, NotEnoughLogsError
from fusion_integrations.logs.fingerprint import log_fingerprint
from fusion_integrations.model_level.distillation_trainer import DistillationTrainer


@pytest.fixture
def trainer(base, quick):
    return DistillationTrainer(quick, base=base, base_name="tiny-chat")


@pytest.fixture
def one_step(base, quick):
    return DistillationTrainer(replace(quick, n_epochs=1, batch_size=64), base=base, base_name="tiny-chat")


def test_training_lowers_the_loss_and_says_what_it_learned_from(student, echoes, quick):
    metrics = student.metrics
    assert metrics["train_loss_last"] < 0.7 * metrics["train_loss_first"]
    assert {name: metrics[name] for name in ("n_queries", "n_solved", "n_pairs", "n_steps")} == {
        "n_queries": 12,
        "n_solved": 12,
        "n_pairs": 24,
        "n_steps": 24,  # 4 epochs of 24 pairs in batches of 4
    }
    assert metrics["n_pairs_by_teacher"] == {"big": 12, "reference": 12}
    assert set(metrics["n_dropped"].values()) == {0}
    assert metrics["duration_s"] > 0
    assert student.log_fingerprint == log_fingerprint(echoes)
    assert student.arguments == quick.to_json()


@pytest.mark.slow
def test_training_again_with_the_same_seed_gives_the_same_adapter(trainer, student, base, quick, echoes):
    again = trainer.train(echoes.sample(fraction=1.0, shuffle=True, seed=5))
    assert again.revision == student.revision
    other = DistillationTrainer(replace(quick, seed=1), base=base, base_name="tiny-chat").train(echoes)
    assert other.revision != student.revision


def test_training_leaves_nothing_but_the_student(one_step, echoes, tmp_path, monkeypatch):
    import tempfile

    import torch

    work, scratch = tmp_path / "work", tmp_path / "scratch"
    work.mkdir()
    scratch.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()  # noqa: NPY002
    n_threads = torch.get_num_threads()
    one_step.train(echoes)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()  # noqa: NPY002
    assert after == before
    assert torch.get_num_threads() == n_threads
    assert list(work.iterdir()) == []
    assert list(scratch.iterdir()) == []


def test_training_prints_nothing(one_step, echoes, capsys):
    one_step.train(echoes)
    assert capsys.readouterr().out == ""


def test_progress_is_told_every_step_and_can_end_the_training(trainer, echoes):
    seen = []

    def watch(step, n_steps, loss):
        seen.append((step, n_steps))
        assert loss > 0
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.train(echoes, on_progress=watch)
    assert seen == [(1, 24), (2, 24), (3, 24)]


@pytest.mark.slow
def test_eval_logs_measure_the_loss_before_and_after(trainer, echoes):
    held_out = pl.col("query_text").is_in(["Say k.", "Say l."])
    metrics = trainer.train(echoes.filter(~held_out), eval_logs=echoes.filter(held_out)).metrics
    assert metrics["n_eval_pairs"] == 4
    assert metrics["eval_loss_student"] < metrics["eval_loss_base"]


def test_eval_logs_when_taught_are_refused(trainer, echoes):
    with pytest.raises(InvalidPolicyError, match="eval_logs holds 12 queries that are taught"):
        trainer.train(echoes, eval_logs=echoes)


def test_training_when_pairs_are_too_long_drops_and_counts_them(one_step, base, echoes, quick):
    long = echoes.with_columns(
        pl.when(pl.col("query_text") == "Say a.")
        .then(pl.lit("x" * 200))
        .otherwise(pl.col("response"))
        .alias("response")
    )
    metrics = one_step.train(long).metrics
    assert (metrics["n_pairs"], metrics["n_dropped"]["too_long"]) == (23, 1)
    tight = DistillationTrainer(replace(quick, max_tokens=20), base=base, base_name="tiny-chat")
    with pytest.raises(NotEnoughLogsError, match=r"No pair can be taught: 24 too_long\. Raise max_tokens=20"):
        tight.train(echoes)


def test_training_when_it_diverges_says_so(base, quick, echoes):
    wild = replace(quick, learning_rate=1e30, warmup_share=0.0)
    with pytest.raises(
        InvalidPolicyError, match=r"The loss became nan at step \d+ of 24\. Lower the learning"
    ):
        DistillationTrainer(wild, base=base, base_name="tiny-chat").train(echoes)


@pytest.mark.parametrize("base_name", ["", "/home/me/models/smollm2", "a/b/c", "C:\\models", "../x"])
def test_trainer_when_the_base_name_is_no_name_refuses(tmp_path, base_name):
    with pytest.raises(InvalidPolicyError, match="base_name must be a name"):
        DistillationTrainer(base=tmp_path, base_name=base_name)


def test_training_when_there_is_no_base_says_so(echoes, tmp_path):
    with pytest.raises(ArtifactNotFoundError, match="no safetensors weights"):
        DistillationTrainer(base=Path(tmp_path), base_name="tiny-chat").train(echoes)
