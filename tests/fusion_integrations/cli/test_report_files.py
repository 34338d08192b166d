import itertools
import json
import sys

import polars as pl
import pytest

# Words, not numbers: queries that differ in numbers only are near-duplicates.
WORDS = [
    "".join(parts) for parts in itertools.product(("ba", "ke", "li", "mo", "nu", "ra", "so", "ti"), repeat=2)
]
QUERIES = [(f"what is the sum of a {word} and a pear", "math") for word in WORDS[:40]]
QUERIES += [(f"tell a tale of the harbour of {word}", "prose") for word in WORDS[:40]]


def write_table(path, *, costs=(0.001, 0.01)):
    """Eighty queries: small is good at prose, large at sums."""
    rows = [
        {
            "query_id": f"q{number}",
            "query": text,
            "task": task,
            "llm": llm,
            "performance": float((llm == "large") == (task == "math") or number % 5 == 0),
            "cost": cost,
        }
        for number, (text, task) in enumerate(QUERIES)
        for llm, cost in zip(("small", "large"), costs, strict=True)
    ]
    pl.DataFrame(rows).write_parquet(path)


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "demo.parquet"
    write_table(path)
    return path


@pytest.fixture
def run_benchmark(fusion, data):
    def run(*options):
        fixed = ("--head", "cluster", "--folds", "2", "--embedder", "hash", "--threads", "1")
        return fusion("benchmark", "router", "--data", data, *fixed, *options)

    return run


def test_benchmark_writes_results_page_and_exports_and_prints_its_table(run_benchmark, tmp_path):
    out, html = tmp_path / "results.json", tmp_path / "page.html"
    arena, bench = tmp_path / "arena", tmp_path / "bench"
    given = ("--out", out, "--html", html, "--export-routerarena", arena, "--export-llmrouterbench", bench)
    result = run_benchmark(*given)
    assert result.exit_code == 0, result.output
    assert "cluster" in result.stdout
    (report,) = json.loads(out.read_text())["reports"]
    assert report["name"] == "demo"
    assert report["queries"] == []  # texts stay out of the results
    page = html.read_text()
    assert page.startswith("<!doctype html>")
    assert "tell a tale of the harbour of bake" in page
    predictions = json.loads((arena / "predictions" / "demo-cluster.json").read_text())
    assert {entry["global index"] for entry in predictions} == {f"q{number}" for number in range(80)}
    assert {path.parts[-4] for path in bench.glob("demo/*/test/*/*.json")} == {"math", "prose"}


def test_benchmark_of_llms_that_are_all_free_has_no_costs_to_weigh(run_benchmark, data, tmp_path):
    write_table(data, costs=(0.0, 0.0))
    result = run_benchmark("--html", tmp_path / "page.html", "--out", tmp_path / "results.json")
    assert result.exit_code == 0, result.output
    (report,) = json.loads((tmp_path / "results.json").read_text())["reports"]
    assert list(report["policies"]) == ["performance-first"]
    assert report["rows"][-1]["head"]["cost_quality"] is None


@pytest.mark.parametrize("option", ["--html", "--out"])
def test_benchmark_with_a_file_that_cannot_be_ends_before_any_training(run_benchmark, tmp_path, option):
    result = run_benchmark(option, tmp_path / "missing" / "file")
    assert result.exit_code == 1
    assert "its folder does not exist" in result.stderr
    assert "training" not in result.stderr


def test_benchmark_of_a_page_without_plotly_names_the_extra_before_any_training(
    run_benchmark, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    result = run_benchmark("--html", tmp_path / "page.html")
    assert result.exit_code == 1
    assert "pip install 'fusion-integrations[report]'" in result.stderr
    assert not (tmp_path / "page.html").exists()


def test_evaluation_writes_its_page_and_exports(fusion, router_path, split_paths, tmp_path):
    train, test = split_paths
    page, arena, bench = tmp_path / "page.html", tmp_path / "arena", tmp_path / "bench"
    given = ("--html", page, "--export-routerarena", arena, "--export-llmrouterbench", bench)
    result = fusion(
        "evaluate", "router", router_path, "--logs", test, "--train-logs", train, *given, "--json"
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["name"], report["queries"]) == (test.stem, [])  # texts stay out of the results
    assert "Router evaluation" in page.read_text()
    router = router_path.name
    assert page.read_text().count(router) > 10
    predictions = json.loads((arena / "predictions" / f"{test.stem}-{router}.json").read_text())
    assert len(predictions) == report["n_queries"]
    (mine,) = [row for row in report["rows"] if row["strategy"] == router][:1]
    chosen = [entry["prediction"] for entry in predictions]
    assert {name: chosen.count(name) / len(chosen) for name in set(chosen)} == pytest.approx(
        {name: share for name, share in mine["candidate_shares"].items() if share}
    )
    routed = list(bench.glob(f"*/*/test/fusion-{router}/*.json"))
    assert sum(json.loads(path.read_text())["counts"] for path in routed) == report["n_queries"]
