"""Decides in a process of its own whether two mathematical results are equal.

A few characters can name a number that no computer can write down, and no library interrupts itself there.
So the kernel bounds time and memory of this process, and whoever asked starts another one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys

from fusion_integrations._optional import require
from fusion_integrations.errors import MissingDependencyError

__all__ = ["main"]

_CPU_S = 3.0
_MEMORY_BYTES = 2 * 1024**3


def main() -> None:
    """Answer requests, one a line: a JSON list of reference and result, answered by a JSON object."""
    try:
        math_verify = require("math_verify", extra="math")
    except MissingDependencyError as error:
        _answer({"missing": str(error)})
        return
    logging.disable(logging.CRITICAL)  # it warns that limits are left to the caller, who is here
    with contextlib.suppress(ImportError):  # the module exists on POSIX only
        import resource  # noqa: PLC0415

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    # The parser of LaTeX is a grammar. Its sibling for plain expressions evaluates text: it stays unused.
    latex = [math_verify.LatexExtractionConfig()]
    for line in sys.stdin:
        _limit(_CPU_S)
        reference, result = (
            math_verify.parse(
                f"${text}$", extraction_config=latex, fallback_mode="no_fallback", parsing_timeout=None
            )
            for text in json.loads(line)
        )
        is_equal = math_verify.verify(reference, result, timeout_seconds=None)
        _limit(0)
        _answer({"is_equal": bool(is_equal), "is_readable": bool(reference)})


def _limit(cpu_s: float) -> None:
    """End this process after so much processor time, by a signal that nothing handles; 0 means no limit."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, cpu_s)


def _answer(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
