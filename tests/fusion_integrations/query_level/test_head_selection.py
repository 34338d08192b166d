import json

import numpy as np
import pytest

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.logs.splits import grouped_folds
from fusion_integrations.query_level.head_selection import try_heads
from fusion_integrations.query_level.heads import HeadInputs
from fusion_integrations.query_level.off_policy import importance_weights
from fusion_integrations.query_level.router_dataset import RouterDataset
from fusion_integrations.query_level.router_features import router_features

EMBEDDER = HashEmbedder(dimensions=64)


@pytest.fixture
def trial(logs, two_tasks):
    """Try heads on two tasks, each the other candidate's strength, with some answers hidden."""

    def run(names, *, share=1.0, scores=None):
        dataset = RouterDataset.from_logs(logs(*two_tasks(30)))
        targets = dataset.performance if scores is None else np.full_like(dataset.performance, scores)
        hidden = np.random.default_rng(0).random(targets.shape) >= share
        targets = np.where(hidden, np.float32(np.nan), targets)
        propensity = np.full_like(targets, share)
        inputs = HeadInputs(
            texts=tuple(dataset.texts),
            features=router_features(dataset.texts, embedder=EMBEDDER),
            targets=targets,
            weights=importance_weights(targets, propensity),
            tasks=dataset.tasks,
            column_embeddings=np.zeros((2, 0), dtype=np.float32),
            n_embedding=64,
            n_threads=1,
            seed=0,
        )
        groups = list(dataset.query_ids)
        folds = grouped_folds(groups, n_folds=3, seed=0)
        kinds = np.zeros(len(groups), dtype=np.intp)
        return try_heads(names, inputs, folds=folds, kinds=kinds, groups=groups, propensity=propensity)

    return run


def test_trial_of_a_head_that_tells_the_tasks_apart_reaches_all(trial):
    config, (only,) = trial(["cluster"])
    assert (config.name, only.head) == ("cluster", "cluster")
    assert only.performance == 1.0  # always the right one
    # Each candidate alone solves half of the queries.
    assert only.gain.mean == pytest.approx(0.5)
    assert only.gain.low > 0.3
    assert only.mse < 0.1


def test_trial_on_partial_logs_estimates_about_the_same(trial):
    _, (only,) = trial(["cluster"], share=0.5)
    # 60 queries, each outcome right but for errors of prediction, doubled at most.
    assert only.performance == pytest.approx(1.0, abs=0.15)
    assert only.gain.mean == pytest.approx(0.5, abs=0.2)


def test_trials_stand_best_first_and_the_winner_is_kept(trial):
    config, trials = trial(["knn", "linear", "cluster"])
    performances = [each.performance for each in trials]
    assert performances == sorted(performances, reverse=True)
    assert config.name == trials[0].head
    assert {each.head for each in trials} == {"knn", "linear", "cluster"}


@pytest.mark.parametrize("names", [["linear", "cluster"], ["cluster", "linear"]])
def test_trials_when_heads_tie_keep_the_earlier(names, trial):
    config, trials = trial(names, scores=0.5)
    assert config.name == names[0]
    assert [each.performance for each in trials] == [0.5, 0.5]
    assert {(each.gain.low, each.gain.high) for each in trials} == {(0.0, 0.0)}


def test_trial_when_a_head_is_unknown_refuses(trial):
    with pytest.raises(InvalidPolicyError, match="There is no head 'oracle'"):
        trial(["oracle"])


def test_trial_as_json_is_data(trial):
    _, (only,) = trial(["cluster"])
    assert json.loads(json.dumps(only.to_json()))["gain"]["mean"] == pytest.approx(0.5)
