"""Runs Python that nobody has checked, walled off from the machine, or not at all.

Answers to code tasks are programs that a language model wrote; scoring them means running them. There is no
setting that runs them unprotected: where the kernel offers no isolation, this raises.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import re
import secrets
import shutil
import signal
import stat
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args

from fusion_integrations.errors import InvalidPolicyError, SandboxUnavailableError
from fusion_integrations.scoring._sandbox_filter import OWN_PID, build_filter

__all__ = ["Mechanism", "Outcome", "SandboxLimits", "SandboxResult", "find_mechanism", "run_sandboxed"]

Mechanism = Literal["namespaces", "user namespaces", "landlock"]
"""What keeps a program in, besides the filter of system calls; `find_mechanism` tries them in this order."""

_MECHANISMS: tuple[Mechanism, ...] = get_args(Mechanism)

Outcome = Literal["passed", "failed", "out of time", "out of cpu", "out of disk", "killed"]

_LAUNCHER = Path(__file__).with_name("_sandbox_launcher.py")
_MIB = 1024 * 1024
_POLL_S = 0.02
_DETAIL_CHARS = 2_000
_MAX_FILES = 1_000
_NEARLY = 0.9  # the kernel measures by ticks
_CAP_CHOWN, _CAP_SETGID, _CAP_SETUID = 0, 6, 7  # linux/capability.h
# Above the users of most systems and below 65535, what a container usually maps.
_FIRST_THROWAWAY_USER, _N_THROWAWAY_USERS = 60_600, 4_000
_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")

# Whether a mechanism holds is found out by trying to get out of it, not by asking for its version.
_ESCAPES = """
import os, socket, sys

def must_fail(what, attempt):
    try:
        attempt()
    except (OSError, RuntimeError):
        return
    sys.exit(f"{what} is possible")

must_fail("a connection", lambda: socket.socket())
must_fail("another process", os.fork)
must_fail("another program", lambda: os.execv(sys.executable, [sys.executable]))
must_fail("a signal to the parent", lambda: os.kill(os.getppid() or 1, 0))
must_fail("leaving the process group", os.setsid)
must_fail("reading the host's files", lambda: open("/etc/passwd").close())
must_fail("reading other processes", lambda: os.listdir("/proc"))
if os.environ:
    sys.exit("the environment is not empty")
with open("own file", "w") as file:
    file.write("x")
"""


@dataclass(frozen=True, kw_only=True)
class SandboxLimits:
    """How much a program may use.

    Attributes:
        wall_s: Seconds by the clock.
        cpu_s: Seconds of processor time, of all threads.
        memory_mib: Address space in MiB; Python itself takes about 30.
        disk_mib: All files together in MiB. They lie in memory where the mechanism allows that.
        file_mib: One file in MiB, the captured output among them.
    """

    wall_s: float = 20.0
    cpu_s: int = 5
    memory_mib: int = 512
    disk_mib: int = 16
    file_mib: int = 1

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            InvalidPolicyError: If one is not above zero.
        """
        for name, amount in asdict(self).items():
            if not amount > 0:
                raise InvalidPolicyError(f"SandboxLimits.{name} must be above 0, got {amount}.")


@dataclass(frozen=True, kw_only=True)
class SandboxResult:
    """How a program ended.

    Attributes:
        outcome: `"passed"`: program and tests ran to their end. `"failed"`: an exception, a failed test, or
            an exit before the end. Else the limit it met; `"killed"`: by a signal, as after a crash.
        detail: The end of what it printed, tracebacks included.
        cpu_s: Seconds of processor time it took; None if it was stopped by the clock.
    """

    outcome: Outcome
    detail: str
    cpu_s: float | None


