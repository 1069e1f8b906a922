"""The system calls that programs are refused, as a BPF program in bytes, for x86_64 and aarch64.

A list of refusals and not of permissions: programs are not ours, and what an unprivileged user
may do without namespaces of his own stays as it is on the host. ``clone3`` is answered with ENOSYS,
so that libc falls back to ``clone``, whose flags a filter can see.
"""

from __future__ import annotations

import errno
import platform
import struct
from typing import Final

_X86_64: Final = 0xC000_003E
_AARCH64: Final = 0xC000_00B7
_X32_BIT: Final = 0x4000_0000

_LD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JEQ: Final = 0x15
_JGE: Final = 0x35
_JSET: Final = 0x45
_RET: Final = 0x06
_ALLOW: Final = 0x7FFF_0000
_ERRNO: Final = 0x0005_0000
_KILL_PROCESS: Final = 0x8000_0000

_NR: Final = 0
_ARCH: Final = 4
_ARG0_LOW: Final = 16
_ARG1_LOW: Final = 24

CLONE_NAMESPACES: Final = 0x7E02_0000
"""Every CLONE_NEW* flag of clone(2)."""

REFUSED: Final[dict[str, tuple[int, int]]] = {
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "open_tree_attr": (467, 467),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "pidfd_getfd": (438, 438),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "create_module": (174, -1),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "adjtimex": (159, 171), "syslog": (103, 116), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "lookup_dcookie": (212, 18),
    "fanotify_init": (300, 262), "vhangup": (153, 58), "sethostname": (170, 161),
    "setdomainname": (171, 162), "nfsservctl": (180, 42), "ioperm": (173, -1), "iopl": (172, -1),
    "uselib": (134, -1), "sysfs": (139, -1),
}  # fmt: skip
"""Answered with EPERM; numbers on x86_64 and on aarch64, -1 where there is no such call."""

MISSING: Final[dict[str, tuple[int, int]]] = {
    "clone3": (435, 435), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}  # fmt: skip
"""Answered with ENOSYS: callers have another way."""

CLONE: Final = (56, 220)
SOCKET: Final = (41, 198)
IOCTL: Final = (16, 29)
PRLIMIT64: Final = (302, 261)
_AF_ALG: Final = 38
_AF_VSOCK: Final = 40
_TIOCSTI: Final = 0x5412
_TIOCLINUX: Final = 0x541C


def program(machine: str = "") -> bytes:
    """Return the filter for ``machine`` (this one's by default), 8 bytes an instruction.

    Empty for a machine that it is not written for. Source: seccomp(2), kernel
    userspace-api/seccomp_filter.rst.
    """
    machine = machine or platform.machine()
    if machine not in ("x86_64", "aarch64"):
        return b""
    column = 0 if machine == "x86_64" else 1
    eperm, enosys = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    code = [
        _op(_LD, _ARCH),
        _op(_JEQ, _X86_64 if column == 0 else _AARCH64, 1, 0),
        _op(_RET, _KILL_PROCESS),  # Another machine's calls have other numbers.
        _op(_LD, _NR),
    ]
    if column == 0:
        code += [_op(_JGE, _X32_BIT, 0, 1), _op(_RET, enosys)]
    for numbers, answer in ((MISSING, enosys), (REFUSED, eperm)):
        for pair in numbers.values():
            if pair[column] >= 0:
                code += [_op(_JEQ, pair[column], 0, 1), _op(_RET, answer)]
    code += [
        _op(_JEQ, CLONE[column], 0, 4),
        _op(_LD, _ARG0_LOW),
        _op(_JSET, CLONE_NAMESPACES, 0, 1),
        _op(_RET, eperm),
        _op(_RET, _ALLOW),
        _op(_JEQ, SOCKET[column], 0, 5),
        _op(_LD, _ARG0_LOW),
        _op(_JEQ, _AF_ALG, 1, 0),
        _op(_JEQ, _AF_VSOCK, 0, 1),
        _op(_RET, _ERRNO | errno.EAFNOSUPPORT),
        _op(_RET, _ALLOW),
        _op(_JEQ, IOCTL[column], 0, 5),
        _op(_LD, _ARG1_LOW),
        _op(_JEQ, _TIOCSTI, 1, 0),
        _op(_JEQ, _TIOCLINUX, 0, 1),
        _op(_RET, eperm),
        _op(_RET, _ALLOW),
        _op(_JEQ, PRLIMIT64[column], 0, 3),
        _op(_LD, _ARG0_LOW),
        _op(_JEQ, 1, 0, 1),  # PID 1 is ours, and root inside could take its descriptors from it.
        _op(_RET, eperm),
        _op(_RET, _ALLOW),
    ]
    return b"".join(code)


def _op(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    # struct sock_filter: code, jump if true, jump if false, value.
    return struct.pack("HBBI", code, then, otherwise, value)
