import itertools

import pytest

from fusion_integrations.evaluation.page_figures import (
    calibration_figure,
    cost_figure,
    gain_figure,
    task_figure,
)
from fusion_integrations.evaluation.page_labels import place_labels
from fusion_integrations.evaluation.reliability import ReliabilityBin
from fusion_integrations.statistics import Interval


def per_task(n_tasks, reached=0.5):
    return {f"t{i}": reached for i in range(n_tasks)}


@pytest.mark.parametrize(
    ("n_tasks", "kind"),
    [(1, "scatter"), (2, "scatter"), (3, "scatterpolar"), (16, "scatterpolar"), (17, "scatter")],
)
def test_task_figure_is_a_radar_only_of_as_many_tasks_as_it_can_show(n_tasks, kind):
    values = per_task(n_tasks)
    figure = task_figure({"Best Single": values, "stack": values}, tasks=list(values), heads=["stack"])
    assert {trace["type"] for trace in figure["data"]} == {kind}


def test_task_figure_of_a_radar_closes_its_lines():
    values = {"a": 0.1, "b": 0.2, "c": 0.3}
    (trace,) = task_figure({"stack": values}, tasks=["a", "b", "c"], heads=["stack"])["data"]
    assert trace["r"] == [0.1, 0.2, 0.3, 0.1]
    assert trace["theta"] == ["a", "b", "c", "a"]


def test_task_figure_of_estimates_beyond_one_shows_them():
    values = per_task(3) | {"t0": 1.5, "t1": -0.25}
    figure = task_figure({"stack": values}, tasks=list(values), heads=["stack"])
    assert figure["layout"]["polar"]["radialaxis"]["range"] == [-0.25, 1.5]


def test_task_figure_takes_names_that_look_like_dates_and_numbers_as_names():
    values = {"2024-01-01": 0.5, "7": 0.5}
    figure = task_figure({"stack": values}, tasks=list(values), heads=["stack"])
    assert figure["layout"]["yaxis"]["type"] == "category"


def test_gain_figure_has_zero_in_the_middle_and_never_magnifies_nothing():
    figure = gain_figure({"stack": Interval(mean=0.0, low=0.0, high=0.0)}, title="Gain", heads=["stack"])
    low, high = figure["layout"]["xaxis"]["range"]
    assert low == -high
    assert high >= 0.02


def test_gain_figure_shows_the_interval():
    gain = Interval(mean=0.25, low=0.125, high=0.5)
    (trace,) = gain_figure({"stack": gain}, title="Gain", heads=["stack"])["data"]
    assert (trace["x"], trace["error_x"]["array"], trace["error_x"]["arrayminus"]) == (
        [0.25],
        [0.25],
        [0.125],
    )


def test_cost_figure_shows_points_and_hull_in_usd_per_1000_calls():
    points = {"small": (0.001, 0.5), "large": (0.01, 0.75)}
    # The second point lies below the line from the first to the last, so the hull leaves it out.
    curve = [(0.001, 0.5), (0.004, 0.5), (0.01, 1.0)]
    figure = cost_figure({"LLMs": points}, curves={"stack": curve}, heads=["stack"])
    llms, hull, choices = figure["data"]
    assert llms["x"] == [1.0, 10.0]
    assert llms["y"] == [0.5, 0.75]
    assert (hull["x"], hull["y"]) == ([1.0, 10.0], [0.5, 1.0])
    assert choices["x"] == [1.0, 4.0, 10.0]
    assert figure["layout"]["xaxis"]["type"] == "linear"


def test_cost_figure_of_costs_far_apart_is_logarithmic_and_its_hull_stays_straight_in_cost():
    figure = cost_figure(
        {"LLMs": {"small": (0.001, 0.0), "large": (0.1, 0.99)}},
        curves={"stack": [(0.001, 0.0), (0.1, 0.99)]},
        heads=["stack"],
    )
    hull = figure["data"][1]
    assert figure["layout"]["xaxis"]["type"] == "log"
    assert len(hull["x"]) > 10
    # From (1, 0) to (100, 0.99) in USD per 1000 calls: performance is (cost - 1) / 100.
    assert hull["y"] == pytest.approx([(cost - 1) / 100 for cost in hull["x"]])


def test_cost_figure_with_a_free_llm_stays_linear():
    figure = cost_figure({"LLMs": {"free": (0.0, 0.5), "large": (1.0, 0.5)}}, curves={}, heads=[])
    assert figure["layout"]["xaxis"]["type"] == "linear"


def test_calibration_figure_shows_bins_with_their_intervals_beside_the_diagonal():
    bins = [ReliabilityBin(n=5, predicted=0.25, observed=Interval(mean=0.5, low=0.25, high=0.625))]
    diagonal, trace = calibration_figure({"stack": bins}, heads=["stack"])["data"]
    assert diagonal["x"] == diagonal["y"] == [0, 1]
    assert (trace["x"], trace["y"]) == ([0.25], [0.5])
    assert (trace["error_y"]["array"], trace["error_y"]["arrayminus"]) == ([0.125], [0.25])


def test_figures_escape_names_because_plotly_reads_html():
    name = '<b>x</b> & "y"'
    gain = gain_figure({name: Interval(mean=0, low=0, high=0)}, title="", heads=[])
    tasks = task_figure({name: {name: 0.5}}, tasks=[name], heads=[])
    costs = cost_figure({"LLMs": {name: (1.0, 0.5)}}, curves={}, heads=[])
    assert gain["data"][0]["name"] == '&lt;b&gt;x&lt;/b&gt; &amp; "y"'
    for figure in (gain, tasks, costs):
        assert name not in str(figure["data"][0]["name"])
        assert name not in str(figure["data"][0].get("y"))
        assert name not in str(figure["data"][0].get("text"))


def test_heads_of_a_figure_differ_in_colour_or_symbol():
    heads = [f"h{i}" for i in range(9)]
    figure = task_figure({head: per_task(3) for head in heads}, tasks=["t0", "t1", "t2"], heads=heads)
    looks = [(trace["marker"]["color"], trace["marker"]["symbol"]) for trace in figure["data"]]
    assert len(set(looks)) == 9


def test_place_labels_of_points_far_apart_puts_each_above_its_point():
    assert (
        place_labels([("a", (0.0, 0.0)), ("b", (1.0, 1.0))], obstacles=[], is_log=False) == ["top center"] * 2
    )


def test_place_labels_of_one_place_puts_them_around_it_and_leaves_out_what_has_no_room():
    labelled = [(name, (1.0, 1.0)) for name in "abcdef"]
    found = place_labels(labelled, obstacles=[(0.0, 0.0), (2.0, 2.0)], is_log=False)
    assert found == ["top center", "bottom center", "middle right", "middle left", None, None]


def test_place_labels_keeps_off_other_points():
    # 0.05 of the height is 16 pixels above the point: where its label would be.
    found = place_labels([("abc", (1.0, 0.5))], obstacles=[(0.0, 0.0), (2.0, 1.0), (1.0, 0.55)], is_log=False)
    assert found == ["bottom center"]


def test_place_labels_never_changes_with_names_that_repeat():
    labelled = list(itertools.repeat(("same", (1.0, 1.0)), 2))
    assert place_labels(labelled, obstacles=[], is_log=True) == ["top center", "bottom center"]
