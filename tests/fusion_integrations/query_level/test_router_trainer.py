import math

import numpy as np
import polars as pl
import pytest

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import (
    InvalidPolicyError,
    LogSchemaError,
    NotEnoughLogsError,
    UnknownCandidateError,
)
from fusion_integrations.logs.store import LogStore
from fusion_integrations.query_level.heads import LinearHeadConfig, XGBoostHeadConfig
from fusion_integrations.query_level.policy import BALANCE, RoutingPolicy
from fusion_integrations.query_level.router_config import RouterTrainingArguments
from fusion_integrations.query_level.router_trainer import RouterTrainer
from fusion_integrations.testing import tiny_logs
from fusion_integrations.types import Price, PriceTable

SUM = "How many are 3 apples plus 4 pears and 2 more figs?"
PROSE = "Write a gentle story about rivers near forests"
BEST = RoutingPolicy(margin_z=0.0)


def trainer(**arguments):
    settings = {"n_members": 2, "n_calibration_folds": 2, "n_threads": 1, **arguments}
    return RouterTrainer(RouterTrainingArguments(**settings), embedder=HashEmbedder(dimensions=16))


def chosen(router, policy=BEST):
    return [decision.candidate.id for decision in router.route_batch([SUM, PROSE], policy=policy)]


@pytest.fixture(scope="module")
def two_task_router(logs, two_tasks):
    return trainer().train(logs(*two_tasks(40)))


def test_router_learns_who_is_good_at_what_and_validates_a_margin(two_task_router):
    assert chosen(two_task_router) == ["a", "b"]
    assert math.isfinite(two_task_router.basis.margin_z[0.0])
    assert chosen(two_task_router, RoutingPolicy()) == ["a", "b"]


def test_metrics_say_what_training_saw(two_task_router, logs, two_tasks):
    metrics = two_task_router.metrics
    assert metrics["n_queries"] == 80
    assert metrics["n_answers"] == {"a": 80, "b": 80}
    assert metrics["mean_performance"] == pytest.approx({"a": 0.5, "b": 0.5})
    assert [margin["cost_weight"] for margin in metrics["validated_margins"]] == [0.0, 0.2, 0.5, 0.8]
    assert two_task_router.basis.cost_scale_usd == pytest.approx(0.002)
    assert two_task_router.arguments["n_members"] == 2


def test_logs_without_tasks_train_on_clusters(logs, two_tasks):
    router = trainer().train(logs(*two_tasks(has_tasks=False)))
    assert router.weights.members[0].means.shape[0] > 1
    performance = router.predict([SUM, PROSE]).performance
    assert performance[0, 0] > performance[1, 0]
    assert performance[1, 1] > performance[0, 1]


def test_logs_of_one_task_train_too(logs, two_tasks):
    rows = [{**row, "task": "everything"} for row in two_tasks()]
    assert chosen(trainer().train(logs(*rows))) == ["a", "b"]


def test_xgboost_head_trains_and_routes(logs, two_tasks):
    head = XGBoostHeadConfig(n_rounds=20, learning_rate=0.2)
    router = trainer(head=head).train(logs(*two_tasks(40)))
    assert router.weights.head_name == "xgboost"
    assert chosen(router) == ["a", "b"]


def test_training_when_the_seed_is_equal_is_bit_equal_whatever_the_order_of_rows(logs, two_tasks):
    rows = two_tasks()
    one, other = (trainer(seed=5).train(logs(*order)) for order in (rows, rows[::-1]))
    for name, tensor in one.weights.tensors().items():
        np.testing.assert_array_equal(tensor, other.weights.tensors()[name], err_msg=name)
    assert one.basis.margin_z == other.basis.margin_z
    assert one.log_fingerprint == other.log_fingerprint


def test_training_when_the_seed_differs_differs(two_task_router, logs, two_tasks):
    other = trainer(seed=1).train(logs(*two_tasks(40)))
    name = "member.0.means"
    assert (two_task_router.weights.tensors()[name] != other.weights.tensors()[name]).any()


def test_candidates_when_permuted_permute_the_columns_and_keep_the_decisions(logs, two_tasks, named):
    a, b = named("ab")
    frame = logs(*two_tasks())
    forward, backward = (trainer().train(frame, candidates=order) for order in ([a, b], [b, a]))
    first, second = (router.predict([SUM, PROSE]).performance for router in (forward, backward))
    np.testing.assert_allclose(second, first[:, ::-1], atol=1e-6)
    assert chosen(forward) == chosen(backward)


def test_a_store_and_its_frame_train_alike(logs, two_task_router):
    with (
        LogStore.open(":memory:") as store,
        pytest.raises(NotEnoughLogsError, match="None of the 0 log rows"),
    ):
        trainer().train(store)


# Partial logs


