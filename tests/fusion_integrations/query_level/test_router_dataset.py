import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion_integrations.errors import (
    InvalidPolicyError,
    LogSchemaError,
    NotEnoughLogsError,
    UnknownCandidateError,
)
from fusion_integrations.query_level.off_policy import doubly_robust
from fusion_integrations.query_level.router_dataset import RouterDataset
from fusion_integrations.types import Candidate, Price, PriceTable, Query

NAN = np.nan


def row_of(dataset, text):
    return dataset.query_ids.index(Query.from_text(text).query_id)


def cell(matrix, dataset, text, candidate_id):
    column = [candidate.id for candidate in dataset.candidates].index(candidate_id)
    return float(matrix[row_of(dataset, text), column])


def test_pivot_puts_every_answer_in_its_cell_whatever_the_order_of_rows(logs):
    rows = [{"q": q, "c": c, "performance": value} for q, c, value in
            [("one", "b", 0.1), ("two", "a", 0.2), ("one", "a", 0.3), ("three", "b", 0.4)]]  # fmt: skip
    dataset = RouterDataset.from_logs(logs(*rows))
    assert [candidate.id for candidate in dataset.candidates] == ["a", "b"]
    assert list(dataset.query_ids) == sorted(dataset.query_ids)
    assert dataset.performance.shape == (3, 2)
    for row in rows:
        assert cell(dataset.performance, dataset, row["q"], row["c"]) == pytest.approx(row["performance"])
    assert np.isnan(cell(dataset.performance, dataset, "two", "b"))
    assert np.isnan(cell(dataset.performance, dataset, "three", "a"))
    assert dataset.texts[row_of(dataset, "two")] == "two"


def test_pivot_when_a_call_failed_leaves_the_cell_missing_never_zero(logs):
    dataset = RouterDataset.from_logs(
        logs(
            {"q": "one", "c": "a", "performance": 0.5},
            {"q": "one", "c": "b", "error": "Timeout", "response": None, "cost_usd": 1.0},
            {"q": "two", "c": "b", "performance": 1.0},
        )
    )
    assert np.isnan(cell(dataset.performance, dataset, "one", "b"))
    assert np.isnan(cell(dataset.cost_usd, dataset, "one", "b"))


def test_pivot_when_a_failed_call_was_scored_all_the_same_does_not_count_it(logs):
    frame = logs(
        {"q": "one", "c": "a", "performance": 0.0, "error": "Timeout", "response": None},
        {"q": "one", "c": "a", "performance": 1.0},
    )
    assert RouterDataset.from_logs(frame).performance.tolist() == [[1.0]]


def test_pivot_averages_the_answers_of_a_cell(logs):
    dataset = RouterDataset.from_logs(
        logs(
            {"q": "one", "c": "a", "performance": 1.0, "cost_usd": 0.2, "output_tokens": 10, "sample": 0},
            {"q": "one", "c": "a", "performance": 0.0, "cost_usd": None, "output_tokens": 20, "sample": 1},
            {"q": "one", "c": "a", "performance": 0.5, "cost_usd": 0.4, "output_tokens": 60, "sample": 2},
        )
    )
    assert dataset.performance.tolist() == [[0.5]]
    assert dataset.output_tokens.tolist() == [[30.0]]
    np.testing.assert_allclose(dataset.cost_usd, [[0.3]], rtol=1e-6)
    assert np.isnan(dataset.input_tokens).all()


def test_pivot_when_a_score_is_nan_takes_it_as_missing(logs):
    dataset = RouterDataset.from_logs(
        logs(
            {"q": "one", "c": "a", "performance": NAN},
            {"q": "one", "c": "a", "performance": 1.0, "cost_usd": NAN},
            {"q": "two", "c": "a", "performance": NAN},
        )
    )
    assert dataset.performance.tolist() == [[1.0]]
    assert np.isnan(dataset.cost_usd).all()


@pytest.mark.parametrize("value", [1.5, -0.1, np.inf])
def test_pivot_when_a_score_is_out_of_range_refuses(logs, value):
    frame = logs({"q": "one", "c": "a", "performance": value}, {"q": "two", "c": "a", "performance": 1.0})
    with pytest.raises(LogSchemaError, match=r"performance.*\[0, 1\]"):
        RouterDataset.from_logs(frame)


