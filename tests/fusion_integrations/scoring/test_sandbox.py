"""Hostile programs, each under every mechanism: what they try must neither succeed nor leave a trace."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

import fusion_integrations
from fusion_integrations.errors import InvalidPolicyError, SandboxUnavailableError
from fusion_integrations.scoring import sandbox
from fusion_integrations.scoring._sandbox_filter import OWN_PID, build_filter
from fusion_integrations.scoring.sandbox import (
    Mechanism,
    SandboxLimits,
    SandboxResult,
    find_mechanism,
    run_sandboxed,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is made of parts of Linux")

QUICK = SandboxLimits(wall_s=20, cpu_s=1, memory_mib=256, disk_mib=4)
PACKAGE = Path(fusion_integrations.__file__).parent


def offered() -> list[Mechanism]:
    """Return the mechanisms of this machine; a machine with none cannot run these tests."""
    found = []
    for mechanism in get_args(Mechanism):
        with contextlib.suppress(SandboxUnavailableError):
            run_sandboxed("", mechanism=mechanism)
            found.append(mechanism)
    return found


OFFERED = offered() if sys.platform == "linux" else []
every_mechanism = pytest.mark.parametrize("mechanism", OFFERED)


def attempt(code: str, mechanism: Mechanism, *, limits: SandboxLimits = QUICK) -> SandboxResult:
    return run_sandboxed(code, limits=limits, mechanism=mechanism)


def launchers() -> list[str]:
    """Return the command lines of all sandboxes that are alive."""
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(process.read_bytes().decode(errors="replace"))
    return [line for line in lines if "_sandbox_launcher.py" in line and str(PACKAGE) in line]


def test_this_machine_offers_a_mechanism_that_holds():
    assert find_mechanism() in OFFERED


@every_mechanism
def test_program_when_it_and_its_tests_run_to_the_end_passes(mechanism):
    program = "import dataclasses, math, re\n\ndef double(x):\n    return 2 * x\n\nprint('made')"
    result = run_sandboxed(program, tests="assert double(4) == 8", mechanism=mechanism)
    assert (result.outcome, result.detail) == ("passed", "made\n")


@every_mechanism
@pytest.mark.parametrize(
    ("program", "tests", "says"),
    [
        ("def double(x):\n    return x", "assert double(4) == 8", "AssertionError"),
        ("def double(x:\n", "", "SyntaxError"),
        ("1 / 0", "", "ZeroDivisionError"),
        ("import numpy", "", "ModuleNotFoundError"),
        ("input()", "", "EOFError"),
        ("def f(n):\n    return f(n)\nf(1)", "", "RecursionError"),
        ("import sys\nsys.exit(0)", "assert False", "SystemExit"),
        ("import os\nos._exit(0)", "assert False", ""),
    ],
)
def test_program_when_it_fails_or_leaves_before_its_tests_fails(program, tests, says, mechanism):
    result = run_sandboxed(program, tests=tests, mechanism=mechanism)
    assert result.outcome == "failed"
    assert says in result.detail


@every_mechanism
def test_program_when_it_is_also_a_script_runs_as_a_module_with_threads_and_files(mechanism):
    program = """
import asyncio, concurrent.futures, tempfile
if __name__ == "__main__":
    raise ValueError("run as a script")
with tempfile.TemporaryFile("w+") as file:
    file.write("kept")
    file.seek(0)
    assert file.read() == "kept"
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    assert list(pool.map(abs, [-1, -2])) == [1, 2]
assert asyncio.run(asyncio.sleep(0, "done")) == "done"
"""
    assert run_sandboxed(program, mechanism=mechanism).outcome == "passed"


@every_mechanism
def test_sets_when_the_program_runs_again_keep_their_order(mechanism):
    program = "print(list({'a', 'b', 'c', 'd', 'e', 'f'}))"
    details = {run_sandboxed(program, mechanism=mechanism).detail for _ in range(2)}
    assert len(details) == 1


# --- hostile programs ---


@every_mechanism
@pytest.mark.parametrize(
    "way",
    [
        "os.fork()",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "subprocess.Popen(['/bin/true'])",
        "multiprocessing.get_context('fork').Process(target=print).start()",
        "os.execv('/bin/true', ['true'])",
    ],
)
def test_another_process_when_started_in_any_way_is_refused(way, mechanism):
    code = f"import multiprocessing, os, subprocess\n{way}\nprint('alive')"
    result = attempt(code, mechanism)
    assert result.outcome == "failed"
    assert "alive" not in result.detail
    assert "Error" in result.detail


@every_mechanism
def test_fork_bomb_when_it_calls_the_kernel_itself_makes_no_process(mechanism):
    code = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
made = []
for number in (56, 57, 58, 220, 435):
    for _ in range(20):
        pid = libc.syscall(number, 17, 0, 0, 0, 0)
        if pid == 0:
            os._exit(0)
        made.append(pid)
assert set(made) == {-1}, made
"""
    if platform.machine() == "x86_64":
        code = code.replace("56, 57, 58, 220, 435", "56, 57, 58, 435")
    else:
        code = code.replace("56, 57, 58, 220, 435", "220, 435")
    assert attempt(code, mechanism).outcome == "passed"