def test_logs_of_one_answer_a_query_train_and_route(logs, two_tasks):
    # A fair coin chose who answered: every second answer of the full logs, in a pattern that is no task's.
    full, rng = two_tasks(60), np.random.default_rng(0)
    pairs = zip(full[::2], full[1::2], strict=True)
    rows = [{**pair[rng.integers(2)], "propensity": 0.5, "assignment": "policy"} for pair in pairs]
    assert len(rows) == 120
    router = trainer().train(logs(*rows))
    assert chosen(router) == ["a", "b"]
    assert router.metrics["mean_performance"] == pytest.approx({"a": 0.5, "b": 0.5}, abs=0.2)


def test_logs_with_missing_answers_and_failed_calls_train(logs, two_tasks):
    rows = [
        {**row, "performance": None, "error": "Timeout", "response": None} if n % 7 == 0 else row
        for n, row in enumerate(two_tasks())
        if n % 5
    ]
    router = trainer().train(logs(*rows))
    assert chosen(router) == ["a", "b"]
    answered = sum(row["performance"] is not None for row in rows)
    assert sum(router.metrics["n_answers"].values()) == answered


def test_default_when_a_policy_sent_easy_queries_to_one_candidate_is_not_fooled(logs, two_tasks):
    # `a` answers everything equally well, 0.6. `b` solves sums only, 0.5 on average, but was mostly asked
    # sums: its plain mean is about 0.9.
    rng = np.random.default_rng(0)
    rows = []
    for row in two_tasks(100)[::2]:
        is_sum = row["task"] == "sums"
        takes_b = rng.random() < (0.9 if is_sum else 0.1)
        chance = 0.9 if takes_b == is_sum else 0.1
        performance = float(is_sum) if takes_b else 0.6
        rows.append({**row, "c": "b" if takes_b else "a", "performance": performance, "propensity": chance})
        rows[-1]["model"] = f"m-{rows[-1]['c']}"
    router = trainer().train(logs(*rows))
    assert router.route(SUM, policy=RoutingPolicy(margin_z=math.inf)).default_id == "a"


# Cost


def test_logs_without_cost_train_and_route_by_performance(logs, two_tasks):
    router = trainer().train(logs(*two_tasks(has_cost=False)))
    assert router.basis.cost_scale_usd is None
    assert list(router.basis.margin_z) == [0.0]
    assert chosen(router) == ["a", "b"]
    assert router.route(SUM).expected_cost_usd is None
    with pytest.raises(InvalidPolicyError, match="cost_scale_usd"):
        router.route(SUM, policy=BALANCE)


def test_logs_of_free_calls_have_no_scale_but_known_costs(logs, two_tasks):
    rows = [{**row, "cost_usd": 0.0} for row in two_tasks()]
    router = trainer().train(logs(*rows))
    assert router.route(SUM, policy=RoutingPolicy(max_cost_usd=0.0)).expected_cost_usd == 0.0
    assert (
        router.route(SUM, policy=RoutingPolicy(cost_weight=0.5, cost_scale_usd=1.0)).expected_cost_usd == 0.0
    )
    with pytest.raises(InvalidPolicyError, match="cost_scale_usd"):
        router.route(SUM, policy=BALANCE)


def test_prices_at_training_replace_logged_costs(logs, two_tasks):
    prices = PriceTable(prices={"m-a": Price(usd_per_call=3.0), "m-b": Price(usd_per_call=1.0)})
    router = trainer().train(logs(*two_tasks()), prices=prices)
    assert router.basis.cost_scale_usd == pytest.approx(3.0)
    assert router.route(SUM, policy=RoutingPolicy(cost_weight=1.0)).candidate.id == "b"


# Refusals


def test_training_when_there_is_one_candidate_refuses(logs, two_tasks, named):
    with pytest.raises(NotEnoughLogsError, match="one candidate only, 'a'"):
        trainer().train(logs(*two_tasks()), candidates=named("a"))


def test_training_when_there_are_no_candidates_refuses(logs, two_tasks):
    with pytest.raises(InvalidPolicyError, match="no candidates"):
        trainer().train(logs(*two_tasks()), candidates=[])


def test_training_when_there_are_few_queries_refuses_and_says_how_many(logs, two_tasks):
    with pytest.raises(NotEnoughLogsError, match=r"18 scored queries.*at least 20"):
        trainer().train(logs(*two_tasks(9)))


def test_training_when_all_queries_are_copies_of_one_refuses(logs):
    rows = [{"q": f"What is {i} plus {i}?", "c": c, "performance": 1.0} for i in range(30) for c in "ab"]
    with pytest.raises(NotEnoughLogsError, match="group"):
        trainer().train(logs(*rows))


def test_training_when_a_candidate_never_answered_refuses(logs, two_tasks, named):
    with pytest.raises(UnknownCandidateError, match="'z'"):
        trainer().train(logs(*two_tasks()), candidates=named("abz"))