@pytest.mark.parametrize("label", ["performance", "judge_score", "feedback"])
def test_pivot_reads_the_wanted_label(logs, label):
    frame = logs({"q": "one", "c": "a", label: 0.25}, {"q": "two", "c": "a", "response": "unscored"})
    assert RouterDataset.from_logs(frame, label=label).performance.tolist() == [[0.25]]


def test_pivot_when_scores_are_truths_counts_them_as_numbers(logs):
    frame = logs({"q": "one", "c": "a", "performance": 1.0}, {"q": "one", "c": "b", "performance": 0.0})
    dataset = RouterDataset.from_logs(frame.with_columns(pl.col("performance") == 1))
    assert dataset.performance.tolist() == [[1.0, 0.0]]


def test_pivot_when_nothing_is_scored_refuses_and_says_how_much_there_is(logs):
    frame = logs({"q": "one", "c": "a", "judge_score": 0.5}, {"q": "two", "c": "a"})
    with pytest.raises(NotEnoughLogsError, match="None of the 2 log rows has a 'performance' score"):
        RouterDataset.from_logs(frame)


def test_pivot_when_the_logs_are_empty_refuses(logs):
    with pytest.raises(NotEnoughLogsError, match="None of the 0 log rows"):
        RouterDataset.from_logs(logs())


@pytest.mark.parametrize(
    ("impossible", "reason"),
    [
        ({"cost_usd": -1.0}, r"'cost_usd' of 1 log rows is not in \[0, 1e\+12\), such as -1.0"),
        ({"cost_usd": float("inf")}, r"'cost_usd' of 1 log rows is not in \[0, 1e\+12\)"),
        ({"output_tokens": -3}, r"'output_tokens' of 1 log rows"),
        ({"latency_s": -0.5}, r"'latency_s' of 1 log rows"),
        ({"propensity": 0.0}, r"'propensity' of 1 log rows is not in \(0, 1\], such as 0.0"),
        ({"propensity": 1.5}, r"'propensity' of 1 log rows"),
        ({"query_text": " \n\u00a0"}, r"The query text of 1 log rows is blank, such as that of query "),
        ({"query_text": None}, r"The query text of 1 log rows is blank"),
        ({"candidate_id": None}, r"1 scored log rows have no candidate_id"),
        ({"cost_usd": "dear"}, r"another type than `LOG_SCHEMA` says"),
    ],
)
def test_pivot_when_a_value_is_impossible_refuses(logs, impossible, reason):
    frame = logs({"q": "one", "c": "a", "performance": 0.5}, {"q": "two", "c": "b", "performance": 0.5})
    changed = [
        pl.when(pl.col("candidate_id") == "a").then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
        for name, value in impossible.items()
    ]
    with pytest.raises(LogSchemaError, match=reason):
        RouterDataset.from_logs(frame.with_columns(changed))


def test_pivot_when_amounts_are_unknown_or_zero_takes_them(logs):
    frame = logs({"q": "one", "c": "a", "performance": 0.5}, {"q": "two", "c": "b", "performance": 0.5})
    frame = frame.with_columns(cost_usd=pl.Series([0.0, float("nan")]), latency_s=pl.Series([None, 0.0]))
    dataset = RouterDataset.from_logs(frame)
    assert np.nansum(dataset.cost_usd) == 0
    assert np.isnan(dataset.cost_usd).sum() == 3
    assert np.isnan(dataset.latency_s).sum() == 3


def test_pivot_when_columns_are_missing_names_them(logs):
    frame = logs({"q": "one", "c": "a", "performance": 0.5}).drop("query_text", "error")
    with pytest.raises(LogSchemaError, match=r"lack the columns \['error', 'query_text'\]"):
        RouterDataset.from_logs(frame)


# Candidates and revisions


def test_candidates_when_given_select_and_order_the_columns(logs, named):
    frame = logs(*({"q": "one", "c": c, "performance": p} for c, p in (("a", 0.1), ("b", 0.2), ("c", 0.3))))
    c, a = named("ca")
    dataset = RouterDataset.from_logs(frame, candidates=[c, a])
    assert dataset.candidates == (c, a)
    np.testing.assert_allclose(dataset.performance, [[0.3, 0.1]], rtol=1e-6)


def test_candidates_when_given_drop_queries_that_only_others_answered(logs, named):
    frame = logs({"q": "one", "c": "a", "performance": 0.1}, {"q": "two", "c": "b", "performance": 0.2})
    assert len(RouterDataset.from_logs(frame, candidates=named("a"))) == 1


