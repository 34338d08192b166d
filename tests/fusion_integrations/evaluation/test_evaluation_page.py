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
    assert page.count('class="log"') == 2
    for row in report.rows:
        assert row.strategy == "Best Single" or str(row.reward_gain) in page
    assert "0.5 x performance - 0.5 x cost / 1 USD" in page


def test_page_of_an_evaluation_shows_gain_cost_and_tasks(make_logs, make_router, train_rows, test_rows):
    report = evaluated(make_logs, make_router, train_rows, test_rows)
    gain, cost, tasks = figures(render_evaluation_page(report))
    assert [trace["name"] for trace in gain["data"]] == ["Best per Task", "&lt;i&gt;mine"]
    assert [trace["name"] for trace in cost["data"]] == ["Routers", "Baselines"]
    (mine,) = [row for row in report.rows if row.is_router]
    assert cost["data"][0]["x"] == [1000 * mine.cost_usd]
    assert tasks["data"][-1]["x"] == [mine.per_task["math"], mine.per_task["prose"]]


def test_page_of_an_evaluation_warns_and_holds_names_as_texts(make_logs, make_router, train_rows, test_rows):
    page = render_evaluation_page(evaluated(make_logs, make_router, train_rows, test_rows))
    assert "Warning: Only 4 groups" in page
    assert "too few queries" in page
    assert "<i>" not in page.split("<script>")[0]
    assert "the sum of all coins" not in page
