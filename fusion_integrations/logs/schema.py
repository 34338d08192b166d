"""The log record and its scores: one row of the knowledge that every fusion level learns from.

Validated with pydantic because records arrive from files, networks and other people's exports; whatever gets
past these two classes fits the store, the frame and the trainers.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from fusion_integrations.types import Message, PromptMode, Query, fingerprint

__all__ = [
    "Assignment",
    "LogRecord",
    "Score",
    "ScoreKind",
    "collection_record_id",
    "import_record_id",
]

Assignment = Literal["factorial", "policy", "user", "unknown"]
ScoreKind = Literal["performance", "judge", "feedback"]


def collection_record_id(
    *, collection: str, query_id: str, candidate_id: str, revision: str, sample: int
) -> str:
    """Name the record of one planned call of a collection, before the call is made.

    Args:
        collection: Name of the collection run.
        query_id: `Query.query_id`.
        candidate_id: `Candidate.id`.
        revision: `Candidate.revision`.
        sample: Number of the repeat, from 0.

    Returns:
        The record id; equal arguments give equal ids, so an interrupted collection can go on.
    """
    return fingerprint(["collection", collection, query_id, candidate_id, revision, sample])


def import_record_id(*, source: str, source_id: str) -> str:
    """Name the record made from one row of somebody's log.

    Args:
        source: Where the row comes from, for example a file or project name.
        source_id: What identifies the row there.

    Returns:
        The record id; importing a row again gives the same id.
    """
    return fingerprint(["import", source, source_id])


def _check_text(text: str) -> str:
    # A lone surrogate is a str that no UTF-8 column can hold.
    text.encode()
    return text


def _to_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        message = f"{moment.isoformat()} lies outside the years 1 to 9999 in UTC"
        raise ValueError(message) from error


# Stores, frames and files hold moments in UTC; normalising here makes every copy of a record equal.
_Moment = Annotated[AwareDatetime, AfterValidator(_to_utc)]
_Name = Annotated[str, Field(min_length=1, pattern=r"\S"), AfterValidator(_check_text)]
_Text = Annotated[str, AfterValidator(_check_text)]
_Count = Annotated[int, Field(ge=0, le=2**63 - 1)]  # what a 64-bit integer column holds
_Amount = Annotated[float, Field(ge=0)]


class LogRecord(BaseModel):
    """One call of one candidate for one query: what was asked, who answered, what it took.

    A record is immutable once stored. What the answer is worth lives in `Score`, so that scoring again never
    rewrites a record.

    Attributes:
        record_id: Identity of the call: the framework's run id for live calls, else `collection_record_id` or
            `import_record_id`.
        query_id: `Query.query_id` of the messages; filled in when left out.
        messages: The conversation before any prompt mode is applied, oldest first.
        task: Name of the task family, if known.
        reference: The right answer, as the metric reads it, if known.
        metric: Name of the metric that scores answers to this query, if known.
        candidate_id: Who answered (or failed to).
        candidate_revision: `Candidate.revision` at the time of the call.
        model: Name of the LLM; empty for tools and where the log does not say.
        prompt_mode: How the LLM was prompted.
        planned_candidate_id: Whom the router chose, where a failover made another one answer.
        response: The answer. None for a failed call, and in imported logs that kept only its score.
        error: What went wrong, for a failed call. A record with an error has no response.
        finish_reason: Why generation ended, in the provider's word.
        input_tokens: Prompt tokens, None if unknown.
        output_tokens: Answer tokens, None if unknown.
        cost_usd: What the call cost, None if unknown; never 0 for unknown.
        latency_s: Wall-clock seconds, None if unknown.
        assignment: How the candidate came to be chosen: every candidate for every query (`"factorial"`), by a
            routing policy, by a user, or unknown.
        propensity: Probability in (0, 1] with which it was chosen, None if unknown.
        eligible: Ids of the candidates that could have been chosen; empty if unknown.
        session_id: What groups the calls of one user or conversation, if known.
        created_at: Moment of the call; any time zone is accepted, UTC is kept.
        source: Where the record comes from: a collection, an import's source, an application.
        source_id: The record's identity at its source, if it has one.
        sample: Number of the repeat, from 0, where the same call was made several times.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        revalidate_instances="always",
        protected_namespaces=(),
    )

    record_id: _Name
    query_id: str = ""
    messages: tuple[Message, ...]
    task: _Text | None = None
    reference: _Text | None = None
    metric: _Text | None = None
    candidate_id: _Name
    candidate_revision: _Text = ""
    model: _Text = ""
    prompt_mode: PromptMode = "direct"
    planned_candidate_id: _Name | None = None
    response: _Text | None = None
    error: _Text | None = None
    finish_reason: _Text | None = None
    input_tokens: _Count | None = None
    output_tokens: _Count | None = None
    cost_usd: _Amount | None = None
    latency_s: _Amount | None = None
    assignment: Assignment = "unknown"
    propensity: Annotated[float, Field(gt=0, le=1)] | None = None
    eligible: tuple[_Name, ...] = ()
    session_id: _Text | None = None
    created_at: _Moment
    source: _Name
    source_id: _Text | None = None
    sample: _Count = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Check the messages' text, fill in or verify the query id, and refuse an answer beside an error."""
        for turn in self.messages:
            _check_text(turn.content)
        query_id = Query(messages=self.messages).query_id
        if not self.query_id:
            object.__setattr__(self, "query_id", query_id)
        elif self.query_id != query_id:
            # The store keeps the messages once per query id: a wrong id would swap somebody's question.
            message = (
                f"query_id is '{self.query_id}' but the messages hash to '{query_id}'. "
                "Leave query_id out, or pass Query(messages=...).query_id."
            )
            raise ValueError(message)
        if self.error is not None and self.response is not None:
            message = "The record has both an error and a response: a failed call has no response."
            raise ValueError(message)
        return self


class Score(BaseModel):
    """What one scorer thinks one answer is worth.

    Attributes:
        record_id: The scored record.
        kind: `"performance"` (a task metric), `"judge"` (an LLM's opinion) or `"feedback"` (a user's).
        scorer: Name of the metric, judge or form that gave the score.
        version: Version of the scorer; empty if it has none.
        value: Between 0 (worthless) and 1 (perfect).
        reason: Why, where the scorer says so.
        created_at: Moment of scoring; of several scores of a kind the latest counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    record_id: _Name
    kind: ScoreKind
    scorer: _Name
    version: _Text
    value: Annotated[float, Field(ge=0, le=1)]
    reason: _Text = ""
    created_at: _Moment
