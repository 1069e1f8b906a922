"""A child of the launcher that forks for it, so that the launcher's own memory is never shared anew.

After a fork every page that the forker writes to is copied first; in the launcher that would be on
the way of the next launch. What the nursery forks is the launcher's child all the same (CLONE_PARENT).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from typing import Final, NoReturn

from galaxy.container.kernel import prctl, syscalls

ANSWER_S: Final = 5.0
_PACKET_MAX: Final = 256 * 1024
_WORDS_MAX: Final = 1024

Newborn = Callable[[bytes, socket.socket], NoReturn]


class Forker:
    """The launcher's side; the child is started when it is first needed, and again when it has died."""

    def __init__(self, newborn: Newborn, prepare: Callable[[], None]) -> None:
        self._newborn = newborn
        self._prepare = prepare
        self._pid = 0
        self._sock: socket.socket | None = None

    def fork(self, words: bytes, sock: socket.socket) -> int:
        """Have a child of ours forked, PID 1 of its PID namespace, that is ``newborn(words, sock)``.

        Raises:
            OSError: there is none; what there was of the nursery is gone.
        """
        if self._sock is None:
            self._start()
        assert self._sock is not None
        try:
            socket.send_fds(self._sock, [words], [sock.fileno()])
            said = self._sock.recv(_WORDS_MAX)
        except OSError as error:
            said = last_words(self._sock)
            self.close()
            raise OSError(error.errno, said.decode(errors="replace") or f"no nursery: {error}") from error
        if not said.removeprefix(b"-").isdigit():
            self.close()
            raise OSError(0, said.decode(errors="replace") or "the nursery died")
        if (pid := int(said)) < 0:
            raise OSError(-pid, f"the nursery could not fork: {os.strerror(-pid)}")
        return pid

    def close(self) -> None:
        """End the nursery; what it has forked is not concerned."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        if self._pid:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._pid, signal.SIGKILL)  # Our child, unreaped: the pid is still its own.
                os.waitpid(self._pid, 0)
            self._pid = 0

    def forget(self, pid: int) -> None:
        """Take in that a child of ours was reaped; it may have been the nursery."""
        if pid == self._pid:
            self._pid = 0
            self.close()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._pid = os.fork()
            if self._pid == 0:
                self._serve(theirs)
        finally:
            theirs.close()
        ours.settimeout(ANSWER_S)
        self._sock = ours

    def _serve(self, sock: socket.socket) -> NoReturn:
        try:
            self._prepare()
            prctl.set_process_name("galaxy-nursery")
            syscalls.close_all_but((0, 1, 2, sock.fileno()))
            while True:
                words, fds, _, _ = socket.recv_fds(sock, _PACKET_MAX, 1)
                if not words:
                    os._exit(0)  # The launcher is gone.
                try:
                    pid = syscalls.fork_sibling()
                except OSError as error:
                    pid = -(error.errno or 1)
                if pid == 0:
                    sock.close()
                    self._newborn(words, socket.socket(fileno=fds[0]))
                os.close(fds[0])
                sock.send(str(pid).encode())
        except BaseException as error:  # noqa: BLE001 - the last frame of this process
            confess(sock, error)
        finally:
            os._exit(1)


def confess(sock: socket.socket, error: BaseException) -> bool:
    """Tell the launcher, which says it once, why we must end; return whether it listens."""
    words = f"{type(error).__name__}: {error}".encode(errors="replace")[:_WORDS_MAX]
    try:
        return bool(sock.send(words, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL))
    except OSError:
        return False


def last_words(sock: socket.socket) -> bytes:
    """Return what ``confess`` said at the other end, empty if it said nothing."""
    try:
        return sock.recv(_WORDS_MAX, socket.MSG_DONTWAIT)
    except OSError:
        return b""
