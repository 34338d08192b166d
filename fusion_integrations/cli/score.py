"""`fusion score`: fill in the scores that a log store lacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from fusion_integrations.cli.choices import ReferenceOrderName, RescoreName, ScorerName
from fusion_integrations.cli.progress import progress_bars
from fusion_integrations.cli.terminal import DebugOption, JsonOption, plain_table, terminal
from fusion_integrations.errors import (
    InvalidPolicyError,
    JudgeOutputError,
    MetricFailedError,
    NotEnoughLogsError,
    UnknownCandidateError,
)

if TYPE_CHECKING:
    from fusion_integrations.logs.store import LogStore
    from fusion_integrations.scoring.judge_agreement import JudgeAgreement
    from fusion_integrations.scoring.llm_judge import LLMJudge
    from fusion_integrations.scoring.log_scorer import ScoringReport

__all__ = ["score"]


def score(
    store: Annotated[str, typer.Argument(help="Log store: SQLite file or database URL.")],
    *,
    by: Annotated[
        ScorerName, typer.Option(help="Who scores: the metric a log names, or a judge.")
    ] = "metric",
    judge: Annotated[
        str | None, typer.Option(metavar="ID", help="Candidate that judges, by its id.", show_default=False)
    ] = None,
    candidates: Annotated[
        str | None, typer.Option(help="Candidates file that has the judge.", show_default=False)
    ] = None,
    rubric: Annotated[
        Path | None,
        typer.Option(
            help="Text file: what makes a good answer.", show_default="agreement with the reference"
        ),
    ] = None,
    reference_order: Annotated[
        ReferenceOrderName, typer.Option(help="Show the judge the reference first, or ask both ways around.")
    ] = "first",
    rescore: Annotated[
        RescoreName,
        typer.Option(help="Score what has no score, or also what another scorer or version scored."),
    ] = "missing",
    batch_size: Annotated[int, typer.Option(help="Most answers to score at once.")] = 32,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Try N answers at most.")] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Score the answers that have no score.

    By the metric that each log names, which runs code only in a sandbox; or by a judge, an LLM of a
    candidates file, called within its limits. A run may be ended at any moment: the same command goes on
    where it ended.
    """
    to_go_on = "Interrupted. All finished batches are stored; run the same command again to go on."
    with terminal(as_json=as_json, debug=debug, if_interrupted=to_go_on) as place:
        from fusion_integrations.logs.store import LogStore
        from fusion_integrations.scoring.log_scorer import JudgeScorer, LogScorer, MetricScorer

        if by == "judge":
            judges = _make_judge(judge, candidates, rubric=rubric, reference_order=reference_order)
            scorer: JudgeScorer | MetricScorer = JudgeScorer(judges)
        elif judge or candidates or rubric:
            raise InvalidPolicyError("--judge, --candidates and --rubric need --by judge.")
        else:
            scorer = MetricScorer()
        with LogStore.open(store, create=False) as log_store:
            with progress_bars(place.progress) as on_progress:
                report = LogScorer(
                    log_store,
                    scorer,
                    rescore=rescore,
                    batch_size=batch_size,
                    on_progress=lambda n_done, n_total: on_progress("records", n_done, n_total),
                ).score(limit=limit)
            agreement = _agreement(log_store) if by == "judge" else None
            label = log_store.label
        if report.n_failed and not report.n_scored:
            kind = JudgeOutputError if by == "judge" else MetricFailedError
            raise kind(f"None of {report.n_failed} answers could be scored. {_describe(report)}")
        document = {"store": label, "by": by, **asdict(report)}
        document["agreement"] = None if agreement is None else asdict(agreement)
        place.show(document, *_texts(report, store=label, agreement=agreement))


def _make_judge(
    judge: str | None, candidates: str | None, *, rubric: Path | None, reference_order: ReferenceOrderName
) -> LLMJudge:
    from fusion_integrations.cli.inputs import read_candidates
    from fusion_integrations.collection.paced_calls import PacedCalls
    from fusion_integrations.scoring.llm_judge import LLMJudge
    from fusion_integrations.types import find_candidate

    if judge is None or candidates is None:
        raise InvalidPolicyError(
            "--by judge needs --candidates FILE and --judge ID, a candidate of that file."
        )
    candidate_set = read_candidates(candidates)
    candidate = find_candidate(candidate_set.candidates, judge)
    if candidate.prompt_mode != "direct":
        raise UnknownCandidateError(
            f"Candidate '{judge}' is prompted in mode '{candidate.prompt_mode}'. Name one of mode direct."
        )
    try:
        text = None if rubric is None else rubric.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidPolicyError(f"Rubric '{rubric}' cannot be read: {error}.") from error
    options = candidate_set.options.get(candidate.id)
    limits = candidate_set.limits.get(candidate.id)
    client = candidate_set.clients[candidate.model]
    ask_each = None if limits is None else PacedCalls(client, limits=limits)
    if options is None:
        return LLMJudge(client, rubric=text, reference_order=reference_order, ask_each=ask_each)
    return LLMJudge(client, rubric=text, reference_order=reference_order, options=options, ask_each=ask_each)


def _agreement(store: LogStore) -> JudgeAgreement | None:
    from fusion_integrations.scoring.judge_agreement import judge_agreement

    try:
        return judge_agreement(store.to_frame())
    except NotEnoughLogsError:
        return None


def _describe(report: ScoringReport) -> str:
    return " ".join(f"{reason}: {message}" for reason, message in report.last_failures.items())


def _texts(
    report: ScoringReport, *, store: str, agreement: JudgeAgreement | None
) -> Iterator[RenderableType]:
    yield f"{report.n_scored} answers scored in '{store}', {report.n_known} had their score already."
    if report.n_unscored:
        table = plain_table(
            "Without a score", text_columns=("reason", "latest message"), number_columns=("records",)
        )
        for reason, count in report.n_unscored.items():
            table.add_row(reason, report.last_failures.get(reason, ""), str(count))
        yield table
    if agreement is not None:
        parts = {
            "judge minus metric": str(agreement.bias),
            "correlation": _number(agreement.correlation),
            "rank correlation": _number(agreement.rank_correlation),
            "agree on right or wrong": _number(agreement.accuracy),
            "kappa": _number(agreement.kappa),
            "pull of long answers": _number(agreement.verbosity),
        }
        listed = ", ".join(f"{name} {value}" for name, value in parts.items())
        yield f"Judge and metric on {agreement.n} answers that have both: {listed}."


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
