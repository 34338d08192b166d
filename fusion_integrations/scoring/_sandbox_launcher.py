"""Builds the sandbox around one program, runs it inside, and reports how it ended.

A script of its own, run in a fresh interpreter that can import nothing but the standard library: what it
holds is all that the program could ever get at. It says "ready" in the report when the walls stand; only then
does the program run.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib.machinery
import json
import os
import resource
import select
import signal
import struct
import sys
import traceback
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["main"]

_LIBC = ctypes.CDLL(None, use_errno=True)

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x0002_0000, 0x0400_0000, 0x0800_0000
_CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x1000_0000, 0x2000_0000, 0x4000_0000
_NAMESPACES = _CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWPID | _CLONE_NEWNET

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT = 1, 2, 4, 32
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_MNT_DETACH = 2
# A mount made in a user namespace must keep what its original forbids: flags of statvfs and of mount.
_KEPT_FLAGS = ((2, 2), (4, 4), (8, 8), (1024, 1024), (2048, 2048), (4096, 1 << 21))

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x2008_0522

# What the C library has no function for.
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPSET = {"x86_64": 126, "aarch64": 91}
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
# The third version is the first that governs truncation: before it, any writable file could be emptied.
_LANDLOCK_MIN_VERSION = 3
_LANDLOCK_RIGHTS_BY_VERSION = {3: (1 << 15) - 1, 5: (1 << 16) - 1}
_LANDLOCK_NETWORK, _LANDLOCK_SCOPES = 0b11, 0b11
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_FILE, _MAKE_REGULAR, _TRUNCATE = 1 << 5, 1 << 8, 1 << 14

_WRITABLE = "/tmp"  # noqa: S108  # of the new root, seen by nobody else
_MAX_THREADS = 64
_UNMAPPED_USER = 65534
_MIB = 1024 * 1024


def main() -> None:
    """Read the request from file descriptor 0, run its program, and write the report.

    Arguments of the command line: file descriptors of the report and of the verdict. The request is two
    parts, each after its length in eight bytes: a JSON object that the launcher reads, and the tests with the
    word that says they passed, which are read only after the program under test has run.
    """
    report, verdict = int(sys.argv[1]), int(sys.argv[2])
    try:
        request: dict[str, Any] = json.loads(_read_part(0))
        _enter_namespaces(request)
        # After a change of user, which resets it.
        _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != request["caller"]:
            return  # it died before it could take this process along
        alive = os.pipe()
        child = os.fork()
    except OSError as error:
        _write(report, {"problem": str(error)})
        return
    if child == 0:
        _run(request, report=report, verdict=verdict, alive=alive)
    _, status, usage = os.wait4(child, 0)
    _write(report, {"status": status, "cpu_s": usage.ru_utime + usage.ru_stime})


def _run(request: Mapping[str, Any], *, report: int, verdict: int, alive: tuple[int, int]) -> None:
    """Build the walls, say so, and run the program in this process; never returns."""
    try:
        os.close(alive[1])
        tests = os.dup(0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        folder = _build_walls(request, parent_alive=alive[0])
        _write(report, {"is_ready": True})
        os.close(report)
    except OSError as error:
        _write(report, {"problem": str(error)})
        os._exit(1)
    code = 1
    try:
        # Not "__main__": what an answer shows for use as a script is no part of its functions.
        module = types.ModuleType("program")
        sys.modules["program"] = module
        sys.argv[:] = ["program.py"]
        sys.dont_write_bytecode = True
        _load(module, f"{folder}/program.py", request["program"])
        part = json.loads(_read_part(tests))
        _load(module, f"{folder}/tests.py", part["tests"])
        os.write(verdict, part["word"].encode())
        code = 0
    except BaseException:  # whatever the program raises is its own failure
        traceback.print_exc()
    finally:
        # Without the clean-up of an interpreter: threads of the program could hold it up.
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(code)


def _load(module: types.ModuleType, path: str, source: str) -> None:
    Path(path).write_text(source, encoding="utf-8", errors="surrogatepass")
    importlib.machinery.SourceFileLoader("program", path).exec_module(module)


def _enter_namespaces(request: Mapping[str, Any]) -> None:
    """Leave the host's namespaces, as far as the mechanism does; the next process is inside."""
    if request["mechanism"] == "namespaces":
        _call("unshare", _NAMESPACES)
    if request["mechanism"] == "user namespaces":
        _become(request["user"])
        user, group = os.getuid(), os.getgid()
        _call("unshare", _CLONE_NEWUSER | _NAMESPACES)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{_UNMAPPED_USER} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{_UNMAPPED_USER} {group} 1")


