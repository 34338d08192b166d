"""Candidates that come and go after training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from fusion_integrations.artifacts import load_artifact
from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import (
    ArtifactFormatError,
    InvalidPolicyError,
    NotEnoughLogsError,
    UnknownCandidateError,
)
from fusion_integrations.query_level.basis import ADDED_MARGIN_Z
from fusion_integrations.query_level.choice import choose
from fusion_integrations.query_level.labels import LabelBlend
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.query_level.pool_changes import add_candidate, remove_candidate
from fusion_integrations.query_level.router_artifact import router_details
from fusion_integrations.query_level.router_config import RouterTrainingArguments
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.query_level.router_trainer import RouterTrainer
from fusion_integrations.types import Candidate

TASKS = ("sums", "prose", "facts")
WORDS = {
    "sums": "add plus number total",
    "prose": "write story gentle poem",
    "facts": "which city river king",
}
# Chance of a right answer by task: nobody else is best at facts.
CHANCE = {"a": (0.9, 0.1, 0.5), "b": (0.1, 0.9, 0.5), "c": (0.6, 0.6, 0.2), "new": (0.85, 0.15, 0.5)}
NEW = Candidate(id="new", model="m-new")


def rows_of(names, *, n=240, seed=0, latency=False):
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        task = i % 3
        words = WORDS[TASKS[task]].split()
        text = f"{' '.join(rng.permutation(words))} {rng.integers(10**6)} {chr(97 + i % 26)}{seed}"
        rows += [
            {
                "q": text,
                "c": name,
                "task": TASKS[task],
                "performance": float(rng.random() < CHANCE[name][task]),
                "cost_usd": {"a": 0.002, "b": 0.004, "c": 0.001, "new": 0.0018}[name],
                "input_tokens": 12,
                "output_tokens": {"new": 30}.get(name, 20),
                "latency_s": 0.5 if latency and name == "new" else None,
            }
            for name in names
        ]
    return rows


@pytest.fixture(scope="module")
def router(logs):
    return RouterTrainer(embedder=HashEmbedder()).train(logs(*rows_of("abc")))


@pytest.fixture(scope="module")
def queries(logs):
    return sorted(set(logs(*rows_of("a", n=90, seed=9))["query_text"]))


def added(router, logs, *, n, seed=1, **settings):
    return add_candidate(router, NEW, logs(*rows_of(["new"], n=n, seed=seed, **settings)))


def truth_of(queries):
    task_of = {word: task for task, words in enumerate(WORDS.values()) for word in words.split()}
    return np.array([CHANCE["new"][task_of[query.split()[0]]] for query in queries])


def test_added_candidate_is_the_last_and_leaves_the_others_untouched(router, logs, queries):
    more = added(router, logs, n=30)
    before, after = router.predict(queries), more.predict(queries)
    assert [candidate.id for candidate in more.candidates] == ["a", "b", "c", "new"]
    for name in ("performance_members", "input_tokens", "output_tokens", "logged_cost_usd"):
        np.testing.assert_array_equal(getattr(after, name)[..., :3], getattr(before, name))
    assert len(router.candidates) == 3
    assert more.metrics["n_answers"]["new"] == 30
    assert more.basis.margin_z == router.basis.margin_z


def test_candidate_added_to_a_router_of_a_blend_is_scored_by_the_blend(logs):
    blend = LabelBlend(weights={"performance": 0.7, "judge_score": 0.3})
    judged = logs(*({**row, "judge_score": 0.5} for row in rows_of(["a", "b", "new"], n=60)))
    known = judged.filter(pl.col("candidate_id") != "new")
    router = RouterTrainer(RouterTrainingArguments(label=blend), embedder=HashEmbedder()).train(known)
    changed = add_candidate(router, NEW, judged)
    mean = changed.basis.average.performance[0, -1]
    assert 0.15 <= mean <= 0.85  # the judge's 0.3 * 0.5 at least


def test_added_candidate_is_predicted_the_better_the_more_answers_it_has(router, logs, queries):
    truth = truth_of(queries)
    errors = []
    for n in (6, 30, 120):
        found = [added(router, logs, n=n, seed=seed).predict(queries).performance[:, 3] for seed in range(4)]
        errors.append(np.mean([np.sqrt(((each - truth) ** 2).mean()) for each in found]))
    assert errors[0] > errors[2]
    assert errors[1] < 0.2
    assert errors[2] < 0.12  # the spread of the truth is 0.29


def test_added_candidate_is_honestly_uncertain_and_the_less_so_the_more_answers_it_has(router, logs, queries):
    truth = truth_of(queries)
    width, hits = [], []
    for n in (6, 30, 120):
        for seed in range(4):
            prediction = added(router, logs, n=n, seed=seed).predict(queries)
            width.append((n, prediction.performance_se[:, 3].mean()))
            inside = np.abs(prediction.performance[:, 3] - truth) <= 2 * prediction.performance_se[:, 3]
            hits.append(inside.mean())
    means = [np.mean([value for n, value in width if n == wanted]) for wanted in (6, 30, 120)]
    assert means[0] > means[1] > means[2] > 0.05
    assert np.mean(hits) > 0.8
    assert means[2] > router.predict(queries).performance_se.mean()


def test_added_candidate_that_looks_perfect_is_not_certain(router, logs, queries):
    perfect = [row | {"performance": 1.0} for row in rows_of(["new"], n=30, seed=1)]
    prediction = add_candidate(router, NEW, logs(*perfect)).predict(queries)
    assert 0.8 < prediction.performance[:, 3].max() <= 1.0
    assert prediction.performance_se[:, 3].min() > 0.05


def test_added_candidate_with_few_answers_is_never_the_default(router, logs):
    lucky = [row | {"performance": 1.0} for row in rows_of(["new"], n=19, seed=1)]
    more = add_candidate(router, NEW, logs(*lucky))
    policy = RoutingPolicy(margin_z=np.inf)
    assert more.route("add plus number total", policy=policy).default_id != "new"
    assert more.basis.average.performance_se[0, 3] == pytest.approx(1.0, rel=1e-5)
    enough = [row | {"performance": 1.0} for row in rows_of(["new"], n=60, seed=1)]
    assert add_candidate(router, NEW, logs(*enough)).route("add plus", policy=policy).default_id == "new"


def test_added_candidate_needs_a_margin_of_its_own_where_validation_found_none(predict, basis):
    # b gains 0.1 with an error of 0.2: at margin 0 it is chosen, unless nobody ever validated it.
    prediction = predict([[[0.5, 0.4]], [[0.5, 0.8]]])
    learned = basis([0.6, 0.5], margins={0.0: 0.0})
    assert choose(prediction, RoutingPolicy(), basis=learned).chosen.tolist() == [1]
    unseen = replace(learned, added=frozenset("b"))
    assert ADDED_MARGIN_Z >= 1.0
    choice = choose(prediction, RoutingPolicy(), basis=unseen)
    assert (choice.chosen.tolist(), choice.margin_z.tolist()) == ([0], [0.0, ADDED_MARGIN_Z])
    assert choose(prediction, RoutingPolicy(margin_z=0.0), basis=unseen).chosen.tolist() == [1]


def test_added_candidate_uses_what_its_answers_used_and_what_was_not_logged_stays_unknown(
    router, logs, queries
):
    more = added(router, logs, n=30, latency=True).predict(queries)
    np.testing.assert_allclose(more.logged_cost_usd[:, 3], 0.0018, rtol=0.1)
    np.testing.assert_allclose(more.output_tokens[:, 3], 30, rtol=0.1)
    np.testing.assert_allclose(more.latency_s[:, 3], 0.5, rtol=1e-5)
    assert np.isnan(more.latency_s[:, :3]).all()
    bare = [row | {"cost_usd": None, "output_tokens": None} for row in rows_of(["new"], n=30, seed=1)]
    unknown = add_candidate(router, NEW, logs(*bare)).predict(queries)
    assert np.isnan(unknown.logged_cost_usd[:, 3]).all()
    assert np.isnan(unknown.output_tokens[:, 3]).all()
    assert np.isfinite(unknown.performance).all()


def test_added_candidate_starts_as_those_like_it_in_price_and_description(logs):
    named = tuple(
        Candidate(id=name, model=f"m-{name}", description=text)
        for name, text in (("a", "small calculator"), ("b", "large novelist"), ("c", "small calculator two"))
    )
    trained = RouterTrainer(embedder=HashEmbedder()).train(logs(*rows_of("abc")), candidates=named)
    one = rows_of(["new"], n=1, seed=1)
    prose = "write story gentle poem"
    like_b = replace(NEW, description="large novelist")
    dear = [row | {"cost_usd": 0.004} for row in one]
    as_novelist = add_candidate(trained, like_b, logs(*dear)).predict([prose]).performance[0]
    like_a = replace(NEW, description="small calculator")
    as_calculator = add_candidate(trained, like_a, logs(*one)).predict([prose]).performance[0]
    assert as_novelist[3] > as_calculator[3] + 0.1


def test_router_with_changes_when_saved_and_loaded_predicts_bit_equal(router, logs, queries, tmp_path):
    changed = remove_candidate(added(router, logs, n=30, latency=True), "b")
    saved = changed.save_pretrained(tmp_path / "router")
    loaded = RouterModel.from_pretrained(tmp_path / "router")
    assert loaded.candidates == changed.candidates
    before, after = saved.predict(queries), loaded.predict(queries)
    for name in ("performance_members", "logged_cost_usd", "input_tokens", "output_tokens", "latency_s"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    assert loaded.route_batch(queries) == saved.route_batch(queries)
    assert loaded.basis.added == {"new"}
    assert saved.basis.artifact not in ("", router.basis.artifact)


def test_artifact_of_a_router_without_changes_says_nothing_of_a_pool(router):
    assert "pool" not in router_details(router.weights, router.basis)


@pytest.mark.parametrize("kept", [(0, 7), (0, 0), (0,)])
def test_loading_when_the_pool_does_not_fit_its_arrays_refuses(router, logs, tmp_path, kept):
    changed = remove_candidate(added(router, logs, n=30), "b")
    wrong = replace(changed.weights.pool, kept=kept)
    replace(changed, weights=replace(changed.weights, pool=wrong)).save_pretrained(tmp_path / "router")
    assert load_artifact(tmp_path / "router", kind="router").manifest.details["pool"]["kept"] == list(kept)
    with pytest.raises(ArtifactFormatError, match="Save the router again"):
        RouterModel.from_pretrained(tmp_path / "router")


def test_removed_candidate_is_gone_and_the_others_stay_as_they_were(router, logs, queries):
    less = remove_candidate(router, "b")
    assert [candidate.id for candidate in less.candidates] == ["a", "c"]
    np.testing.assert_array_equal(
        less.predict(queries).performance_members,
        router.predict(queries).performance_members[:, :, [0, 2]],
    )
    assert less.basis.average.candidates == less.candidates
    assert less.metrics["n_answers"].keys() == less.metrics["mean_performance"].keys() == {"a", "c"}
    overlap = less.metrics["overlap"]
    assert overlap["n_answers"].keys() == overlap["effective_answers"].keys() == {"a", "c"}
    assert overlap["n_queries"] == router.metrics["overlap"]["n_queries"]
    np.testing.assert_array_equal(less.basis.quality.loss, router.basis.quality.loss[[0, 2]])
    assert {decision.candidate.id for decision in less.route_batch(queries)} <= {"a", "c"}


def test_candidate_added_and_removed_again_leaves_the_router_as_it_was(router, logs, queries):
    back = remove_candidate(added(router, logs, n=30), "new")
    assert back.candidates == router.candidates
    assert back.route_batch(queries) == router.route_batch(queries)


def test_two_candidates_can_be_added_and_the_first_of_them_removed(router, logs, queries):
    one = added(router, logs, n=30)
    other = Candidate(id="other", model="m-other")
    rows = [row | {"c": "other"} for row in rows_of(["new"], n=40, seed=5)]
    two = add_candidate(one, other, logs(*rows))
    assert [candidate.id for candidate in two.candidates] == ["a", "b", "c", "new", "other"]
    alone = remove_candidate(two, "new")
    np.testing.assert_array_equal(
        alone.predict(queries).performance_members[:, :, 3], two.predict(queries).performance_members[:, :, 4]
    )
    assert alone.basis.added == {"other"}


def test_quality_of_an_added_candidate_was_not_validated_but_it_may_stand_in(router, logs):
    more = added(router, logs, n=60)
    with pytest.raises(InvalidPolicyError, match="added later"):
        more.route("add plus number", policy=RoutingPolicy(quality_of="new"))
    policy = RoutingPolicy(quality_of="a", max_loss=0.3)
    assert more.route("add plus number", policy=policy).candidate.id in {"a", "c", "new"}


def test_changes_that_make_no_sense_are_refused(router, logs):
    with pytest.raises(InvalidPolicyError, match="knows 'a' already"):
        add_candidate(router, Candidate(id="a", model="m"), logs(*rows_of("a", n=3)))
    with pytest.raises(UnknownCandidateError, match="no scored answer of"):
        add_candidate(router, NEW, logs(*rows_of("a", n=3)))
    with pytest.raises(UnknownCandidateError, match="no candidate 'z'"):
        remove_candidate(router, "z")
    with pytest.raises(NotEnoughLogsError, match="nothing to choose"):
        remove_candidate(remove_candidate(router, "a"), "b")
    only_new = added(router, logs, n=30)
    rows = [row | {"c": "other"} for row in rows_of(["new"], n=30, seed=2)]
    both = add_candidate(only_new, Candidate(id="other", model="m-other"), logs(*rows))
    for gone in "abc":
        both = remove_candidate(both, gone)
    third = [row | {"c": "third"} for row in rows_of(["new"], n=30, seed=3)]
    with pytest.raises(NotEnoughLogsError, match="No trained candidate is left"):
        add_candidate(both, Candidate(id="third", model="m-third"), logs(*third))
