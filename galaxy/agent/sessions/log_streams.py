"""A task's output as a stream of bytes by position, over rotated files. See ``messages.log_files``."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final

from galaxy.errors import BadMessage
from galaxy.ids import parse_container_key
from galaxy.model.base import decode
from galaxy.model.messages.log_files import STREAMS, RunIndex, base_of, index_name, pieces, run_span

BLOCK_BYTES: Final = 64 * 1024
FILES_MAX: Final = 100
_READ_TRIES: Final = 4
_STREAM: Final = re.compile(r"(?P<task>[a-z][a-z0-9-]{0,31})\.(?P<stream>stdout|stderr)")


class TaskLogStream:
    """One stream of one task in a log directory."""

    def __init__(self, directory: Path, task: str, stream: str) -> None:
        self.task = task
        self.stream = stream
        self._directory = directory

    def read(self, start: int, end: int | None = None, limit: int = BLOCK_BYTES) -> tuple[int, bytes]:
        """Return up to ``limit`` bytes from position ``start`` on, and the position after them.

        Output that rotation removed is skipped. If the index changes during the read, a rotation
        happened and the read is repeated.
        """
        for _ in range(_READ_TRIES):
            index, files = self.index(), self._files()
            base = base_of(index, self.stream)
            parts = pieces(files, base, start, end)
            if not parts:
                return start, b""
            piece = parts[0]
            data = self._read_piece(piece.name, piece.start, min(piece.length, limit))
            if data is not None and self.index() == index:
                return _position(files, base, piece.name) + piece.start + len(data), data
        return start, b""

    def end(self) -> int:
        """Return the position after the last byte written."""
        files = self._files()
        return base_of(self.index(), self.stream) + (files[0][1] if files else 0)

    def begin(self) -> int:
        """Return the position of the oldest byte still on disk."""
        files = self._files()
        return base_of(self.index(), self.stream) - sum(size for _, size in files[1:])

    def run(self, back: int) -> tuple[int, int | None] | None:
        """Return the positions of a run's output; ``back`` 0 is the latest run. See ``run_span``."""
        return run_span(self.index(), self.stream, back=back)

    def run_start(self, at_s: float) -> int:
        """Return the position at which the run that was in progress at a time began; 0 if unknown."""
        runs = [run for run in self.index().runs if run.started_s <= at_s]
        return 0 if not runs else runs[-1].stdout if self.stream == "stdout" else runs[-1].stderr

    def last_lines(self, count: int, start: int, end: int) -> tuple[int, int]:
        """Return where the last ``count`` lines before ``end`` begin, and how many lines that are.

        ``count`` -1 means all lines, which are not counted.
        """
        if count < 0:
            return start, 0
        if count == 0 or end <= start:
            return end, 0
        missing, at = count, end
        while at > start:
            low = max(start, at - BLOCK_BYTES)
            block = self.read_all(low, at)
            # The newline at the very end closes the last line; it does not begin another one.
            cut = len(block) - (1 if at == end and block.endswith(b"\n") else 0)
            newlines = block.count(b"\n", 0, cut)
            if newlines >= missing:
                for _ in range(missing):
                    cut = block.rfind(b"\n", 0, cut)
                return at - len(block) + cut + 1, count
            missing -= newlines
            at = low
        return start, count - missing + 1

    def read_all(self, low: int, high: int) -> bytes:
        """Return the bytes from position ``low`` up to ``high``, as far as rotation left them."""
        data, at = b"", low
        while at < high:
            after, more = self.read(at, high)
            if not more:
                break
            data, at = data + more, after
        return data

    def index(self) -> RunIndex:
        """Return the task's index, an empty one if there is none."""
        try:
            return decode((self._directory / index_name(self.task)).read_bytes(), RunIndex)
        except (OSError, BadMessage):
            return RunIndex()

    def _files(self) -> list[tuple[str, int]]:
        """Return name and size of the existing files, newest first; a missing current file has size 0."""
        files = []
        for age in range(FILES_MAX):
            name = f"{self.task}.{self.stream}" + (f".{age}" if age else "")
            try:
                files.append((name, os.lstat(self._directory / name).st_size))
            except OSError:
                if age:
                    break
                files.append((name, 0))
        return files

    def _read_piece(self, name: str, start: int, length: int) -> bytes | None:
        """Return part of a file; None if it cannot be opened. Programs may have put a link there."""
        try:
            fd = os.open(self._directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return os.pread(fd, length, start)
        finally:
            os.close(fd)


def streams_in(directory: Path, task: str = "", stream: str = "") -> list[TaskLogStream]:
    """Return the streams in a log directory, by task, stdout first; empty names match every one."""
    found = []
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(directory)):
            match = _STREAM.fullmatch(name)
            if match and task in ("", match["task"]) and stream in ("", match["stream"]):
                found.append((match["task"], STREAMS.index(match["stream"]), match["stream"]))
    return [TaskLogStream(directory, name, kind) for name, _, kind in sorted(found)]


def tasks_in(directory: Path, task: str = "") -> list[str]:
    """Return the tasks that have output in a log directory, in order; an empty name matches every one."""
    return sorted({stream.task for stream in streams_in(directory, task)})


def incarnations_in(logs: Path, container: str) -> list[tuple[int, Path]]:
    """Return the incarnations of a container that have logs, with their directories; newest first."""
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(logs):
            parsed = parse_container_key(name)
            if parsed is not None and parsed[0] == container:
                found.append((parsed[1], logs / name))
    return sorted(found, reverse=True)


def _position(newest_first: list[tuple[str, int]], base: int, name: str) -> int:
    """Return the position of the first byte of file ``name``."""
    at = base
    for age, (other, size) in enumerate(newest_first):
        at -= size if age else 0
        if other == name:
            break
    return at