def _build_walls(request: Mapping[str, Any], *, parent_alive: int) -> str:
    """Shut the program in; return the one folder it may write to."""
    os.environ.clear()
    if request["mechanism"] == "landlock":
        os.chdir(request["folder"])
        folder = request["folder"]
        _become(request["user"])
    else:
        _change_root(request)
        os.chdir(_WRITABLE)
        folder = _WRITABLE
        if request["mechanism"] == "namespaces":
            _become(request["user"])
    # The kernel counts the threads of a user in a namespace; on the host it would count the caller's too.
    counts_threads = request["user"] is not None or request["mechanism"] == "user namespaces"
    _set_limits(request["limits"], max_threads=_MAX_THREADS if counts_threads else None)
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # From here on the death of the launcher is the end. If it died before, its end of this pipe is shut.
    # Asking for the parent would not do: from within a namespace it is 0, dead or alive.
    if select.select([parent_alive], [], [], 0)[0]:
        os._exit(1)
    os.close(parent_alive)
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if request["mechanism"] == "landlock":
        _restrict_files(request["readable"], folder)
    _drop_capabilities()
    _install_filter(bytes.fromhex(request["filter"]), own_pid=bytes.fromhex(request["own_pid"]))
    return str(folder)


def _become(user: int | None) -> None:
    """Become a user that owns nothing; None keeps the present one."""
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def _change_root(request: Mapping[str, Any]) -> None:
    """Make a small file system in memory the root, with nothing of the host but what Python needs to read."""
    root, limits = request["folder"], request["limits"]
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    # An inode takes about a kilobyte of kernel memory, so their number is bounded too.
    size = f"size={limits['disk_mib']}m,nr_inodes=4096,mode=0755"
    _mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, size)
    for path in request["readable"]:
        if Path(path).is_symlink():
            Path(root + path).parent.mkdir(parents=True, exist_ok=True)
            Path(root + path).symlink_to(Path(path).readlink())
        elif Path(path).exists():
            _show(path, root + path)
    Path(root + _WRITABLE).mkdir(exist_ok=True)
    Path(root + _WRITABLE).chmod(0o777)
    os.chdir(root)
    _system_call("pivot_root", _PIVOT_ROOT[os.uname().machine], b".", b".")
    _call("umount2", b".", _MNT_DETACH)


def _show(path: str, target: str) -> None:
    """Show a file or folder of the host, read-only."""
    if Path(path).is_dir():
        Path(target).mkdir(parents=True, exist_ok=True)
    else:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).touch()
    _mount(path, target, None, _MS_BIND | _MS_REC)
    flags = os.statvfs(target).f_flag
    kept = sum(mount_flag for seen, mount_flag in _KEPT_FLAGS if flags & seen)
    _mount(None, target, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID | _MS_NODEV | kept)


def _set_limits(limits: Mapping[str, int], *, max_threads: int | None) -> None:
    bounds = {
        # At the first number the kernel asks, at the second it kills.
        resource.RLIMIT_CPU: (limits["cpu_s"], limits["cpu_s"] + 1),
        resource.RLIMIT_AS: (limits["memory_mib"] * _MIB,) * 2,
        resource.RLIMIT_FSIZE: (limits["file_mib"] * _MIB,) * 2,
        resource.RLIMIT_NOFILE: (64, 64),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_MEMLOCK: (0, 0),
    }
    if max_threads is not None:
        bounds[resource.RLIMIT_NPROC] = (max_threads, max_threads)
    for kind, (soft, hard) in bounds.items():
        _, allowed = resource.getrlimit(kind)
        if allowed == resource.RLIM_INFINITY:
            resource.setrlimit(kind, (soft, hard))
        else:
            resource.setrlimit(kind, (min(soft, allowed), min(hard, allowed)))


