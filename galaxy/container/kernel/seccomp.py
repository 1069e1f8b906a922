"""The seccomp filter of programs: an allow-list as a BPF program, for x86_64 and aarch64.

A call that is not in ``allowed_syscalls.ALLOWED`` fails: with EPERM when the kernel knows its number, with
ENOSYS when it does not, so that libc falls back to an older call. Calls of another architecture
(i386 on x86_64) kill the process, since their numbers mean other calls.

The program finds a number by binary search over ranges of numbers with the same answer, about eight
comparisons per call. Source: seccomp(2), kernel userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import errno
import platform
import struct
from itertools import pairwise
from typing import Final

from galaxy.container.kernel.allowed_syscalls import ALLOWED, ASSIGNED

MACHINES: Final = ("x86_64", "aarch64")
"""The machine types (uname -m) that have a filter, in the order of the columns of ``ALLOWED``."""

NO_SUCH_CALL: Final[dict[str, tuple[int, int]]] = {
    "clone3": (435, 435), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}  # fmt: skip
"""Calls answered with ENOSYS, because their callers fall back to other calls.

``clone3`` passes its flags in memory, where a filter cannot see them; libc then uses ``clone``.
"""

CLONE_NAMESPACES: Final = 0x7E02_0000
"""Every CLONE_NEW* flag of clone(2). CLONE_NEWTIME is not a flag of clone(2)."""

_ARCHITECTURES: Final = (0xC000_003E, 0xC000_00B7)  # AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64
_AF_ALG: Final = 38
_AF_VSOCK: Final = 40
_TIOCSTI: Final = 0x5412
_TIOCLINUX: Final = 0x541C
_PERSONALITIES: Final = (0x0000_0000, 0x0000_0008, 0x0002_0000, 0x0002_0008, 0xFFFF_FFFF)
"""PER_LINUX, PER_LINUX32, both with UNAME26, and the query for the current one."""

_LD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JEQ: Final = 0x15
_JGE: Final = 0x35
_JSET: Final = 0x45
_RET: Final = 0x06
_JUMP_MAX: Final = 255

_ALLOW: Final = 0x7FFF_0000
_ERRNO: Final = 0x0005_0000
_KILL_PROCESS: Final = 0x8000_0000
_EPERM: Final = _ERRNO | errno.EPERM
_ENOSYS: Final = _ERRNO | errno.ENOSYS

# Offsets in struct seccomp_data. Only the low 32 bits of an argument are compared: the kernel itself
# truncates each argument that is checked here (int, unsigned int, or lower_32_bits of clone's flags).
_NR: Final = 0
_ARCH: Final = 4
_ARGUMENT_0: Final = 16
_ARGUMENT_1: Final = 24

Code = tuple[bytes, ...]
"""BPF instructions, 8 bytes each, that end with a return on every path."""


def program(machine: str = "") -> bytes:
    """Return the filter for ``machine`` (by default this host's type), 8 bytes per instruction.

    Empty for a machine without a filter.
    """
    machine = machine or platform.machine()
    if machine not in MACHINES:
        return b""
    column = MACHINES.index(machine)
    head = (
        _op(_LD, _ARCH),
        _op(_JEQ, _ARCHITECTURES[column], 1, 0),
        _return(_KILL_PROCESS),
        _op(_LD, _NR),
    )
    return b"".join(head + _search(_ranges(_answers(column))))


def _answers(column: int) -> dict[int, Code]:
    """Return what happens for each number that the kernel assigns; every other number gets ENOSYS."""
    answers: dict[int, Code] = {
        number: (_return(_EPERM),) for low, high in ASSIGNED[column] for number in range(low, high + 1)
    }
    conditional = _conditional()
    for name, numbers in ALLOWED.items():
        if numbers[column] >= 0:
            answers[numbers[column]] = conditional.get(name, (_return(_ALLOW),))
    for numbers in NO_SUCH_CALL.values():
        answers[numbers[column]] = (_return(_ENOSYS),)
    return answers


def _conditional() -> dict[str, Code]:
    """Return the calls whose answer depends on an argument."""
    return {
        "clone": (
            _op(_LD, _ARGUMENT_0),
            _op(_JSET, CLONE_NAMESPACES, 1, 0),
            _return(_ALLOW),
            _return(_EPERM),
        ),
        "socket": _compare(_ARGUMENT_0, (_AF_ALG, _AF_VSOCK), _ERRNO | errno.EAFNOSUPPORT, _ALLOW),
        "ioctl": _compare(_ARGUMENT_1, (_TIOCSTI, _TIOCLINUX), _EPERM, _ALLOW),
        "personality": _compare(_ARGUMENT_0, _PERSONALITIES, _ALLOW, _EPERM),
        # PID 1 is AppWorker: root inside could take away its descriptors by lowering a limit.
        "prlimit64": _compare(_ARGUMENT_0, (1,), _EPERM, _ALLOW),
    }


def _compare(offset: int, values: tuple[int, ...], equal: int, other: int) -> Code:
    """Return ``equal`` if the word at ``offset`` is one of ``values``, else ``other``."""
    last = len(values)
    tests = tuple(_op(_JEQ, value, last - index, 0) for index, value in enumerate(values))
    return (_op(_LD, offset), *tests, _return(other), _return(equal))


def _ranges(answers: dict[int, Code]) -> list[tuple[int, Code]]:
    """Merge neighbours with the same answer: (first number, answer) of each range, ascending from 0."""
    unknown: Code = (_return(_ENOSYS),)
    by_number = [(number, answers.get(number, unknown)) for number in range(max(answers) + 2)]
    changes = [after for before, after in pairwise(by_number) if before[1] != after[1]]
    return [by_number[0], *changes]


def _search(ranges: list[tuple[int, Code]]) -> Code:
    """Return a binary search for the range that holds the number in the accumulator."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    below, above = _search(ranges[:middle]), _search(ranges[middle:])
    assert len(below) <= _JUMP_MAX, "a conditional jump of classic BPF is 8 bits wide"
    return (_op(_JGE, ranges[middle][0], len(below), 0), *below, *above)


def _return(answer: int) -> bytes:
    return _op(_RET, answer)


def _op(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    # struct sock_filter: code, jump if true, jump if false, value.
    return struct.pack("HBBI", code, then, otherwise, value)
