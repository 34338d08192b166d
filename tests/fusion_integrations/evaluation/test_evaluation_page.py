import json
import re

from fusion_integrations.evaluation import evaluate_routers, render_evaluation_page
from fusion_integrations.query_level.policy import BALANCE, PERFORMANCE_FIRST


def evaluated(make_logs, make_router, train_rows, test_rows, **policies):
    return evaluate_routers(
        {"<i>mine": make_router()},
        logs=make_logs(test_rows),
        train_logs=make_logs(train_rows),
        policies=policies or {"performance-first": PERFORMANCE_FIRST},
    )


def figures(page):
    blocks = re.findall(r'<script type="application/json">(.*?)</script>', page)
    return [json.loads(block) for block in blocks]


def test_page_of_an_evaluation_shows_each_policy_with_its_rewards(
    make_logs, make_router, train_rows, test_rows
):
    report = evaluated(
        make_logs, make_router, train_rows, test_rows, quality=PERFORMANCE_FIRST, thrift=BALANCE
    )
    page = render_evaluation_page(report)
    assert page.count('class="log"') == 3  # the last is of what no policy changes
    for row in report.rows:
        assert row.strategy == "Best Single" or str(row.reward_gain) in page
    assert "0.5 x performance - 0.5 x cost / 1 USD" in page


def test_page_of_an_evaluation_shows_gain_cost_and_tasks(make_logs, make_router, train_rows, test_rows):
    report = evaluated(make_logs, make_router, train_rows, test_rows)
    gain, cost, tasks, calibration = figures(render_evaluation_page(report))
    assert [trace["name"] for trace in gain["data"]] == ["Best per Task", "&lt;i&gt;mine"]
    mine_at_every_cost_weight = ["&lt;i&gt;mine"] * 2  # as points, and the hull over them
    names = [trace["name"] for trace in cost["data"]]
    assert names == ["LLMs", "Baselines", "Routers", *mine_at_every_cost_weight]
    assert sorted(cost["data"][0]["x"]) == [250.0, 1000.0]  # USD per 1000 calls of small and large
    (mine,) = [row for row in report.rows if row.is_router]
    assert cost["data"][2]["x"] == [1000 * mine.cost_usd]
    assert "&lt;i&gt;mine" in [trace.get("name") for trace in calibration["data"]]
    assert tasks["data"][-1]["x"] == [mine.per_task["math"], mine.per_task["prose"]]


def test_page_of_an_evaluation_warns_and_holds_names_as_texts(make_logs, make_router, train_rows, test_rows):
    page = render_evaluation_page(evaluated(make_logs, make_router, train_rows, test_rows))
    assert "Warning: Only 4 groups" in page
    assert "too few queries" in page
    assert "<i>" not in page.split("<script>")[0]


def test_page_of_an_evaluation_shows_single_queries_and_its_json_does_not(
    make_logs, make_router, train_rows, test_rows
):
    report = evaluated(make_logs, make_router, train_rows, test_rows)
    assert len(report.queries) == report.n_queries
    page, texts = render_evaluation_page(report), {query.text for query in report.queries}
    assert all(text in page for text in texts)
    assert {name for query in report.queries for name in query.chosen} == {"<i>mine"}
    document = json.dumps(report.to_json())
    assert not any(text in document for text in texts)
    assert len(report.to_json(with_queries=True)["queries"]) == report.n_queries