def test_candidates_in_the_logs_keep_their_model_and_prompt_mode(logs):
    frame = logs(
        {"q": "one", "c": "m:think", "model": "m", "prompt_mode": "reasoning", "performance": 0.1},
        {"q": "one", "c": "search", "model": "", "performance": 0.2},
    )
    assert RouterDataset.from_logs(frame).candidates == (
        Candidate(id="m:think", model="m", prompt_mode="reasoning"),
        Candidate(id="search", kind="tool"),
    )


def test_candidates_when_unknown_are_refused_and_the_known_listed(logs, named):
    frame = logs({"q": "one", "c": "a", "performance": 0.1, "candidate_revision": "v2"})
    with pytest.raises(UnknownCandidateError, match=r"no scored answer of \['z'\].*\('a', 'v2'\)"):
        RouterDataset.from_logs(frame, candidates=named("az"))


def test_candidates_when_all_their_calls_failed_are_refused(logs, named):
    frame = logs(
        {"q": "one", "c": "a", "performance": 0.1},
        {"q": "one", "c": "b", "error": "Timeout", "response": None},
    )
    with pytest.raises(UnknownCandidateError, match=r"\['b'\]"):
        RouterDataset.from_logs(frame, candidates=named("ab"))


def test_candidates_when_an_id_repeats_are_refused(logs):
    frame = logs(
        {"q": "one", "c": "a", "performance": 0.0, "candidate_revision": "v1"},
        {"q": "one", "c": "a", "performance": 1.0, "candidate_revision": "v2"},
    )
    twice = [Candidate(id="a", model="m", revision=revision) for revision in ("v1", "v2")]
    with pytest.raises(InvalidPolicyError, match="'a'"):
        RouterDataset.from_logs(frame, candidates=twice)


def test_candidates_when_none_are_given_are_refused(logs):
    with pytest.raises(InvalidPolicyError, match="no candidates"):
        RouterDataset.from_logs(logs({"q": "one", "c": "a", "performance": 0.0}), candidates=[])


@pytest.mark.parametrize(("revision", "expected"), [("v1", 0.0), ("v2", 1.0), ("", 0.5)])
def test_revision_of_a_candidate_selects_its_answers_and_empty_takes_all(logs, revision, expected):
    frame = logs(
        {"q": "one", "c": "a", "performance": 0.0, "candidate_revision": "v1"},
        {"q": "one", "c": "a", "performance": 1.0, "candidate_revision": "v2"},
    )
    wanted = [Candidate(id="a", model="m", revision=revision)]
    assert RouterDataset.from_logs(frame, candidates=wanted).performance.tolist() == [[expected]]


def test_revision_when_no_answer_has_it_is_refused(logs):
    frame = logs({"q": "one", "c": "a", "performance": 0.0, "candidate_revision": "v1"})
    with pytest.raises(UnknownCandidateError, match="v1"):
        RouterDataset.from_logs(frame, candidates=[Candidate(id="a", model="m", revision="v9")])


# Tasks, prices, propensities


def test_task_when_only_some_rows_of_a_query_name_it_is_known(logs):
    rows = [
        {"q": "one", "c": "a", "performance": 0.0, "task": None},
        {"q": "one", "c": "b", "performance": 0.0, "task": "sums"},
        {"q": "two", "c": "a", "performance": 0.0, "task": None},
    ]
    for order in (rows, rows[::-1]):
        dataset = RouterDataset.from_logs(logs(*order))
        assert dataset.tasks[row_of(dataset, "one")] == "sums"
        assert dataset.tasks[row_of(dataset, "two")] is None


def test_prices_when_given_replace_logged_costs(logs, named):
    frame = logs(
        {"q": "one", "c": "a", "performance": 0.5, "cost_usd": 9.0, "input_tokens": 100, "output_tokens": 50},
        {"q": "one", "c": "b", "performance": 0.5, "cost_usd": 9.0, "input_tokens": 100},
    )
    prices = PriceTable(
        prices={n: Price(input_usd_per_mtok=1, output_usd_per_mtok=2) for n in ("m-a", "m-b")}
    )
    # 100 * 1e-6 + 50 * 2e-6 = 0.0002; b's answer tokens were not logged, so its cost is unknown.
    priced = RouterDataset.from_logs(frame, prices=prices)
    np.testing.assert_allclose(priced.cost_usd, [[0.0002, NAN]], rtol=1e-6)
    np.testing.assert_array_equal(RouterDataset.from_logs(frame).cost_usd, [[9.0, 9.0]])