@every_mechanism
def test_thread_bomb_is_contained(mechanism):
    code = """
import threading
threading.stack_size(32_768)
stop = threading.Event()
try:
    for _ in range(100_000):
        threading.Thread(target=stop.wait, daemon=True).start()
except RuntimeError as error:
    print("stopped:", error)
    raise
"""
    result = attempt(code, mechanism, limits=replace(QUICK, wall_s=5))
    # Memory ends it; whoever then waits for the start of a thread that got none runs out of time.
    assert result.outcome in ("failed", "killed", "out of time")
    assert launchers() == []


@every_mechanism
def test_disk_when_filled_by_many_files_or_a_large_one_is_stopped(mechanism):
    before = set(Path(tempfile.gettempdir()).glob("fusion-sandbox-*"))  # of whoever else is at work
    many = "for i in range(10**6):\n    open(f'{i}', 'wb').write(bytes(500_000))"
    assert attempt(many, mechanism).outcome in ("failed", "out of disk")
    result = attempt("open('large', 'wb').write(bytes(5_000_000))", mechanism)
    assert result.outcome == "failed"
    assert "File too large" in result.detail
    assert set(Path(tempfile.gettempdir()).glob("fusion-sandbox-*")) <= before


@every_mechanism
def test_files_of_the_host_when_read_written_or_changed_are_out_of_reach(mechanism, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("the key is 4711")
    secret.chmod(0o666)
    for folder in (tmp_path, tmp_path.parent):
        folder.chmod(0o777)
    code = f"""
import os
secret = {str(secret)!r}
attempts = [
    lambda: open(secret).read(), lambda: open(secret, "a"), lambda: os.truncate(secret, 0),
    lambda: os.open(secret, os.O_RDONLY | os.O_TRUNC), lambda: os.chmod(secret, 0), lambda: os.unlink(secret),
    lambda: os.rename(secret, "mine"), lambda: os.link(secret, "mine"), lambda: os.utime(secret),
    lambda: os.symlink(secret, "mine"), lambda: open(secret + ".new", "w"), lambda: os.listdir("/"),
    lambda: open("/etc/passwd"), lambda: open(f"/proc/{os.getpid()}/environ"), lambda: os.listdir("/var"),
    lambda: open(os.__file__, "a"), lambda: os.unlink(os.__file__), lambda: os.mkdir("folder"),
]
for number, attempt in enumerate(attempts):
    try:
        found = attempt()
    except OSError:
        continue
    if number == 11 and set(found) <= {{"lib", "lib64", "usr", "etc", "tmp", "root", "home", "opt"}}:
        continue  # the root that was made for it
    print("got", number, found)
"""
    result = attempt(code, mechanism)
    assert (result.outcome, result.detail) == ("passed", "")
    assert secret.read_text() == "the key is 4711"
    assert [path.name for path in tmp_path.iterdir()] == ["secret.txt"]


@every_mechanism
def test_environment_and_memory_of_the_parent_when_looked_for_are_not_there(mechanism, monkeypatch):
    monkeypatch.setenv("FUSION_TEST_KEY", "sk-4711")
    code = """
import ctypes, gc, os
assert not os.environ, os.environ
libc = ctypes.CDLL(None, use_errno=True)
libc.getenv.restype = ctypes.c_char_p
assert libc.getenv(b"FUSION_TEST_KEY") is None
parent = os.getppid()
for path in (f"/proc/{parent}/environ", f"/proc/{parent}/mem", "/proc/1/environ", "/proc/self/environ"):
    try:
        open(path, "rb").read()
    except OSError:
        continue
    print("read", path)
assert libc.ptrace(16, parent or 1, 0, 0) == -1
"""
    result = attempt(code, mechanism)
    assert (result.outcome, result.detail) == ("passed", "")


@every_mechanism
def test_network_when_tried_in_any_way_reaches_nobody(mechanism, socket_enabled):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        code = f"""
import ctypes, socket, urllib.request
address = ("127.0.0.1", {server.getsockname()[1]})
ways = [
    lambda: socket.create_connection(address),
    lambda: socket.socket(socket.AF_UNIX),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", address),
    lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
    lambda: urllib.request.urlopen("http://%s:%d" % address),
]
for way in ways:
    try:
        way()
    except OSError:
        continue
    print("open")
libc = ctypes.CDLL(None, use_errno=True)
assert libc.socket(2, 1, 0) == -1
assert libc.syscall(425, 8, ctypes.create_string_buffer(120)) == -1  # io_uring
"""
        result = attempt(code, mechanism)
        assert (result.outcome, result.detail) == ("passed", "")
        with pytest.raises(TimeoutError):
            server.accept()


@every_mechanism
def test_signals_when_sent_to_parent_group_or_everybody_are_refused(mechanism):
    code = f"""
import ctypes, fcntl, os, signal
libc = ctypes.CDLL(None, use_errno=True)
targets = {{os.getppid(), {os.getpid()}, {os.getppid()}, 1, 0, -1}}
for target in targets:
    for send in (os.kill, lambda pid, sig: os.killpg(abs(pid), sig)):
        try:
            send(target, signal.SIGKILL)
        except OSError:
            continue
        print("sent to", target)
    assert libc.syscall(200, target, 9) == -1
    assert libc.syscall(424, 0, 9, None, 0) == -1
reading, writing = os.pipe()
for command, value in ((fcntl.F_SETOWN, {os.getpid()}), (10, 9)):
    try:
        fcntl.fcntl(reading, command, value)
    except OSError:
        continue
    print("files may signal")
for change in (os.setsid, lambda: os.setpgid(0, 0)):
    try:
        change()
    except OSError:
        continue
    print("left the group")
assert libc.prctl(1, 0, 0, 0, 0) == -1  # would outlive its parent
"""
    result = attempt(code, mechanism)
    assert (result.outcome, result.detail) == ("passed", "")


@every_mechanism
def test_output_when_without_end_is_cut_and_the_program_stopped(mechanism):
    result = attempt("while True:\n    print('x' * 10_000)", mechanism)
    assert result.outcome in ("failed", "out of cpu")
    assert len(result.detail) <= 2_000


@every_mechanism
def test_memory_when_taken_without_end_is_refused(mechanism):
    result = attempt("blocks = []\nwhile True:\n    blocks.append(bytearray(10**7))", mechanism)
    assert (result.outcome, "MemoryError" in result.detail) == ("failed", True)


@every_mechanism
def test_processor_when_used_without_end_and_the_warning_ignored_is_taken_away(mechanism):
    code = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n9 ** 9 ** 9"
    assert attempt(code, mechanism).outcome in ("out of cpu", "out of time")
    assert launchers() == []


@every_mechanism
def test_sleeper_when_it_ignores_all_signals_ends_with_the_call(mechanism):
    code = """
import signal, threading, time
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
threading.Thread(target=time.sleep, args=(600,)).start()
time.sleep(600)
"""
    result = attempt(code, mechanism, limits=SandboxLimits(wall_s=0.5))
    assert (result.outcome, result.cpu_s) == ("out of time", None)
    assert launchers() == []


@every_mechanism
def test_crash_when_the_interpreter_breaks_is_no_pass(mechanism):
    result = attempt("import ctypes\nctypes.string_at(0)", mechanism)
    assert result.outcome == "killed"


@every_mechanism
def test_walls_when_the_program_pulls_at_them_stay(mechanism):
    code = """
import ctypes, os, resource
libc = ctypes.CDLL(None, use_errno=True)
for name, arguments in (("unshare", (0x10000000,)), ("setns", (0, 0)), ("chroot", (b".",)),
                        ("mount", (b"tmpfs", b"/tmp", b"tmpfs", 0, None)), ("umount2", (b"/", 2))):
    assert getattr(libc, name)(*arguments) == -1, name
for user in (0, 1):
    try:
        os.setuid(user)
    except OSError:
        continue
    print("became", user, os.getuid())
try:
    resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))
    print("limits raised")
except (ValueError, OSError):
    pass
assert libc.prlimit(1, 7, None, None) == -1
"""
    result = attempt(code, mechanism)
    assert result.outcome == "passed"
    assert result.detail in ("", "became 0 0\n")  # the superuser stays one by name, without any power


@every_mechanism
def test_sandbox_when_the_caller_is_killed_dies_too(mechanism):
    script = (
        "from fusion_integrations.scoring.sandbox import *\n"
        "print('started', flush=True)\n"
        f"run_sandboxed('import time; time.sleep(600)', mechanism={mechanism!r})\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(PACKAGE.parent)},
    ) as caller:
        caller.stdout.readline()
        until(lambda: len(launchers()) == 2)
        caller.kill()
    until(lambda: launchers() == [])
    for folder in Path(tempfile.gettempdir()).glob("fusion-sandbox-*"):
        shutil.rmtree(folder)


def until(condition):
    """Wait for what another process does; a machine that never does it fails by pytest's own limit."""
    for _ in range(2_000):
        if condition():
            return
        subprocess.run(["/bin/sleep", "0.01"], check=True)
    pytest.fail("it never happened")


# --- who runs it, and where ---

SHOW_MECHANISM = (
    "from fusion_integrations.scoring.sandbox import *\n"
    "print(find_mechanism(), run_sandboxed('x = 1', tests='assert x == 1').outcome)"
)


def readable_python() -> str | None:
    """Return an interpreter of at least 3.11 that every user may run."""
    for path in (os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"):
        parents = Path(path).parents
        if Path(path).exists() and all(parent.stat().st_mode & 0o001 for parent in parents):
            probe = [path, "-c", "import sys, ctypes; sys.exit(sys.version_info < (3, 11))"]
            if subprocess.run(probe, check=False).returncode == 0:
                return path
    return None


@pytest.fixture
def public_package():
    """Copy what the sandbox needs to where every user can read it."""
    folder = Path(tempfile.mkdtemp(prefix="fusion-public-"))
    folder.chmod(0o755)
    (folder / "fusion_integrations").mkdir()
    for name in ("__init__.py", "errors.py", "_optional.py"):
        shutil.copy(PACKAGE / name, folder / "fusion_integrations" / name)
    shutil.copytree(PACKAGE / "scoring", folder / "fusion_integrations" / "scoring")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(
    os.geteuid() != 0 or readable_python() is None, reason="needs root to become another user"
)
@pytest.mark.parametrize("mechanism", ["user namespaces", "landlock"])
def test_sandbox_when_run_by_an_ordinary_user_works(mechanism, public_package):
    if mechanism not in OFFERED:
        pytest.skip(f"no {mechanism} here")
    script = SHOW_MECHANISM.replace("tests=", f"mechanism={mechanism!r}, tests=")
    run = subprocess.run(
        [readable_python(), "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={"PYTHONPATH": str(public_package)},
        user=12345,
        group=12345,
        extra_groups=[],
    )
    assert (run.stdout.split()[-1:], run.stderr) == (["passed"], "")


# The rights of root in a container without --privileged, and the two calls its filter refuses there.
PLAIN_CONTAINER = """
import ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)
refused = {refused}
program = [(0x20, 0, 0, 0)]
for number in refused:
    program += [(0x15, 0, 1, number), (0x06, 0, 0, 0x00050001)]
program.append((0x06, 0, 0, 0x7FFF0000))
code = b"".join(struct.pack("=HBBI", *each) for each in program)
buffer = ctypes.create_string_buffer(code, len(code))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, struct.pack("@HP", len(program), ctypes.addressof(buffer)), 0, 0) == 0
"""
UNSHARE = {"x86_64": 272, "aarch64": 97}
LANDLOCK = 444


def run_where_refused(*numbers: int) -> subprocess.CompletedProcess[str]:
    script = PLAIN_CONTAINER.format(refused=numbers) + SHOW_MECHANISM
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(PACKAGE.parent)},
    )


@pytest.mark.skipif("landlock" not in OFFERED, reason="no Landlock here")
def test_sandbox_when_the_container_refuses_namespaces_uses_landlock():
    run = run_where_refused(UNSHARE[platform.machine()])
    assert (run.stdout, run.stderr) == ("landlock passed\n", "")


def test_sandbox_when_the_machine_offers_nothing_refuses_and_runs_nothing():
    run = run_where_refused(UNSHARE[platform.machine()], LANDLOCK)
    assert run.returncode == 1
    assert (
        "SandboxUnavailableError: Code is only run in a sandbox, and this machine offers none." in run.stderr
    )
    for mechanism in get_args(Mechanism):
        assert f"'{mechanism}' cannot be had here" in run.stderr
    assert "passed" not in run.stdout


def test_find_mechanism_when_a_program_gets_out_refuses(monkeypatch):
    monkeypatch.setattr(sandbox, "_ESCAPES", "import sys\nsys.exit('a connection is possible')")
    find_mechanism.cache_clear()
    with pytest.raises(SandboxUnavailableError, match=r"does not hold.*a connection is possible"):
        find_mechanism()
    find_mechanism.cache_clear()


def test_limits_when_not_above_zero_are_refused():
    with pytest.raises(InvalidPolicyError, match=r"SandboxLimits.cpu_s must be above 0, got 0"):
        SandboxLimits(cpu_s=0)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filter_of_every_architecture_is_whole_and_names_the_process_once(machine):
    program = build_filter(machine)
    assert len(program) % 8 == 0
    assert program.count(OWN_PID.to_bytes(4, sys.byteorder)) == 1


def test_filter_when_the_architecture_is_unknown_is_refused():
    with pytest.raises(SandboxUnavailableError, match="cannot be sandboxed on 'riscv64'"):
        build_filter("riscv64")
