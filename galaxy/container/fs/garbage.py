"""Slow removal off the critical path: directories are renamed away, and a low-priority child deletes them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from typing import Final, NoReturn

from galaxy.container.kernel import prctl, syscalls
from galaxy.statemachine.backoff import Retry

_ROUND: Final = b"R"
_CLEAN: Final = b"C"
_LEFT: Final = b"L"
_MORE: Final = b"M"
"""What was there when the round began is gone, and there is other garbage."""
_RETRY_FIRST_S: Final = 1.0
_RETRY_MAX_S: Final = 60.0
_TRIES_MAX: Final = 10
_NICE: Final = 10
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def discard(directory: str, garbage: str) -> None:
    """Move ``directory`` out of sight at once; one that is not there is fine."""
    os.makedirs(garbage, mode=0o700, exist_ok=True)
    target = f"{garbage}/{os.path.basename(directory)}.{os.urandom(4).hex()}"
    with contextlib.suppress(FileNotFoundError):
        os.rename(directory, target)


def has_garbage(garbage: str) -> bool:
    try:
        with os.scandir(garbage) as entries:
            return next(entries, None) is not None
    except FileNotFoundError:
        return False


def _names(garbage: str) -> set[str]:
    try:
        return set(os.listdir(garbage))
    except FileNotFoundError:
        return set()


class Janitor:
    """A child that deletes what is in ``garbage`` whenever it is told to.

    It stays: to fork one for each time would have the launcher's memory copied, page by page, on the
    way of the next launch. A round that fails, or leaves something, is followed by others, ever more
    rarely, and after a while only when there is new garbage.
    """

    def __init__(self, garbage: str) -> None:
        self._garbage = garbage
        self._sock: socket.socket | None = None
        self._wanted = False
        self._told = False
        self._retry = Retry(first_s=_RETRY_FIRST_S, max_s=_RETRY_MAX_S, tries_max=_TRIES_MAX)
        self.busy = False

    def litter(self) -> None:
        """Take in that there may be garbage."""
        self._wanted = True
        self._retry.try_now()

    def wait_s(self, now: float) -> float | None:
        """Return in how many seconds a round is due, None if none is, or one is under way."""
        return self._retry.wait_s(now) if self._wanted and not self.busy else None

    def fileno(self) -> int:
        """Return what is readable when a round is done, or the child is gone; -1 before the first."""
        return -1 if self._sock is None else self._sock.fileno()

    def start(self) -> None:
        """Begin a round, if there is garbage; ``done`` ends it.

        Raises:
            OSError: it could not begin; it is due again in a while.
        """
        try:
            if not has_garbage(self._garbage):
                self._succeeded()
                return
            if self._sock is None:
                self._fork()
            assert self._sock is not None
            self._sock.send(_ROUND, socket.MSG_NOSIGNAL)
        except OSError as error:
            self.failed(str(error))
            raise
        self.busy = True

    def done(self) -> bool:
        """Take in how a round has ended; return False if the child is gone."""
        try:
            said = self._sock.recv(1) if self._sock is not None else b""
        except OSError:
            said = b""
        was_busy, self.busy = self.busy, False
        if said == _CLEAN:
            self._succeeded()
        elif said == _MORE:
            self._retry.succeeded()
        elif was_busy:
            self.failed("it resists" if said else "the janitor died")
        return bool(said)

    def failed(self, cause: str) -> None:
        """Take in that a round has come to nothing."""
        self.busy = False
        self._retry.failed(time.monotonic())
        if self._retry.given_up and not self._told:
            self._told = True  # Once, however often new garbage has it tried again.
            os.write(2, f"event=garbage.stays directory={self._garbage!r} cause={cause!r}\n".encode())

    def close(self) -> None:
        """Let the child go; it ends with its round."""
        self.busy = False
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _succeeded(self) -> None:
        self._wanted = self._told = False
        self._retry.succeeded()

    def _fork(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                if os.fork() == 0:
                    _clean(self._garbage, theirs)
            except OSError:
                ours.close()
                raise
        self._sock = ours


def _clean(garbage: str, sock: socket.socket) -> NoReturn:
    """Be the janitor, until nobody is at the other end."""
    try:
        signal.set_wakeup_fd(-1)
        prctl.set_process_name("galaxy-janitor")
        syscalls.close_all_but((0, 1, 2, sock.fileno()))
        os.nice(_NICE)
        while sock.recv(1):
            before = _names(garbage)
            delete_within(garbage)
            after = _names(garbage)
            said = _LEFT if before & after else _MORE if after else _CLEAN
            sock.send(said, socket.MSG_NOSIGNAL)
    except BrokenPipeError:
        pass  # The launcher is gone.
    except BaseException as error:  # noqa: BLE001 - the last frame of this process
        os.write(2, f"event=janitor.failed cause={str(error)!r}\n".encode())
    finally:
        os._exit(0)


def delete_within(directory: str) -> None:
    """Delete what is in ``directory``, never following a link; what resists stays for the next time.

    A directory below another is first moved up to ``directory``: so depth costs neither a long path
    nor descriptors.
    """
    try:
        top = os.open(directory, _DIRECTORY)
    except OSError:
        return
    waiting: list[str] = []
    try:
        with contextlib.suppress(OSError):
            waiting += _empty(top)
        while waiting:
            name = waiting.pop()
            with contextlib.suppress(OSError):
                inside = os.open(name, _DIRECTORY, dir_fd=top)
                try:
                    os.fchmod(inside, 0o700)  # Without root's rights what is read-only would resist.
                    waiting += _lift(_empty(inside), inside, top)
                finally:
                    os.close(inside)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)


def _empty(directory: int) -> list[str]:
    """Delete what is no directory in an open ``directory``; return the names of what is one."""
    with os.scandir(directory) as entries:
        children = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in children:
        if not is_directory:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=directory)
    return [name for name, is_directory in children if is_directory]


def _lift(names: list[str], source: int, top: int) -> list[str]:
    """Move directories from one open directory up to another, unless they are empty: those are deleted.

    Returns the names of those that have moved.
    """
    moved = []
    for name in names:
        there = os.urandom(12).hex()
        try:
            os.rmdir(name, dir_fd=source)
        except OSError:
            with contextlib.suppress(OSError):
                _make_writable(name, source)
                os.rename(name, there, src_dir_fd=source, dst_dir_fd=top)
                moved.append(there)
    return moved


def _make_writable(name: str, source: int) -> None:
    """Give a directory the right that its owner needs to move it."""
    fd = os.open(name, _DIRECTORY, dir_fd=source)
    try:
        os.fchmod(fd, 0o700)
    finally:
        os.close(fd)
