"""Set what a process inherits from its starter to documented values.

``docs/operations.md`` lists them (Inherited state). The parts of a cluster and the launcher call ``reset``
where they start; so everything that the launcher forks has these values too. Programs get ``PROGRAM_LIMITS``.

Not changed: CPU affinity (a part offers the cores that it may use), user, groups and capabilities.
Sources: getrlimit(2), signal(7), sched(7), ioprio_set(2), prctl(2), personality(2), proc(5).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import threading
from collections.abc import Mapping
from typing import Final

from galaxy.units import MIB

UMASK: Final = 0o022
UNLIMITED: Final = resource.RLIM_INFINITY
NUMBERS: Final[dict[str, int]] = {
    "as": resource.RLIMIT_AS,
    "core": resource.RLIMIT_CORE,
    "cpu": resource.RLIMIT_CPU,
    "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE,
    "locks": 10,  # RLIMIT_LOCKS, which Python does not name; Linux ignores it.
    "memlock": resource.RLIMIT_MEMLOCK,
    "msgqueue": resource.RLIMIT_MSGQUEUE,
    "nice": resource.RLIMIT_NICE,
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "rss": resource.RLIMIT_RSS,
    "rtprio": resource.RLIMIT_RTPRIO,
    "rttime": resource.RLIMIT_RTTIME,
    "sigpending": resource.RLIMIT_SIGPENDING,
    "stack": resource.RLIMIT_STACK,
}
"""The kernel's number of each resource limit, by the name that ``ulimits`` of a job file has."""

PROGRAM_LIMITS: Final[dict[str, tuple[int, int]]] = {
    "as": (UNLIMITED, UNLIMITED),
    "core": (256 * MIB, UNLIMITED),
    "cpu": (UNLIMITED, UNLIMITED),
    "data": (UNLIMITED, UNLIMITED),
    "fsize": (UNLIMITED, UNLIMITED),
    "locks": (UNLIMITED, UNLIMITED),
    "memlock": (8 * MIB, 8 * MIB),
    "msgqueue": (819_200, 819_200),
    "nice": (0, 0),
    "nofile": (65_536, 524_288),
    "nproc": (UNLIMITED, UNLIMITED),
    "rss": (UNLIMITED, UNLIMITED),
    "rtprio": (0, 0),
    "rttime": (UNLIMITED, UNLIMITED),
    "stack": (8 * MIB, UNLIMITED),
}
"""Soft and hard limits of programs, where the agent may give as much. ``sigpending`` is the kernel's own."""

_NOT_RAISED: Final = ("nice", "rtprio", "sigpending")
"""Limits that stay as they are: with a higher one a program could take the CPU from all others."""
_STACK_BYTES: Final = 8 * MIB
_NR_OPEN: Final = "/proc/sys/fs/nr_open"
_TIMER_SLACK_NS: Final = 50_000
_COREDUMP_FILTER: Final = "0x33"
_IOPRIO_WHO_PROCESS: Final = 1
_SYS_IOPRIO_SET: Final = 251 if platform.machine() == "x86_64" else 30
_PR_SET_TIMERSLACK: Final = 29
_PR_SET_THP_DISABLE: Final = 41
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def reset(*, nice: int = 0) -> None:
    """Set what this process has inherited to the documented values, as far as this user may.

    Limits are raised as far as possible: containers can get no more than their launcher has.
    """
    os.umask(UMASK)
    reset_signals()
    for name in NUMBERS:
        raise_limit(name)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with contextlib.suppress(OSError):  # Without root a niced process stays niced.
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    for path, value in (("oom_score_adj", "0"), ("coredump_filter", _COREDUMP_FILTER)):
        with contextlib.suppress(OSError):
            _write(f"/proc/self/{path}", value)
    _LIBC.syscall(_SYS_IOPRIO_SET, _IOPRIO_WHO_PROCESS, 0, 0)
    _LIBC.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(_TIMER_SLACK_NS), 0, 0, 0)
    _LIBC.prctl(_PR_SET_THP_DISABLE, ctypes.c_ulong(0), 0, 0, 0)
    _LIBC.personality(0)


def reset_signals() -> None:
    """Unblock every signal, and stop ignoring those that the starter of this process has ignored.

    Python's own choices stay: it ignores SIGPIPE and SIGXFSZ, and turns SIGINT into an exception.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in signal.valid_signals():
        if number in (signal.SIGPIPE, signal.SIGXFSZ):
            continue
        if signal.getsignal(number) is signal.SIG_IGN:
            is_interrupt = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def raise_limit(name: str) -> None:
    """Raise one limit of this process as far as it may: the hard limit, and the soft limit to it.

    Two soft limits are not raised: ``stack``, which programs interpret as the size of each thread's stack,
    is 8 MiB, and ``core`` is 0 for Galaxy's own processes.
    """
    number = NUMBERS[name]
    _, hard = resource.getrlimit(number)
    wanted = _open_files_max() if name == "nofile" else UNLIMITED
    if name not in _NOT_RAISED and at_most(hard, wanted) != wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(number, (hard, wanted))
            hard = wanted
    soft = {"stack": at_most(_STACK_BYTES, hard), "core": 0}.get(name, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(number, (soft, hard))


def ceilings() -> dict[str, int]:
    """Return the hard limits of this process, the highest that it can set; -1 means unlimited."""
    return {name: resource.getrlimit(number)[1] for name, number in NUMBERS.items()}


def shortfalls() -> dict[str, tuple[int, int]]:
    """Return the limits whose documented hard value cannot be set: that value, and the highest possible."""
    most = ceilings()
    return {
        name: (hard, most[name])
        for name, (_, hard) in PROGRAM_LIMITS.items()
        if at_most(hard, most[name]) != hard
    }


def limit_program(own: Mapping[str, tuple[int, int]]) -> None:
    """Set the limits of a program in this process: ``own``, and the documented ones for the others.

    Raises:
        OSError: a limit of ``own`` is higher than this process can set.
    """
    for name, (soft, hard) in PROGRAM_LIMITS.items():
        if name not in own:
            ceiling = resource.getrlimit(NUMBERS[name])[1]
            hard = at_most(hard, ceiling)
            resource.setrlimit(NUMBERS[name], (at_most(soft, hard), hard))
    for name, (soft, hard) in own.items():
        try:
            resource.setrlimit(NUMBERS[name], (soft, hard))
        except ValueError as error:
            raise OSError(0, f"ulimits.{name} cannot be {soft}:{hard}: {error}") from error


def at_most(value: int, ceiling: int) -> int:
    """Return the lower of two limits; -1 means unlimited."""
    if UNLIMITED in (value, ceiling):
        return ceiling if value == UNLIMITED else value
    return min(value, ceiling)


def _open_files_max() -> int:
    """Return the most that the kernel lets any process have open."""
    try:
        with open(_NR_OPEN) as file:
            return int(file.read())
    except (OSError, ValueError):
        return 1 << 20


def _write(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
