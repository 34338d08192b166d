"""Asks a worker process whether two mathematical results are equal, and replaces the worker when it dies."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from typing import IO, Any, cast

from fusion_integrations.errors import LogSchemaError, MetricFailedError, MissingDependencyError

__all__ = ["are_equal"]

# By the clock; the worker's own limit counts processor time, so that a busy machine changes no score.
_WAIT_S = 120.0


def are_equal(reference: str, result: str) -> bool:
    """Tell whether two results in LaTeX or plain notation mean the same.

    Args:
        reference: The right result.
        result: What is compared with it; the order matters for equations and sets.

    Returns:
        Whether they are equal. A result that cannot be read, or evaluated with the means of the worker, is
        not.

    Raises:
        LogSchemaError: If the reference cannot be read or evaluated.
        MetricFailedError: If the comparison failed for a reason of its own.
        MissingDependencyError: If the package math-verify is not installed.
    """
    answer = _WORKER.ask(reference, result)
    if answer is None:  # too much work, for one of the two
        alone = _WORKER.ask(reference, "0")
        answer = {"is_equal": False, "is_readable": alone is not None and alone["is_readable"]}
    if not answer["is_readable"]:
        message = f"Metric 'math_match' cannot read the reference '{reference}'. Write it in LaTeX."
        raise LogSchemaError(message)
    return bool(answer["is_equal"])


class _Worker:
    """One process that compares; started when first needed, ended with this one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def ask(self, reference: str, result: str) -> dict[str, Any] | None:
        """Return what the worker answers; None if the question was too much work for it."""
        with self._lock:
            process = self._running()
            timer = threading.Timer(_WAIT_S, process.kill)
            timer.start()
            try:
                stdin, stdout = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
                stdin.write(json.dumps([reference, result]) + "\n")
                stdin.flush()
                line = stdout.readline()
            except BrokenPipeError:  # it died between two questions, or has something to say about that
                line = stdout.readline()
            finally:
                timer.cancel()
            if line:
                answer: dict[str, Any] = json.loads(line)
                if "missing" in answer:
                    self.close()
                    raise MissingDependencyError(answer["missing"])
                return answer
            code = self.close()
        if hasattr(signal, "SIGPROF") and code == -signal.SIGPROF:
            return None
        message = f"Metric 'math_match' failed: its worker ended with exit code {code}. Try again."
        raise MetricFailedError(message)

    def close(self) -> int | None:
        """End the process and return its exit code; None if this process has none."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return None
        process.kill()
        with contextlib.suppress(BrokenPipeError), process:
            pass
        return process.wait()

    def _running(self) -> subprocess.Popen[str]:
        # A forked process must not share the pipes of its parent.
        if self._process is None or self._owner != os.getpid():
            if self._owner == 0:
                atexit.register(self.close)
            self._owner = os.getpid()
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "fusion_integrations.scoring._math_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "0"},
                encoding="utf-8",
            )
        return self._process


_WORKER = _Worker()