def test_propensity_is_kept_by_cell(logs):
    frame = logs(
        {"q": "one", "c": "a", "performance": 0.5, "propensity": 0.25},
        {"q": "one", "c": "b", "performance": 0},
    )
    np.testing.assert_array_equal(RouterDataset.from_logs(frame).propensity, [[0.25, NAN]])


def test_context_is_counted_beside_the_query_text(logs):
    frame = logs(*({"q": q, "c": "a", "performance": 1.0} for q in ("one", "two", "three")))
    said = [{"content": '123\u2028 "role"', "role": "system"}, {"content": "two", "role": "user"}]
    messages = pl.col("query_text").replace_strict(
        {"one": '[{"content": "one \\"role\\"", "role": "user"}]', "two": json.dumps(said), "three": None}
    )
    dataset = RouterDataset.from_logs(frame.with_columns(messages=messages))
    assert dict(zip(dataset.texts, dataset.context_characters, strict=True)) == {
        "one": 0,
        "two": 11,
        "three": 0,
    }


def test_messages_that_cannot_be_read_are_refused_by_name(logs):
    frame = logs({"q": "one", "c": "a", "performance": 1.0})
    for text in ('{"role": "user", "role": 1', '[{"role": 1}, {"role": 2}]'):
        broken = frame.with_columns(messages=pl.lit(text))
        with pytest.raises(LogSchemaError, match=r"messages of query '.*' are no JSON list"):
            RouterDataset.from_logs(broken)


def test_queries_of_a_session_are_one_group_unless_several_sessions_ask_them(logs):
    asked = [(f"s{n}", text) for n in range(12) for text in ("hello", f"{'abcdefghijkl'[n]} more")]
    rows = [{"q": q, "c": "a", "performance": 1.0, "session_id": session} for session, q in asked]
    dataset = RouterDataset.from_logs(logs(*rows, {"q": "alone", "c": "a", "performance": 1.0}))
    of_text = dict(zip(dataset.texts, dataset.groups, strict=True))
    sessions = dict(zip(dataset.texts, dataset.sessions, strict=True))
    assert (of_text["a more"], sessions["a more"]) == ("session: s0", "s0")
    assert (of_text["hello"], sessions["hello"], of_text["alone"]) == ("hello", None, "alone")
    assert dataset.select(np.arange(3)).sessions == dataset.sessions[:3]


# Selecting rows, and properties


@pytest.mark.parametrize("rows", [np.array([2, 0]), np.array([True, False, True]), np.array([], dtype=int)])
def test_select_keeps_rows_together(logs, rows):
    full = RouterDataset.from_logs(
        logs(
            *(
                {"q": q, "c": "a", "performance": p, "task": q}
                for q, p in (("x", 0.1), ("y", 0.2), ("z", 0.3))
            )
        )
    )
    part = full.select(rows)
    assert len(part) == len(np.arange(3)[rows])
    for i, j in enumerate(np.arange(3)[rows]):
        assert (part.query_ids[i], part.texts[i], part.tasks[i]) == (
            full.query_ids[j],
            full.texts[j],
            full.tasks[j],
        )
        assert part.performance[i] == full.performance[j]


def test_pivot_of_forty_candidates_and_strange_texts_keeps_them_apart(logs):
    texts = ["naïve 漢字 🙂", "NAÏVE 漢字 🙂", "x" * 50_000, "tab\tand\nline"]
    rows = [
        {"q": q, "c": f"c{i:02}", "performance": (i * 4 + n) / 160}
        for n, q in enumerate(texts)
        for i in range(40)
        if (i + n) % 3
    ]
    dataset = RouterDataset.from_logs(logs(*rows))
    assert dataset.performance.shape == (4, 40)
    assert np.isnan(dataset.performance).sum() == 160 - len(rows)
    for row in rows:
        assert cell(dataset.performance, dataset, row["q"], row["c"]) == pytest.approx(row["performance"])


