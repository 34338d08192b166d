import dataclasses
import json

import pytest

from fusion_integrations.query_level.policy import BALANCE

BETTER, WORSE = (0.1, 0.05, 0.15), (-0.1, -0.15, -0.05)


def test_verdicts_are_one_a_fusion_level_and_a_conclusion(make_level_report):
    verdicts = make_level_report(query=BETTER, model=WORSE).verdicts
    reference = "the best zero-shot candidate 'small' in performance"
    assert verdicts[:4] == (
        f"query level ([bold]router): better than {reference}, +0.100 [+0.050, +0.150].",
        f"thought level (small:thought): not distinguishable from {reference}, +0.000 [-0.100, +0.100].",
        f"model level (student): worse than {reference}, -0.100 [-0.150, -0.050].",
        f"all levels (router of 4): not distinguishable from {reference}, +0.000 [-0.100, +0.100].",
    )
    assert len(verdicts) == 5


def test_conclusion_when_a_level_helps_names_it_and_warns_of_the_choice(make_level_report):
    assert make_level_report(thought=BETTER).verdicts[-1] == (
        "Highest of 4: thought level (small:thought), +0.100 [+0.050, +0.150]; its 90% interval excludes 0. "
        "Better than the best zero-shot candidate 'small': thought level (small:thought). "
        "The highest was picked on these same queries: expect somewhat less of it."
    )


def test_conclusion_when_nothing_helps_says_so(make_level_report):
    assert make_level_report().verdicts[-1] == (
        "Highest of 4: query level ([bold]router), +0.000 [-0.100, +0.100]; its 90% interval includes 0. "
        "No level is shown to be better than the best zero-shot candidate 'small'."
    )


def test_conclusion_when_every_level_harms_does_not_praise_the_least_bad(make_level_report):
    report = make_level_report(query=WORSE, thought=WORSE, model=WORSE, all=(-0.05, -0.08, -0.02))
    assert report.verdicts[-1] == (
        "Highest of 4: all levels (router of 4), -0.050 [-0.080, -0.020]; its 90% interval excludes 0. "
        "No level is shown to be better than the best zero-shot candidate 'small'."
    )


def test_conclusion_when_only_a_lower_level_is_sure_to_help_names_that(make_level_report):
    conclusion = make_level_report(query=(0.2, -0.1, 0.5), model=BETTER).verdicts[-1]
    assert "query level ([bold]router), +0.200 [-0.100, +0.500]; its 90% interval includes 0." in conclusion
    assert "Better than the best zero-shot candidate 'small': model level (student)." in conclusion


def test_verdicts_when_queries_are_few_conclude_nothing(make_level_report):
    verdicts = dataclasses.replace(make_level_report(query=BETTER), n_groups=29).verdicts
    assert verdicts[0].startswith(
        "query level ([bold]router): on too few independent queries to compare with"
    )
    assert verdicts[-1].endswith("too few independent queries to conclude from.")


def test_verdicts_when_cost_counts_are_about_reward(make_level_report):
    report = make_level_report()
    costly = dataclasses.replace(report, policy=BALANCE, cost_scale_usd=1.0)
    assert all("in reward" in line for line in costly.verdicts[:4])


def test_warnings_when_a_level_or_a_counterpart_is_absent_name_it(make_level_report):
    report = make_level_report()
    rows = tuple(row for row in report.rows if row.level != "model level")
    partial = dataclasses.replace(report, rows=rows, without_counterpart=("b (thought level)",))
    assert partial.warnings == (
        "No candidate is of the model level, so it is not compared.",
        "Without a counterpart that differs in the level alone, so without an effect: b (thought level).",
    )
    assert report.warnings == ()


def test_task_mean_counts_each_task_alike(make_level_report):
    row = make_level_report(thought=BETTER).rows[2]
    assert row.task_mean == pytest.approx(0.55)  # (0.6 + 0.5) / 2
    assert dataclasses.replace(row, per_task={}).task_mean is None


def test_json_when_read_back_is_the_report(make_level_report):
    data = json.loads(json.dumps(make_level_report(query=BETTER).to_json(), allow_nan=False))
    assert data["rows"][1]["level"] == "query level"
    assert data["rows"][1]["verdict"] == "better"
    assert data["rows"][1]["performance_gain"] == {"mean": 0.1, "low": 0.05, "high": 0.15}
    assert data["effects"][0]["verdict"] == "not distinguishable"
    assert data["policy"]["cost_weight"] == 0.0
    assert (data["reference"], data["students"]) == ("small", {"student": "small"})
    assert len(data["verdicts"]) == 5
    assert data["warnings"] == []
