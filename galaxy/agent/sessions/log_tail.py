"""A task's output as a stream: the last lines, the previous run's, and what comes after."""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import os
import re
import select
import struct
from pathlib import Path
from typing import Final

from galaxy.errors import BadMessage
from galaxy.model.base import decode
from galaxy.model.messages.log_files import STREAMS, RunIndex, base_of, index_name, pieces, run_span

BLOCK_BYTES: Final = 64 * 1024
FILES_MAX: Final = 100
_STREAM: Final = re.compile(r"(?P<task>[a-z][a-z0-9-]{0,31})\.(?P<stream>stdout|stderr)")
_IN_MODIFY, _IN_CREATE, _IN_MOVED_TO, _IN_DELETE_SELF = 0x2, 0x100, 0x80, 0x400
_IN_NONBLOCK, _IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC


class StreamFiles:
    """One stream of one task in a log directory, addressed by position (``logfiles``)."""

    def __init__(self, directory: Path, task: str, stream: str) -> None:
        self.task = task
        self.stream = stream
        self._directory = directory

    def read(self, start: int, end: int | None = None, limit: int = BLOCK_BYTES) -> tuple[int, bytes]:
        """Return up to ``limit`` bytes from position ``start`` on, and the position after them.

        What rotation has dropped is passed over. A rotation under our hands is noticed by the
        index and read again.
        """
        for _ in range(4):
            index, found = self._index(), self._files()
            parts = pieces(found, base_of(index, self.stream), start, end)
            if not parts:
                return start, b""
            base, piece = base_of(index, self.stream), parts[0]
            data = self._piece(piece.name, piece.start, min(piece.length, limit))
            if data is not None and self._index() == index:
                return _position(found, base, piece.name) + piece.start + len(data), data
        return start, b""

    def end(self) -> int:
        """Return the position after the last byte written."""
        found = self._files()
        return base_of(self._index(), self.stream) + (found[0][1] if found else 0)

    def begin(self) -> int:
        """Return the position of the oldest byte that is still there."""
        found = self._files()
        return base_of(self._index(), self.stream) - sum(size for _, size in found[1:])

    def run(self, back: int) -> tuple[int, int | None] | None:
        """Return the positions of the latest run's output, or of the one ``back`` before it."""
        return run_span(self._index(), self.stream, back=back)

    def last_lines(self, count: int, start: int, end: int) -> int:
        """Return the position at which the last ``count`` lines before ``end`` begin; -1 is all."""
        if count < 0:
            return start
        if count == 0:
            return end
        wanted, at = count, end
        while at > start:
            low = max(start, at - BLOCK_BYTES)
            block = self._block(low, at)
            lines = block.count(b"\n", 0, len(block) - (1 if at == end and block.endswith(b"\n") else 0))
            if lines >= wanted:
                cut = len(block) - (1 if at == end and block.endswith(b"\n") else 0)
                for _ in range(wanted):
                    cut = block.rfind(b"\n", 0, cut)
                return at - len(block) + cut + 1
            wanted -= lines
            at = low
        return start

    def _block(self, low: int, high: int) -> bytes:
        data, at = b"", low
        while at < high:
            after, more = self.read(at, high)
            if not more:
                break
            data, at = data + more, after
        return data

    def _index(self) -> RunIndex:
        try:
            return decode((self._directory / index_name(self.task)).read_bytes(), RunIndex)
        except (OSError, BadMessage):
            return RunIndex()

    def _files(self) -> list[tuple[str, int]]:
        """Return name and size of the files there are, newest first."""
        found = []
        for age in range(FILES_MAX):
            name = f"{self.task}.{self.stream}" + (f".{age}" if age else "")
            try:
                found.append((name, os.lstat(self._directory / name).st_size))
            except OSError:
                if age:
                    break
                found.append((name, 0))
        return found

    def _piece(self, name: str, start: int, length: int) -> bytes | None:
        try:
            fd = os.open(self._directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return os.pread(fd, length, start)
        finally:
            os.close(fd)


def _position(newest_first: list[tuple[str, int]], base: int, name: str) -> int:
    at = base
    for age, (other, size) in enumerate(newest_first):
        at -= size if age else 0
        if other == name:
            break
    return at


def streams_in(directory: Path, task: str = "", stream: str = "") -> list[StreamFiles]:
    """Return the streams that a log directory holds, by task, stdout first."""
    found = []
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(directory)):
            match = _STREAM.fullmatch(name)
            if match and task in ("", match["task"]) and stream in ("", match["stream"]):
                found.append((match["task"], STREAMS.index(match["stream"]), match["stream"]))
    return [StreamFiles(directory, name, kind) for name, _, kind in sorted(found)]


def lives_in(logs: Path, container: str) -> list[tuple[int, Path]]:
    """Return the incarnations of a container that have left logs, and where; newest first."""
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(logs):
            stem, _, incarnation = name.rpartition("_")
            if stem == container and incarnation.isdecimal():
                found.append((int(incarnation), logs / name))
    return sorted(found, reverse=True)


class Lines:
    """Turns bytes into text for people: whole characters, and whole lines where possible."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def add(self, data: bytes) -> str:
        """Return the lines that are complete now; a line beyond a block is given in pieces."""
        text = self._rest + self._decoder.decode(data)
        whole, newline, rest = text.rpartition("\n")
        if len(rest) > BLOCK_BYTES:
            whole, newline, rest = text, "", ""
        self._rest = rest
        return whole + newline

    def rest(self) -> str:
        """Return what is left when nothing more comes, or nothing has come for a while."""
        text, self._rest = self._rest + self._decoder.decode(b"", final=True), ""
        self._decoder.reset()
        return text


class DirectoryWatch:
    """Wakes when something in a directory changes, by inotify(7); also awaits other descriptors."""

    def __init__(self, directory: Path) -> None:
        """Begin to watch.

        Raises:
            OSError: the host's inotify instances or watches are used up, or it is not there.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        mask = _IN_MODIFY | _IN_CREATE | _IN_MOVED_TO | _IN_DELETE_SELF
        if libc.inotify_add_watch(self._fd, os.fsencode(directory), ctypes.c_uint32(mask)) < 0:
            number = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(number, f"inotify_add_watch {directory}: {os.strerror(number)}")

    def wait(self, timeout_s: float) -> bool:
        """Return True at once when something changed since the last call, False after ``timeout_s``."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if not poll.poll(int(timeout_s * 1000)):
            return False
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._fd, 4096)) >= 4096 - struct.calcsize("iIII") - 256:
                continue
        return True

    def close(self) -> None:
        os.close(self._fd)
