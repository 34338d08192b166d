"""Every error the toolkit raises on purpose; one root, so callers can catch all or one.

    FusionError
    ├── LogSchemaError (ValueError)            a log row, table or column mapping is malformed
    ├── LogStoreError (RuntimeError)           the log store cannot be opened, read or written
    ├── NotEnoughLogsError (ValueError)        too little to learn from
    ├── EmptyQueryError (ValueError)           a query without text
    ├── UnknownCandidateError (KeyError)       a name that no candidate has
    ├── NoEligibleCandidateError (ValueError)  a policy that excludes every candidate
    ├── BudgetExceededError (RuntimeError)     the budget of a run does not suffice
    ├── InvalidPolicyError (ValueError)        a policy or argument outside its range
    ├── CandidateCallError (RuntimeError)      a model call failed
    ├── CandidatesFileError (ValueError)       a candidates file that cannot be used
    ├── JudgeOutputError (ValueError)          a judge gave no verdict that can be read
    ├── MetricFailedError (RuntimeError)       a metric could not be computed; the answer is unscored
    ├── SandboxUnavailableError (RuntimeError) this machine cannot isolate the code that is to be run
    ├── ArtifactNotFoundError (FileNotFoundError)
    ├── ArtifactFormatError (ValueError)       corrupted, tampered with, or newer than this release
    ├── ArtifactWriteError (OSError)           the artifact could not be saved (disk full, ...)
    ├── EmbedderMismatchError (ValueError)     another embedder than the artifact was trained with
    └── MissingDependencyError (ImportError)   an optional package is not installed

Each class is also the built-in that fits, so code unaware of us still catches it.
"""

from __future__ import annotations

__all__ = [
    "ArtifactFormatError",
    "ArtifactNotFoundError",
    "ArtifactWriteError",
    "BudgetExceededError",
    "CandidateCallError",
    "CandidatesFileError",
    "EmbedderMismatchError",
    "EmptyQueryError",
    "FusionError",
    "InvalidPolicyError",
    "JudgeOutputError",
    "LogSchemaError",
    "LogStoreError",
    "MetricFailedError",
    "MissingDependencyError",
    "NoEligibleCandidateError",
    "NotEnoughLogsError",
    "SandboxUnavailableError",
    "UnknownCandidateError",
]


class FusionError(Exception):
    """Root of every error raised on purpose by this toolkit."""


class LogSchemaError(FusionError, ValueError):
    """A log row, table or column mapping is malformed."""


class LogStoreError(FusionError, RuntimeError):
    """The log store cannot be opened, read or written."""


class NotEnoughLogsError(FusionError, ValueError):
    """The logs hold too little to learn from."""


class EmptyQueryError(FusionError, ValueError):
    """A query has no text."""


class UnknownCandidateError(FusionError, KeyError):
    """A name matches no candidate."""

    def __str__(self) -> str:
        """Return the message as written; `KeyError` would print its repr."""
        return str(self.args[0]) if self.args else ""


class NoEligibleCandidateError(FusionError, ValueError):
    """The policy excludes every candidate."""


class BudgetExceededError(FusionError, RuntimeError):
    """The budget of a run does not suffice."""


class InvalidPolicyError(FusionError, ValueError):
    """A policy or argument lies outside its range."""


class CandidateCallError(FusionError, RuntimeError):
    """A call to a candidate's model failed.

    Args:
        message: What happened.
        is_transient: Whether the same call may succeed later: the server was busy, the network failed.
        retry_after_s: Seconds that the server asks to wait, if it does.
        may_be_billed: Whether the provider may charge for the call though it gave no answer.
    """

    def __init__(
        self,
        message: str,
        *,
        is_transient: bool = False,
        retry_after_s: float | None = None,
        may_be_billed: bool = True,
    ) -> None:
        super().__init__(message)
        self.is_transient = is_transient
        self.retry_after_s = retry_after_s
        self.may_be_billed = may_be_billed


class CandidatesFileError(FusionError, ValueError):
    """A candidates file cannot be used."""


class JudgeOutputError(FusionError, ValueError):
    """A judge gave no verdict that can be read, however often it was asked."""


class MetricFailedError(FusionError, RuntimeError):
    """A metric could not be computed; says nothing about the answer."""


class SandboxUnavailableError(FusionError, RuntimeError):
    """This machine cannot isolate the code that is to be run, so it was not run."""


class ArtifactNotFoundError(FusionError, FileNotFoundError):
    """No artifact of the wanted kind lies at the given path."""


class ArtifactFormatError(FusionError, ValueError):
    """An artifact is corrupted, tampered with, or newer than this release reads."""


class ArtifactWriteError(FusionError, OSError):
    """An artifact could not be saved; the target is as it was before."""


class EmbedderMismatchError(FusionError, ValueError):
    """The embedder differs from the one the artifact was trained with."""


class MissingDependencyError(FusionError, ImportError):
    """An optional package is not installed."""