def _restrict_files(readable: list[str], folder: str) -> None:
    """Allow to read what Python needs and to use one flat folder, by Landlock; nothing else can be opened.

    Source:
        Linux, Documentation/userspace-api/landlock.rst.
    """
    version = _system_call("landlock_create_ruleset", _LANDLOCK_CREATE_RULESET, None, 0, 1)
    if version < _LANDLOCK_MIN_VERSION:
        message = f"Landlock {_LANDLOCK_MIN_VERSION} is needed, this kernel has version {version}"
        raise OSError(errno.ENOSYS, message)
    files = max(rights for since, rights in _LANDLOCK_RIGHTS_BY_VERSION.items() if since <= version)
    attributes = struct.pack("=Q", files)
    if version >= 4:
        attributes += struct.pack("=Q", _LANDLOCK_NETWORK)
    if version >= 6:
        attributes += struct.pack("=Q", _LANDLOCK_SCOPES)
    size = len(attributes)
    rules = _system_call("landlock_create_ruleset", _LANDLOCK_CREATE_RULESET, attributes, size, 0)
    for path in readable:
        if Path(path).exists():
            rights = _READ_FILE | _EXECUTE | (_READ_DIR if Path(path).is_dir() else 0)
            _allow_beneath(rules, path, rights)
    own = _READ_FILE | _READ_DIR | _WRITE_FILE | _REMOVE_FILE | _MAKE_REGULAR | _TRUNCATE
    _allow_beneath(rules, folder, own)
    _system_call("landlock_restrict_self", _LANDLOCK_RESTRICT_SELF, rules, 0)
    os.close(rules)


def _allow_beneath(rules: int, path: str, rights: int) -> None:
    parent = os.open(path, os.O_PATH)
    rule = struct.pack("=Qi", rights, parent)
    _system_call(f"landlock_add_rule '{path}'", _LANDLOCK_ADD_RULE, rules, 1, rule, 0)
    os.close(parent)


def _drop_capabilities() -> None:
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _system_call("capset", _CAPSET[os.uname().machine], header, struct.pack("=6I", *(0,) * 6))


def _install_filter(instructions: bytes, *, own_pid: bytes) -> None:
    program = instructions.replace(own_pid, struct.pack("=I", os.getpid()))
    buffer = ctypes.create_string_buffer(program, len(program))
    # Struct sock_fprog: a 16-bit count, then an aligned pointer.
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    _call("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0)


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    _check(_LIBC.mount(*encoded, ctypes.c_ulong(flags), data.encode()), f"mount '{target}'")


def _call(name: str, *arguments: int | bytes) -> int:
    return _check(getattr(_LIBC, name)(*map(_wide, arguments)), name)


def _system_call(name: str, number: int, *arguments: int | bytes | None) -> int:
    return _check(_LIBC.syscall(ctypes.c_long(number), *map(_wide, arguments)), name)


def _wide(argument: int | bytes | None) -> ctypes.c_ulong | bytes | None:
    # The kernel reads whole registers, and the upper half of a C int is anything.
    return ctypes.c_ulong(argument) if isinstance(argument, int) else argument


def _check(result: int, name: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _read_part(file: int) -> bytes:
    (length,) = struct.unpack("=Q", _read(file, 8))
    return _read(file, length)


def _read(file: int, n_bytes: int) -> bytes:
    data = b""
    while len(data) < n_bytes:
        piece = os.read(file, n_bytes - len(data))
        if not piece:
            raise OSError(errno.EIO, "the request ends early")
        data += piece
    return data


def _write(file: int, line: Mapping[str, object]) -> None:
    os.write(file, json.dumps(line).encode() + b"\n")


if __name__ == "__main__":
    main()
