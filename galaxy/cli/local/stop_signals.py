"""Signals that stop a cluster, with the process that sent them (signalfd(2)).

Python's own handlers do not learn who sent a signal. They stay in place for signals that arrive
while these are not blocked: children must not inherit blocked signals.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
COMMAND_LENGTH_MAX: Final = 200
_NONBLOCK_CLOEXEC: Final = os.O_NONBLOCK | os.O_CLOEXEC
_SIGSET_BYTES: Final = 128
_INFO: Final = struct.Struct("IiiII108x")
"""struct signalfd_siginfo: signal, errno, code, pid and uid of the sender, and the rest of 128 bytes."""


class StopSignals:
    """Receives ``STOP_SIGNALS`` while they are blocked; ``fd`` is readable when one is pending."""

    def __init__(self) -> None:
        mask = (ctypes.c_uint8 * _SIGSET_BYTES)()
        for number in STOP_SIGNALS:
            mask[(number - 1) // 8] |= 1 << (number - 1) % 8
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = libc.signalfd(-1, ctypes.byref(mask), _NONBLOCK_CLOEXEC)
        if self.fd < 0:
            error = ctypes.get_errno()
            raise OSError(error, f"signalfd: {os.strerror(error)}")

    def close(self) -> None:
        os.close(self.fd)

    def block(self) -> None:
        """Block the signals, so that they arrive at ``fd``."""
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def unblock(self) -> None:
        """Leave the signals to Python's handlers."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    @contextlib.contextmanager
    def unblocked(self) -> Iterator[None]:
        """Leave the signals to Python's handlers during a fork, because children inherit blocked ones."""
        before = signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def read(self) -> str:
        """Return a description of the first signal that arrived and of its sender; empty without one."""
        try:
            data = os.read(self.fd, _INFO.size)
        except BlockingIOError:
            return ""
        number, _, _, pid, uid = _INFO.unpack(data)
        return f"{signal.Signals(number).name} from {_process(pid, uid)}"


def _process(pid: int, uid: int) -> str:
    """Describe the sender of a signal; it may have ended already."""
    if not pid:
        return "the kernel, or a process outside of this pid namespace"
    command = ""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        command = b" ".join(words).decode(errors="replace").strip()[:COMMAND_LENGTH_MAX]
    return f"process {pid} of {_user(uid)}" + (f": {command}" if command else "")


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
