"""`fusion collect`: ask every candidate every query, and store the answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusion_integrations.cli.progress import ShowProgress, progress_bars
from fusion_integrations.cli.terminal import DebugOption, JsonOption, terminal
from fusion_integrations.errors import CandidateCallError

if TYPE_CHECKING:
    from fusion_integrations.cli.terminal import Terminal
    from fusion_integrations.collection.candidates_file import CandidateSet
    from fusion_integrations.collection.collector import CollectionReport, LogCollector
    from fusion_integrations.collection.estimate import CandidateEstimate
    from fusion_integrations.logs.store import LogStore

__all__ = ["collect"]


def collect(
    *,
    queries: Annotated[
        str,
        typer.Option(help="File of queries (.jsonl, .yaml, .csv, .tsv), or the word demo or demo-levels."),
    ],
    candidates: Annotated[
        str, typer.Option(help="Candidates file (.yaml), or the word demo or demo-levels.")
    ],
    store: Annotated[str, typer.Option(help="Log store to fill: SQLite file or database URL.")],
    collection: Annotated[
        str | None,
        typer.Option(help="Name of the collection.", show_default="name of the queries file, or fusion-demo"),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Most queries to hand to a model at once.")] = 32,
    budget_usd: Annotated[
        float | None,
        typer.Option(min=0, help="Most that the collection may be billed, earlier runs included."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Estimate the cost, and ask nobody.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Ask the first N queries only.")
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Ask every candidate every query.

    Answers and their scores go to a log store. A run may be ended at any moment, even killed: the same
    command goes on where it ended.

    Before a call is made, it has to fit into the budget with the longest answer it may get. What counts is
    what providers bill, not the nominal prices of models on your own machine.

    The word demo stands for all queries of the demo and its LLMs as they come; demo-levels for its LLM with
    thought templates and its student, and for the queries that these were not made from.
    """
    to_go_on = "Interrupted. All finished batches are stored; run the same command again to go on."
    with terminal(as_json=as_json, debug=debug, if_interrupted=to_go_on) as place:
        from fusion_integrations.cli.inputs import read_candidates, read_queries
        from fusion_integrations.logs.location import store_label
        from fusion_integrations.logs.store import LogStore

        asked = read_queries(queries)[:limit]
        candidate_set = read_candidates(candidates)
        name = collection or _default_collection(queries)
        # A dry run leaves no store behind where there was none.
        location = ":memory:" if dry_run and _is_missing(store) else store
        with LogStore.open(location) as log_store:
            with progress_bars(place.progress) as show:
                collector = _collector(
                    candidate_set,
                    log_store,
                    collection=name,
                    budget_usd=budget_usd,
                    batch_size=batch_size,
                    show=show,
                )
                if dry_run:
                    _show_estimates(place, collector.estimate(asked), name=name, budget_usd=budget_usd)
                    return
                started = datetime.now(UTC)
                report = collector.collect(asked)
            failures = _last_failures(log_store, name, since=started) if report.n_failed else {}
            label = store_label(store)
        if report.n_failed and not report.n_done:
            raise CandidateCallError(f"All {report.n_failed} calls failed. {_describe(failures)}")
        document = {"store": label, "collection": name, **asdict(report), "last_failures": failures}
        place.show(document, *_lines(report, store=label, name=name, failures=failures))


def _collector(
    candidate_set: CandidateSet,
    store: LogStore,
    *,
    collection: str,
    budget_usd: float | None,
    batch_size: int,
    show: ShowProgress,
) -> LogCollector:
    from fusion_integrations.collection.collector import LogCollector

    return LogCollector(
        candidate_set.clients,
        candidates=candidate_set.candidates,
        store=store,
        collection=collection,
        prices=candidate_set.prices,
        options=candidate_set.options,
        samples=candidate_set.samples,
        limits=candidate_set.limits,
        thoughts=candidate_set.thoughts,
        budget_usd=budget_usd,
        batch_size=batch_size,
        on_progress=lambda news: show(news.candidate_id, news.n_done, news.n_total, _usd(news.cost_usd)),
    )


def _is_missing(store: str) -> bool:
    return "://" not in store and not Path(store).exists()


def _show_estimates(
    place: Terminal, estimates: Sequence[CandidateEstimate], *, name: str, budget_usd: float | None
) -> None:
    billed = [each for each in estimates if each.is_billed]
    costs, bounds = [each.cost_usd for each in billed], [each.most_cost_usd for each in billed]
    total = None if None in costs else sum(cost for cost in costs if cost is not None)
    most = None if None in bounds else sum(bound for bound in bounds if bound is not None)
    document = {
        "collection": name,
        "budget_usd": budget_usd,
        "billed_usd": total,
        "most_billed_usd": most,
        "candidates": [asdict(each) for each in estimates],
    }
    lines = [
        f"Collection '{name}', a dry run: nobody was asked.",
        *(
            f"{each.candidate_id}: {each.n_calls} calls, {each.n_known} answers there already; about "
            f"{_usd(each.cost_usd)}, at most {_usd(each.most_cost_usd)}"
            f"{'' if each.is_billed else ' (nobody bills it)'}"
            for each in estimates
        ),
        f"Billed: about {_usd(total)}, at most {_usd(most)} without retries.",
    ]
    place.show(document, "\n".join(lines))


def _usd(amount: float | None) -> str:
    return "unknown cost" if amount is None else f"{amount:.6f} USD"


def _default_collection(queries: str) -> str:
    from fusion_integrations.cli.inputs import DEMO, DEMO_LEVELS
    from fusion_integrations.demo.demo_log import DEMO_COLLECTION

    return DEMO_COLLECTION if queries in (DEMO, DEMO_LEVELS) else Path(queries).stem


def _last_failures(store: LogStore, collection: str, *, since: datetime) -> dict[str, str]:
    """Return the latest error of each candidate in a run of a collection."""
    import polars as pl

    failed = store.to_frame().filter(
        pl.col("error").is_not_null() & (pl.col("source") == collection) & (pl.col("created_at") >= since)
    )
    return dict(failed.select("candidate_id", "error").iter_rows())


def _describe(failures: dict[str, str]) -> str:
    return " ".join(f"'{candidate_id}' failed last with {error}." for candidate_id, error in failures.items())


def _lines(report: CollectionReport, *, store: str, name: str, failures: dict[str, str]) -> Iterator[str]:
    cost = "unknown" if report.cost_usd is None else f"{report.cost_usd:.6f} USD"
    billed = "unknown" if report.billed_usd is None else f"{report.billed_usd:.6f} USD"
    yield (
        f"Collection '{name}': {report.n_done} answers stored in '{store}', "
        f"{report.n_skipped} were there already. Cost: {cost}; billed: {billed}."
    )
    if report.n_left:
        yield (
            f"Stopped before the budget was exceeded: {report.n_left} calls are left. "
            "The same command with a larger --budget-usd goes on."
        )
    if report.n_unscored:
        yield f"{report.n_unscored} answers have no score: no reference, or the metric failed."
    if report.n_failed:
        yield f"{report.n_failed} calls failed; the same command tries them again. {_describe(failures)}"
