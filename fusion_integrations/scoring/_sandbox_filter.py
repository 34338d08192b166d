"""The system calls that sandboxed code may make, as a seccomp filter in BPF.

Fewer calls than any namespace leaves open: no second process, no connection, no signal to others. So memory
and CPU limits, which the kernel keeps per process, are limits on the whole program. The filter is the same
under every mechanism, for a program must not pass on one machine and fail on another.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from fusion_integrations.errors import SandboxUnavailableError

__all__ = ["OWN_PID", "build_filter"]

OWN_PID = 0xFFFF_FFF7
"""Stands in the filter for the process id of the program, which is known only in the sandbox."""

# Struct seccomp_data: number of the call, architecture, instruction pointer, six 64-bit arguments. Both
# architectures are little-endian, and the arguments tested here are 32-bit in the kernel.
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16

_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_GREATER, _JUMP_IF_ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x54, 0x06
_ALLOW, _KILL = 0x7FFF_0000, 0x8000_0000
_NOT_PERMITTED, _NOT_IMPLEMENTED = 0x0005_0000 + 1, 0x0005_0000 + 38  # EPERM, ENOSYS

# Calls newer than this are reported as missing, which the C library answers with an older one.
_LAST_KNOWN_CALL = 450

# The kernel's number of each architecture; tables of calls have a column for each, in this order.
_ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}

# Source: the Linux headers asm/unistd_64.h (x86_64) and asm-generic/unistd.h (aarch64); None: no such call.
_DENIED: dict[str, tuple[int | None, int | None]] = {
    # Other processes: to make one, become one, look into one, signal one, or leave the group that is killed.
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "setsid": (112, 157),
    "setpgid": (109, 154),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # The network. io_uring makes sockets without the call of that name.
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "io_uring_setup": (425, 425),
    # The machine.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "vhangup": (153, 58),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262),
    "personality": (135, 92),
    # Memory that the limit on the address space does not count.
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # Changes to files that Landlock does not govern, and whatever could make a deep tree.
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "utimensat": (280, 88),
    "futimesat": (261, None),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "truncate": (76, 45),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
}
_CLONE, _CLONE3, _TGKILL, _FCNTL = (56, 220), (435, 435), (234, 131), (72, 25)
_PRCTL, _PRLIMIT, _SOCKETPAIR = (157, 167), (302, 261), (53, 199)

_CLONE_THREAD = 0x0001_0000
_SIGNAL_COMMANDS = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: a file can be told to send any signal
_PR_SET_PDEATHSIG = 1
_AF_UNIX, _SOCK_STREAM, _SOCK_TYPE_MASK = 1, 1, 0xF

_Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


def build_filter(machine: str) -> bytes:
    """Write the filter for an architecture.

    Args:
        machine: As `platform.machine()` names it.

    Returns:
        The instructions, eight bytes each, in the form the kernel reads. The four bytes of `OWN_PID` occur
        once and must be replaced by the id of the process that is to be filtered.

    Raises:
        SandboxUnavailableError: If the numbers of its system calls are not known here.

    Source:
        Linux, Documentation/userspace-api/seccomp_filter.rst.
    """
    if machine not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise SandboxUnavailableError(
            f"Code cannot be sandboxed on '{machine}': the filter of system calls knows {known}. "
            "Score the code metrics on such a machine."
        )
    column = list(_ARCHITECTURES).index(machine)
    program: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_IF_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        # Calls of the x32 interface carry a high bit and end here too.
        (_JUMP_IF_GREATER, 0, 1, _LAST_KNOWN_CALL),
        (_RETURN, 0, 0, _NOT_IMPLEMENTED),
    ]
    for numbers in _DENIED.values():
        number = numbers[column]
        if number is not None:
            program += [(_JUMP_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _NOT_PERMITTED)]
    for instructions in _conditions(column):
        program += instructions
    program.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _conditions(column: int) -> Iterator[list[_Instruction]]:
    """Yield the part of each call that is allowed for some arguments."""
    allow, deny = (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOT_PERMITTED)
    # Threads share the limits of their process; processes do not.
    yield _part(_CLONE[column], [_argument(0), (_JUMP_IF_ANY_BIT, 0, 1, _CLONE_THREAD), allow, deny])
    # Its flags lie in memory that no filter can read; the C library falls back on clone.
    yield _part(_CLONE3[column], [(_RETURN, 0, 0, _NOT_IMPLEMENTED)])
    # What raise() and abort() use.
    yield _part(_TGKILL[column], [_argument(0), (_JUMP_IF_EQUAL, 0, 1, OWN_PID), allow, deny])
    commands = [(_JUMP_IF_EQUAL, 3 - i, 0, command) for i, command in enumerate(_SIGNAL_COMMANDS)]
    yield _part(_FCNTL[column], [_argument(1), *commands, allow, deny])
    yield _part(_PRCTL[column], [_argument(0), (_JUMP_IF_EQUAL, 1, 0, _PR_SET_PDEATHSIG), allow, deny])
    yield _part(_PRLIMIT[column], [_argument(0), (_JUMP_IF_EQUAL, 0, 1, 0), allow, deny])
    # A connected pair, as asyncio makes for itself; datagrams could still be sent to an address.
    family = [_argument(0), (_JUMP_IF_EQUAL, 0, 4, _AF_UNIX)]
    kind = [_argument(1), (_AND, 0, 0, _SOCK_TYPE_MASK), (_JUMP_IF_EQUAL, 0, 1, _SOCK_STREAM)]
    yield _part(_SOCKETPAIR[column], [*family, *kind, allow, deny])


def _argument(index: int) -> _Instruction:
    return (_LOAD, 0, 0, _FIRST_ARGUMENT + 8 * index)


def _part(number: int, instructions: list[_Instruction]) -> list[_Instruction]:
    """Skip the instructions, which all end in a return, unless this is the call."""
    return [(_JUMP_IF_EQUAL, 0, len(instructions), number), *instructions]
