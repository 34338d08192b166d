import dataclasses
import io
import re

import pytest
from rich.console import Console

from fusion_integrations.evaluation import evaluate_routers, render_levels, render_table
from fusion_integrations.evaluation.report import verdict_lines
from fusion_integrations.query_level.policy import BALANCE, PERFORMANCE_FIRST


@pytest.fixture
def report(make_logs, make_router, train_rows, test_rows):
    return evaluate_routers(
        {"[bold]ours": make_router()},
        logs=make_logs(test_rows),
        train_logs=make_logs(train_rows),
        policies={"performance-first": PERFORMANCE_FIRST, "balance": BALANCE},
    )


def as_text(table):
    console = Console(width=220, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def line_of(text, name):
    lines = ([cell.strip() for cell in re.split(r" {2,}", line.strip())] for line in text.splitlines())
    return next(cells for cells in lines if name in cells)


def test_tables_are_one_a_policy_then_one_a_policy_by_task(report):
    titles = [str(table.title) for table in render_table(report)]
    assert titles == [
        "performance-first: reward = performance",
        "balance: reward = 0.5 x performance - 0.5 x cost / 1 USD",
        "performance-first: performance by task",
        "balance: performance by task",
    ]


def test_policy_table_shows_the_numbers_worked_by_hand(report):
    text = as_text(render_table(report)[0])
    assert line_of(text, "Best Single") == ["Best Single", "0.500", "1,000.00", "0.500"]
    ours = line_of(text, "[bold]ours")  # a name is text, never markup
    assert ours[:4] == ["[bold]ours", "0.750", "812.50", "0.750"]
    assert ours[4].startswith("+0.250 [")
    assert ours[6] == "25.0%"
    assert {"USD per", "1000", "queries"} <= {
        cell for line in text.splitlines() for cell in re.split(r" {2,}", line.strip())
    }


def test_policy_table_when_cost_is_unknown_says_so(report):
    rows = tuple(dataclasses.replace(row, cost_usd=None) for row in report.rows)
    assert line_of(as_text(render_table(dataclasses.replace(report, rows=rows))[0]), "Oracle")[2] == "unknown"


def test_task_table_shows_every_strategy_by_task(report):
    text = as_text(render_table(report)[2])
    assert line_of(text, "math")[:6] == [
        "math",
        "2",
        "0.750",  # Random: (0.5 + 1) / 2
        "1.000",  # Best Single: large
        "1.000",  # Best per Task
        "1.000",  # Oracle
    ]


def test_task_table_when_no_task_is_known_is_left_out(report):
    assert len(render_table(dataclasses.replace(report, tasks={}))) == 2


def test_warnings_stand_below_the_last_table(report):
    tables = render_table(dataclasses.replace(report, n_left_out=7))
    assert "Warning: Left out because not every candidate has a scored answer: 7 of 11 queries." in str(
        tables[-1].caption
    )


def test_verdict_lines_never_say_more_than_the_interval(report):
    assert verdict_lines(report, policy="balance")[0].startswith(
        "[bold]ours: too few independent queries to compare with Best Single in reward, "
    )
    many = dataclasses.replace(report, n_groups=100)
    (line,) = verdict_lines(many, policy="performance-first")
    assert line.startswith("[bold]ours: not distinguishable from Best Single in reward, +0.250 [+0.000, ")
    assert line.endswith("(95% interval, 4 queries).")


# The fusion levels


def test_level_tables_show_levels_effects_and_tasks(make_level_report):
    levels, effects, tasks = render_levels(make_level_report(thought=(0.1, 0.05, 0.15)))
    assert [str(table.title) for table in (levels, effects, tasks)] == [
        "Fusion levels on 100 held-out queries",
        "What each level changes",
        "Performance by task (number of queries)",
    ]
    text = as_text(levels)
    assert line_of(text, "zero-shot") == ["zero-shot", "small", "0.500", "0.500", "unknown"]
    # The mean of the tasks' means: (0.6 + 0.5) / 2.
    assert line_of(text, "thought level") == [
        "thought level",
        "small:thought",
        "0.600",
        "0.550",
        "unknown",
        "+0.100 [+0.050, +0.150]",
    ]
    assert "[bold]router" in text  # a name is text, never markup
    assert line_of(as_text(effects), "small:thought")[-2:] == ["+0.100 [+0.050, +0.150]", "-250.00"]
    assert line_of(as_text(tasks), "thought level") == ["thought level", "small:thought", "0.600", "0.500"]


def test_level_table_says_what_gains_are_over_and_what_was_chosen_on_what(make_level_report):
    caption = str(render_levels(make_level_report())[0].caption)
    assert "over 'small', the best zero-shot candidate on 40 training queries, with 90% intervals" in caption
    assert "chosen on the 20 training queries that every candidate answered" in caption
    assert "No level is shown to be better" in caption


def test_level_table_when_tasks_weigh_alike_leaves_their_mean_out(make_level_report):
    report = make_level_report()
    rows = tuple(dataclasses.replace(row, per_task={"math": row.performance}) for row in report.rows)
    text = as_text(render_levels(dataclasses.replace(report, rows=rows, tasks={"math": 100}))[0])
    assert "mean of" not in text


def test_level_tables_when_no_task_is_known_are_two(make_level_report):
    report = make_level_report()
    rows = tuple(dataclasses.replace(row, per_task={}) for row in report.rows)
    tables = render_levels(dataclasses.replace(report, rows=rows, tasks={}, n_leaked=3))
    assert len(tables) == 2
    assert "Warning: Left out because training saw them" in str(tables[-1].caption)


def test_level_table_when_cost_counts_shows_rewards(make_level_report):
    report = dataclasses.replace(make_level_report(), cost_scale_usd=1.0)
    assert "reward gain" in as_text(render_levels(report)[0])
    assert "reward" not in as_text(render_levels(make_level_report())[0])


def test_effect_when_its_cost_is_unknown_says_so(make_level_report):
    report = make_level_report()
    effects = tuple(dataclasses.replace(effect, cost_change_usd=None) for effect in report.effects)
    text = as_text(render_levels(dataclasses.replace(report, effects=effects))[1])
    assert line_of(text, "small:thought")[-1] == "unknown"