def test_training_when_columns_are_missing_refuses(logs, two_tasks):
    with pytest.raises(LogSchemaError, match="query_text"):
        trainer().train(logs(*two_tasks()).drop("query_text"))


# Validation logs


def test_validation_logs_when_given_choose_the_margins(logs, two_tasks):
    # In the validation logs the roles are swapped, so leaving the default never pays.
    swapped = [{**row, "performance": 1 - row["performance"]} for row in two_tasks()]
    router = trainer().train(logs(*two_tasks()), eval_logs=logs(*swapped))
    assert math.isinf(router.basis.margin_z[0.0])
    assert chosen(router, RoutingPolicy())[0] == chosen(router, RoutingPolicy())[1]
    assert router.metrics["n_queries"] == 30


def test_validation_logs_when_tiny_refuse(logs, two_tasks):
    # One lucky query would otherwise validate every margin: its bootstrap never sees anything else.
    with pytest.raises(NotEnoughLogsError, match=r"validation.*2 scored queries"):
        trainer().train(logs(*two_tasks()), eval_logs=logs(*two_tasks(1)))


@pytest.mark.parametrize("has_tasks", [True, False])
def test_candidate_logged_on_easy_queries_alone_is_no_default_and_not_sent_the_others(
    logs, two_tasks, has_tasks
):
    # On sums b is worse than a; it was never asked for prose, where all are bad, so its mean is the best.
    scores = {("sums", "a"): 0.9, ("sums", "b"): 0.8, ("prose", "a"): 0.3}
    rows = [
        {**row, "performance": scores[row["task"], row["c"]], "task": row["task"] if has_tasks else None}
        for row in two_tasks(60)
        if (row["task"], row["c"]) in scores
    ]
    router = trainer(head=LinearHeadConfig()).train(logs(*rows))
    assert router.metrics["mean_performance"]["b"] == pytest.approx(0.5, abs=0.08)
    decisions = router.route_batch([SUM, PROSE], policy=BEST)
    assert {(each.candidate.id, each.default_id) for each in decisions} == {("a", "a")}


# Extremes


def test_forty_candidates_train_and_keep_their_columns(logs, two_tasks):
    names = [f"c{i:02}" for i in range(40)]
    texts = [(row["q"], row["task"]) for row in two_tasks()[::2]]
    rows = [
        {
            "q": q,
            "c": name,
            "task": task,
            "performance": float((task == "sums") == (i % 2 == 0)) * (i + 1) / 40,
        }
        for q, task in texts
        for i, name in enumerate(names)
    ]
    router = trainer().train(logs(*rows))
    assert [candidate.id for candidate in router.candidates] == names
    assert chosen(router) == ["c38", "c39"]


def test_labels_that_are_all_equal_leave_the_default_alone(logs, two_tasks):
    rows = [{**row, "performance": 1.0} for row in two_tasks()]
    router = trainer().train(logs(*rows))
    assert math.isinf(router.basis.margin_z[0.0])
    for policy in (RoutingPolicy(), BEST):
        outcomes = {decision.outcome for decision in router.route_batch([SUM, PROSE], policy=policy)}
        assert outcomes == {"default"}


def test_labels_without_any_pattern_leave_the_default_alone(logs, two_tasks):
    rng = np.random.default_rng(0)
    rows = [{**row, "performance": float(rng.random() < 0.5)} for row in two_tasks(40)]
    assert math.isinf(trainer().train(logs(*rows)).basis.margin_z[0.0])


def test_texts_of_any_script_and_length_train(logs, two_tasks):
    rows = [{**row, "q": f"{row['q']} {'漢字🙂' * (n % 3)} {'long ' * (2000 * (n % 9 == 0))}"}
            for n, row in enumerate(two_tasks())]  # fmt: skip
    router = trainer().train(logs(*rows))
    frame: pl.DataFrame = logs(*rows)
    assert router.metrics["n_queries"] == frame["query_id"].n_unique()


def test_candidate_with_one_lucky_answer_is_neither_default_nor_chosen():
    logs, rng = tiny_logs(), np.random.default_rng(0)
    usual = logs.filter(pl.col("candidate_id") == "thinker").with_columns(
        performance=pl.Series(np.where(rng.random(40) < 0.8, 1.0, 0.0))
    )
    lucky = logs.filter(pl.col("candidate_id") == "writer").head(1).with_columns(performance=pl.lit(1.0))

    router = RouterTrainer(embedder=HashEmbedder()).train(pl.concat([usual, lucky]))

    for query in ("What is 1 plus 1?", "Write a line on snow."):
        decision = router.route(query)
        assert (decision.candidate.id, decision.default_id) == ("thinker", "thinker")
