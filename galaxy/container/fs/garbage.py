"""Removal of directories off the critical path: they are renamed away, and a child process deletes them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from typing import Final, NoReturn

from galaxy.container.kernel import prctl, syscalls
from galaxy.statemachine.backoff import Retry

_START_ROUND: Final = b"R"
_CLEAN: Final = b"C"
_LEFT: Final = b"L"
"""Something that was there when the round began could not be deleted."""
_MORE: Final = b"M"
"""Everything that was there when the round began is deleted, and there is new garbage."""
_RETRY_FIRST_S: Final = 1.0
_RETRY_S_MAX: Final = 60.0
_TRIES_MAX: Final = 10
_NICE: Final = 10
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def discard(directory: str, garbage: str) -> None:
    """Move ``directory``, if it exists, into ``garbage`` at once."""
    os.makedirs(garbage, mode=0o700, exist_ok=True)
    target = f"{garbage}/{os.path.basename(directory)}.{os.urandom(4).hex()}"
    with contextlib.suppress(FileNotFoundError):
        os.rename(directory, target)


def has_garbage(garbage: str) -> bool:
    """Return whether there is anything to delete in ``garbage``."""
    try:
        with os.scandir(garbage) as entries:
            return next(entries, None) is not None
    except FileNotFoundError:
        return False


class GarbageCleaner:
    """A child process that deletes the contents of ``garbage``, in rounds that this process starts.

    The child stays for all rounds: a fork for each would make the launcher copy its pages during the next
    launch. A round that fails, or leaves something, is repeated after waits that double. After
    ``_TRIES_MAX`` such rounds the next one waits for new garbage.
    """

    def __init__(self, garbage: str) -> None:
        self._garbage = garbage
        self._sock: socket.socket | None = None
        self._requested = False
        self._is_logged = False
        self._retry = Retry(first_s=_RETRY_FIRST_S, max_s=_RETRY_S_MAX, tries_max=_TRIES_MAX)
        self.busy = False

    def request(self) -> None:
        """Ask for a round as soon as possible: there may be new garbage."""
        self._requested = True
        self._retry.try_now()

    def wait_s(self, now: float) -> float | None:
        """Return in how many seconds a round is due; None if none is requested, or one is in progress."""
        return self._retry.wait_s(now) if self._requested and not self.busy else None

    def fileno(self) -> int:
        """Return a descriptor that is readable when a round ends or the child dies; -1 without a child."""
        return -1 if self._sock is None else self._sock.fileno()

    def start(self) -> None:
        """Start a round if there is garbage; ``finish`` reads its result.

        Raises:
            OSError: the round could not start; another is due later.
        """
        try:
            if not has_garbage(self._garbage):
                self._succeeded()
                return
            if self._sock is None:
                self._fork()
            assert self._sock is not None
            self._sock.send(_START_ROUND, socket.MSG_NOSIGNAL)
        except OSError as error:
            self.failed(str(error))
            raise
        self.busy = True

    def finish(self) -> bool:
        """Read the result of a round; return False if the child is gone."""
        try:
            result = self._sock.recv(1) if self._sock is not None else b""
        except OSError:
            result = b""
        was_busy, self.busy = self.busy, False
        if result == _CLEAN:
            self._succeeded()
        elif result == _MORE:
            self._retry.succeeded()
        elif was_busy:
            self.failed("it cannot be deleted" if result else "the cleaner died")
        return bool(result)

    def failed(self, cause: str) -> None:
        """Record that a round failed."""
        self.busy = False
        self._retry.failed(time.monotonic())
        if self._retry.given_up and not self._is_logged:
            self._is_logged = True  # Not again when new garbage causes another round.
            os.write(2, f"event=garbage.stays directory={self._garbage!r} cause={cause!r}\n".encode())

    def close(self) -> None:
        """Disconnect from the child, which exits after its current round."""
        self.busy = False
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _succeeded(self) -> None:
        self._requested = self._is_logged = False
        self._retry.succeeded()

    def _fork(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                if os.fork() == 0:
                    _run_cleaner(self._garbage, theirs)
            except OSError:
                ours.close()
                raise
        self._sock = ours


def _run_cleaner(garbage: str, sock: socket.socket) -> NoReturn:
    """Delete garbage on each message until the other end is closed."""
    try:
        signal.set_wakeup_fd(-1)
        prctl.set_process_name("galaxy-cleaner")
        syscalls.close_all_but((0, 1, 2, sock.fileno()))
        os.nice(_NICE)
        while sock.recv(1):
            before = _names(garbage)
            delete_within(garbage)
            after = _names(garbage)
            result = _LEFT if before & after else _MORE if after else _CLEAN
            sock.send(result, socket.MSG_NOSIGNAL)
    except BrokenPipeError:
        pass  # The launcher is gone.
    except BaseException as error:  # noqa: BLE001 - the last frame of this process
        os.write(2, f"event=cleaner.failed cause={str(error)!r}\n".encode())
    finally:
        os._exit(0)


def _names(garbage: str) -> set[str]:
    try:
        return set(os.listdir(garbage))
    except FileNotFoundError:
        return set()


def delete_within(directory: str) -> None:
    """Delete everything in ``directory`` without following links; what cannot be deleted stays.

    File systems that are mounted in it stay too, with their contents.
    A directory inside another is first moved up to ``directory``, so that a deep tree needs neither long
    paths nor many descriptors.
    """
    try:
        top = os.open(directory, _DIRECTORY)
    except OSError:
        return
    waiting: list[str] = []
    try:
        mount = _mount_of(top)
        with contextlib.suppress(OSError):
            waiting += _unlink_files(top)
        while waiting:
            name = waiting.pop()
            with contextlib.suppress(OSError):
                inside = os.open(name, _DIRECTORY, dir_fd=top)
                try:
                    if _mount_of(inside) != mount:
                        continue
                    os.fchmod(inside, 0o700)  # Without root a read-only directory could not be emptied.
                    waiting += _move_up(_unlink_files(inside), inside, top, mount)
                finally:
                    os.close(inside)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)


def _mount_of(directory: int) -> bytes:
    """Return the id of the mount that an open directory is on (proc_pid_fdinfo(5))."""
    fd = os.open(f"/proc/self/fdinfo/{directory}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        lines = os.read(fd, 4096).splitlines()
    finally:
        os.close(fd)
    return next((line for line in lines if line.startswith(b"mnt_id:")), b"")


def _unlink_files(directory: int) -> list[str]:
    """Delete everything but directories in an open ``directory``; return the names of the directories."""
    with os.scandir(directory) as entries:
        children = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in children:
        if not is_directory:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=directory)
    return [name for name, is_directory in children if is_directory]


def _move_up(names: list[str], source: int, top: int, mount: bytes) -> list[str]:
    """Move directories from one open directory to another, deleting empty ones; return their new names."""
    moved = []
    for name in names:
        new_name = os.urandom(12).hex()
        try:
            os.rmdir(name, dir_fd=source)
        except OSError:
            with contextlib.suppress(OSError):
                _make_writable(name, source, mount)
                os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=top)
                moved.append(new_name)
    return moved


def _make_writable(name: str, source: int, mount: bytes) -> None:
    """Give a directory the permission that its owner needs to move it, unless something is mounted there."""
    fd = os.open(name, _DIRECTORY, dir_fd=source)
    try:
        if _mount_of(fd) == mount:
            os.fchmod(fd, 0o700)
    finally:
        os.close(fd)