def run_sandboxed(
    program: str, *, tests: str = "", limits: SandboxLimits | None = None, mechanism: Mechanism | None = None
) -> SandboxResult:
    """Run a Python program, and then tests in its namespace, walled off from the machine.

    Only the standard library can be imported. There is no network, no second process, no file of the host but
    what Python needs to read, an empty environment, and one folder to write to that is gone afterwards.
    Everything ends with the call, or with the calling process.

    A program that was written to deceive this very harness can make its tests seem to pass, for both run in
    one interpreter; it cannot get out.

    Args:
        program: Source code, trusted in nothing.
        tests: Source code that raises if the program is wrong.
        limits: What it may use. Default: `SandboxLimits()`.
        mechanism: How to wall it off. Default: the first that holds on this machine.

    Returns:
        How it ended.

    Raises:
        SandboxUnavailableError: If this machine offers no mechanism, or not the one asked for; nothing ran.
    """
    limits = limits or SandboxLimits()
    return _run(program, tests, limits, mechanism or find_mechanism())


@functools.cache
def find_mechanism() -> Mechanism:
    """Find the first mechanism that a program which tries to get out does not get out of.

    Returns:
        The mechanism; the same for the rest of the process.

    Raises:
        SandboxUnavailableError: If there is none; says why of each, and what to do.
    """
    if sys.platform != "linux":
        raise SandboxUnavailableError(
            f"Code is only run in a sandbox, and there is none for '{sys.platform}'. Score code on Linux."
        )
    problems = []
    for mechanism in _MECHANISMS:
        try:
            result = _run(_ESCAPES, "", SandboxLimits(), mechanism)
        except SandboxUnavailableError as error:
            problems.append(str(error))
            continue
        if result.outcome == "passed":
            return mechanism
        last_line = "".join(result.detail.splitlines()[-1:])
        problems.append(f"'{mechanism}' does not hold ({result.outcome}): {last_line}.")
    raise SandboxUnavailableError(
        f"Code is only run in a sandbox, and this machine offers none. {' '.join(problems)} "
        "Allow unprivileged user namespaces, or use a kernel with Landlock (Linux 6.2 or later)."
    )


def _run(program: str, tests: str, limits: SandboxLimits, mechanism: Mechanism) -> SandboxResult:
    word = secrets.token_hex(16)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_temporary_folder())
        request, output, report, verdict = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(4))
        readable = _readable_paths()
        user = _throwaway_user([*readable, str(folder)] if mechanism != "namespaces" else [])
        if mechanism == "landlock" and user is not None:
            os.chown(folder, user, user)
        setup = {
            "mechanism": mechanism,
            "caller": os.getpid(),
            "program": program,
            "limits": asdict(limits),
            "folder": str(folder),
            "readable": readable,
            "user": user,
            "filter": build_filter(platform.machine()).hex(),
            "own_pid": struct.pack("=I", OWN_PID).hex(),
        }
        for part in (setup, {"tests": tests, "word": word}):
            data = json.dumps(part).encode()
            request.write(struct.pack("=Q", len(data)) + data)
        request.seek(0)
        files = _Files(request=request, output=output, report=report, verdict=verdict)
        watched = folder if mechanism == "landlock" else None
        stopped = _wait(_start(files), limits, watched)
        return _describe(files, mechanism=mechanism, limits=limits, word=word, stopped=stopped)


@dataclass(frozen=True, kw_only=True)
class _Files:
    """What launcher and caller exchange; files without a name, so that no reader can be kept waiting."""

    request: IO[bytes]
    output: IO[bytes]
    report: IO[bytes]
    verdict: IO[bytes]


def _start(files: _Files) -> subprocess.Popen[bytes]:
    shared = (files.report.fileno(), files.verdict.fileno())
    # Neither site-packages nor the folder of the script can be imported from, and sets keep their order.
    command = [sys.executable, "-S", "-s", "-P", str(_LAUNCHER), *map(str, shared)]
    return subprocess.Popen(  # noqa: S603  # this interpreter, and a script of ours
        command,
        stdin=files.request,
        stdout=files.output,
        stderr=subprocess.STDOUT,
        env={"PYTHONHASHSEED": "0"},
        cwd="/",
        pass_fds=shared,
        start_new_session=True,
    )


