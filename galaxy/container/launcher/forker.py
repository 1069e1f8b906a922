"""A child process of the launcher that forks for it, so that fork never copies the launcher's own pages.

After a fork, the first write to each page copies it (copy-on-write). If the launcher itself forked warm
processes, the next launch would pay for those copies. A child that the forker creates is nevertheless a
child of the launcher (CLONE_PARENT), which can therefore wait for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from typing import Final, NoReturn

from galaxy.container.kernel import prctl, syscalls

ANSWER_TIMEOUT_S: Final = 5.0
_PACKET_BYTES_MAX: Final = 256 * 1024
_CAUSE_BYTES_MAX: Final = 1024

ChildMain = Callable[[bytes, socket.socket], NoReturn]
"""What a forked child runs, with the request and the socket that were given to ``Forker.fork``."""


class Forker:
    """The launcher's interface to the forker process, which is started on first use and after it has died."""

    def __init__(self, child_main: ChildMain, prepare: Callable[[], None]) -> None:
        self._child_main = child_main
        self._prepare = prepare
        self._pid = 0
        self._sock: socket.socket | None = None

    def fork(self, request: bytes, sock: socket.socket) -> int:
        """Fork a child of this process, PID 1 of a new PID namespace, that runs ``child_main``.

        Raises:
            OSError: no child was created; the forker is closed, unless only its fork(2) failed.
        """
        if self._sock is None:
            self._start()
        assert self._sock is not None
        try:
            socket.send_fds(self._sock, [request], [sock.fileno()])
            answer = self._sock.recv(_CAUSE_BYTES_MAX)
        except OSError as error:
            cause = receive_cause(self._sock)
            self.close()
            message = cause.decode(errors="replace") or f"the forker does not answer: {error}"
            raise OSError(error.errno, message) from error
        if not answer.removeprefix(b"-").isdigit():
            self.close()
            raise OSError(0, answer.decode(errors="replace") or "the forker died")
        if (pid := int(answer)) < 0:
            raise OSError(-pid, f"the forker could not fork: {os.strerror(-pid)}")
        return pid

    def close(self) -> None:
        """End the forker process; its forked children are not affected."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        if self._pid:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._pid, signal.SIGKILL)  # An unreaped child: its pid cannot have been reused.
                os.waitpid(self._pid, 0)
            self._pid = 0

    def on_child_exit(self, pid: int) -> None:
        """Close the forker if the child that was reaped is the forker process."""
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
        ours.settimeout(ANSWER_TIMEOUT_S)
        self._sock = ours

    def _serve(self, sock: socket.socket) -> NoReturn:
        try:
            self._prepare()
            prctl.set_process_name("galaxy-forker")
            syscalls.close_all_but((0, 1, 2, sock.fileno()))
            while True:
                request, fds, _, _ = socket.recv_fds(sock, _PACKET_BYTES_MAX, 1)
                if not request:
                    os._exit(0)  # The launcher is gone.
                try:
                    pid = syscalls.fork_sibling()
                except OSError as error:
                    pid = -(error.errno or 1)
                if pid == 0:
                    sock.close()
                    self._child_main(request, socket.socket(fileno=fds[0]))
                os.close(fds[0])
                sock.send(str(pid).encode())
        except BaseException as error:  # noqa: BLE001 - the last frame of this process
            send_cause(sock, error)
        finally:
            os._exit(1)


def send_cause(sock: socket.socket, error: BaseException) -> bool:
    """Send the launcher the reason why this process ends; return whether it was delivered.

    The launcher logs the cause, once, instead of every process that fails for the same reason.
    """
    text = f"{type(error).__name__}: {error}".encode(errors="replace")[:_CAUSE_BYTES_MAX]
    try:
        return bool(sock.send(text, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL))
    except OSError:
        return False


def receive_cause(sock: socket.socket) -> bytes:
    """Return the next message that the other end sent, without waiting; empty if there is none."""
    try:
        return sock.recv(_CAUSE_BYTES_MAX, socket.MSG_DONTWAIT)
    except OSError:
        return b""