@settings(max_examples=25)
@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["q1", "q2", "q3"]), st.sampled_from("abc")), st.integers(0, 4), min_size=1
    ),
    st.randoms(use_true_random=False),
)
def test_pivot_when_rows_and_candidates_are_permuted_permutes_columns(logs, named, cells, random):
    rows = [{"q": q, "c": c, "performance": value / 4} for (q, c), value in cells.items()]
    ids = sorted({c for _, c in cells})
    first = RouterDataset.from_logs(logs(*rows), candidates=named(ids))
    order = random.sample(range(len(ids)), len(ids))
    shuffled: pl.DataFrame = logs(*random.sample(rows, len(rows)))
    second = RouterDataset.from_logs(shuffled, candidates=named([ids[i] for i in order]))
    assert second.query_ids == first.query_ids
    np.testing.assert_array_equal(second.performance, first.performance[:, order])


def test_propensity_when_a_collected_candidate_lacks_answers_then_its_certainty_is_unknown(logs):
    # `a` answered both queries, `b` one: its collection asked half, so 1 would overstate how sure we are.
    dataset = RouterDataset.from_logs(
        logs(
            {"q": "one", "c": "a", "performance": 1.0, "propensity": 1.0},
            {"q": "two", "c": "a", "performance": 0.0, "propensity": 1.0},
            {"q": "one", "c": "b", "performance": 1.0, "propensity": 1.0},
        )
    )
    assert dataset.propensity[:, 0].tolist() == [1.0, 1.0]
    assert np.isnan(dataset.propensity[:, 1]).all()


def test_propensity_when_a_policy_was_certain_stays_certain(logs):
    certain = {"performance": 1.0, "propensity": 1.0, "assignment": "policy"}
    frame = logs({"q": "one", "c": "a", **certain}, {"q": "two", "c": "b", **certain})
    dataset = RouterDataset.from_logs(frame)
    by_text = dict(zip(dataset.texts, dataset.propensity.tolist(), strict=True))
    np.testing.assert_array_equal(by_text["one"], [1.0, NAN])
    np.testing.assert_array_equal(by_text["two"], [NAN, 1.0])


def test_candidate_without_answers_when_kept_is_an_empty_column(logs, named):
    frame = logs({"q": "one", "c": "b", "performance": 1.0})
    dataset = RouterDataset.from_logs(frame, candidates=named("ab"), absent="keep")
    np.testing.assert_array_equal(dataset.performance, [[NAN, 1.0]])
    with pytest.raises(UnknownCandidateError, match=r"no scored answer of \['a'\]"):
        RouterDataset.from_logs(frame, candidates=named("ab"))
    with pytest.raises(UnknownCandidateError, match=r"\['c', 'd'\]"):
        RouterDataset.from_logs(frame, candidates=named("cd"), absent="keep")


def test_propensity_of_a_query_that_came_several_times_is_that_of_any_answer(logs):
    chosen = {"q": "one", "performance": 1.0, "assignment": "policy"}
    dataset = RouterDataset.from_logs(
        logs(
            *({**chosen, "c": "a", "propensity": 0.9} for _ in range(2)),
            {**chosen, "c": "b", "propensity": 0.1},
            {**chosen, "q": "two", "c": "b", "propensity": 0.1},
            # Cells drawn one by one, not one a query: each had its own chance only.
            *({"q": "three", "c": name, "performance": 1.0, "propensity": 0.3} for name in "ab"),
        )
    )
    by_text = dict(zip(dataset.texts, dataset.propensity.tolist(), strict=True))
    assert by_text["one"] == pytest.approx([1 - 0.1**3, 1 - 0.9**3])
    assert by_text["two"] == pytest.approx([np.nan, 0.1], nan_ok=True)
    assert by_text["three"] == pytest.approx([0.3, 0.3])


def test_estimates_of_repeated_queries_have_no_bias(logs):
    rng = np.random.default_rng(0)
    chance = {"a": 0.6, "b": 0.7}
    rows = []
    for number in range(400):
        for _ in range(5):
            name = "b" if rng.random() < 0.15 else "a"
            rows.append(
                {
                    "q": f"query {number}",
                    "c": name,
                    "performance": float(rng.random() < chance[name]),
                    "assignment": "policy",
                    "propensity": 0.15 if name == "b" else 0.85,
                }
            )
    dataset = RouterDataset.from_logs(logs(*rows))
    predicted = np.full(dataset.performance.shape, 0.3, dtype=np.float32)
    means = doubly_robust(dataset.performance, predicted, dataset.propensity).mean(axis=0)
    assert means.tolist() == pytest.approx([0.6, 0.7], abs=0.06)  # standard errors .01 and .025