def _wait(
    process: subprocess.Popen[bytes], limits: SandboxLimits, watched: Path | None
) -> Literal["out of time", "out of disk"] | None:
    """Wait for the end and enforce it; return what it was stopped for."""
    deadline = time.monotonic() + limits.wall_s
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_POLL_S)
                return None
            if time.monotonic() > deadline:
                return "out of time"
            if watched is not None and _is_too_full(watched, limits):
                return "out of disk"
    finally:
        # The group outlives its leader: a program that outlived the launcher would end here.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _describe(
    files: _Files,
    *,
    mechanism: Mechanism,
    limits: SandboxLimits,
    word: str,
    stopped: Literal["out of time", "out of disk"] | None,
) -> SandboxResult:
    report: dict[str, Any] = {}
    for line in _content(files.report).splitlines():
        report.update(json.loads(line))
    detail = _content(files.output).decode(errors="replace")[-_DETAIL_CHARS:]
    if "problem" in report or ("is_ready" not in report and stopped is None):
        problem = report.get("problem") or f"the launcher failed: {detail.strip()[-300:]}"
        raise SandboxUnavailableError(f"'{mechanism}' cannot be had here: {problem}.")
    if stopped is not None:
        return SandboxResult(outcome=stopped, detail=detail, cpu_s=None)
    code = os.waitstatus_to_exitcode(report["status"]) if "status" in report else -signal.SIGKILL
    cpu_s = report.get("cpu_s", 0.0)
    outcome: Outcome = "failed"
    if code == 0 and _content(files.verdict) == word.encode():
        outcome = "passed"
    elif code == -signal.SIGXCPU or (code == -signal.SIGKILL and cpu_s > _NEARLY * limits.cpu_s):
        outcome = "out of cpu"
    elif code < 0:
        outcome = "killed"
    return SandboxResult(outcome=outcome, detail=detail, cpu_s=cpu_s)


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(2 * _MIB)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Make a folder for one run: where the new root is mounted, or the one that can be written to."""
    folder = Path(tempfile.mkdtemp(prefix="fusion-sandbox-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _is_too_full(folder: Path, limits: SandboxLimits) -> bool:
    """Measure the one folder, which the filter of system calls keeps flat."""
    n_bytes = 0
    with os.scandir(folder) as entries:
        for count, entry in enumerate(entries):
            with contextlib.suppress(FileNotFoundError):
                n_bytes += entry.stat(follow_symlinks=False).st_blocks * 512
            if n_bytes > limits.disk_mib * _MIB or count > _MAX_FILES:
                return True
    return False


def _readable_paths() -> list[str]:
    """Return what Python needs to read: the standard library, and the libraries that its modules link to."""
    paths = [sysconfig.get_path("stdlib")]
    paths.append(sysconfig.get_path("platstdlib", vars={"platbase": sys.base_exec_prefix}))
    paths += _SYSTEM_LIBRARIES
    distinct = list(dict.fromkeys(path for path in paths if Path(path).exists()))
    # A folder inside another is shown with it, and could not be mounted over what is read-only by then.
    return [
        path
        for path in distinct
        if not any(Path(other) in Path(path).parents and not Path(other).is_symlink() for other in distinct)
    ]


def _throwaway_user(paths: Sequence[str]) -> int | None:
    """Return the id of a user that owns nothing, if the caller may become one who can still read the paths.

    A second wall for code that the superuser runs: without it the other walls hold too.
    """
    needed = (1 << _CAP_SETGID) | (1 << _CAP_SETUID) | (1 << _CAP_CHOWN)
    if os.geteuid() != 0 or _capabilities() & needed != needed:
        return None
    folders = {parent for path in paths for parent in Path(path).parents}
    if not all(folder.stat().st_mode & stat.S_IXOTH for folder in folders):
        return None
    return _FIRST_THROWAWAY_USER + secrets.randbelow(_N_THROWAWAY_USERS)


def _capabilities() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    return int(found[1], 16) if found else 0
