"""A task's output: from pipes into rotated files of limited size and number.

``galaxy.model.messages.log_files`` describes the files. Each stream has one pipe for as long as the
container exists. One callback moves at most 64 KiB, so a flood fills its pipe and slows its program
down, not AppWorker. If the host's disk is full, output is dropped and counted, and a line in the log
says so once there is room; the program is not blocked.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Final

from galaxy.model.base import encode
from galaxy.model.messages.log_files import (
    ARRIVAL_BYTES,
    ARRIVAL_STEP_S,
    ARRIVALS,
    RUN,
    RUNS_MAX,
    STREAMS,
    Run,
    RunIndex,
    file_names,
    index_name,
    pack_arrival,
    pack_run,
)
from galaxy.worker_entry.event_loop import READ, EventLoop

READABLE: Final = 0o444
WRITABLE: Final = 0o222
"""Modes of pipes that programs of any user may open again."""
_CHUNK: Final = 64 * 1024
_DRAIN_BYTES_MAX: Final = 1024 * 1024
_ARRIVALS_SHARE: Final = 8
"""The arrivals of a task may take this fraction of the bytes of one stream, or the minimum below."""
_ARRIVALS_BYTES_MIN: Final = 4096
_SWITCHES_MAX: Final = 100


class TaskLogs:
    """Both streams of one task."""

    def __init__(
        self,
        loop: EventLoop,
        directory: int,
        task: str,
        *,
        bytes_max: int,
        files_max: int,
        on_lost: Callable[[str], None],
    ) -> None:
        """``directory`` is an open directory; ``on_lost`` is called when output is dropped."""
        self._directory = directory
        self._task = task
        self._runs: tuple[Run, ...] = ()
        self._streams: dict[str, _Stream] = {}
        files: list[_RotatedFile] = []

        def file(stream: str, limit: int) -> _RotatedFile:
            names = file_names(task, stream, files_max)
            files.append(_RotatedFile(directory, names, limit, self.write_index))
            return files[-1]

        self._arrivals = _Arrivals(file(ARRIVALS, max(bytes_max // _ARRIVALS_SHARE, _ARRIVALS_BYTES_MIN)))
        try:
            for kind, stream in enumerate(STREAMS):
                own_file = file(stream, max(bytes_max, 1))
                self._streams[stream] = _Stream(loop, own_file, kind, self._arrivals, on_lost)
        except OSError:
            for stream_opened in self._streams.values():
                stream_opened.close()
            for file_opened in files:
                file_opened.close()
            raise

    @property
    def stdout(self) -> int:
        """The descriptor that programs write to."""
        return self._streams["stdout"].write_fd

    @property
    def stderr(self) -> int:
        return self._streams["stderr"].write_fd

    def begin_run(self, number: int, started_s: float, *, revision: int = 0, restarts: int = 0) -> None:
        """Record where the output of the next run begins; ``write_index`` publishes it."""
        self.drain()
        at = {name: stream.file.position for name, stream in self._streams.items()}
        run = Run(
            number=number,
            started_s=started_s,
            stdout=at["stdout"],
            stderr=at["stderr"],
            revision=revision,
            restarts=restarts,
        )
        self._runs = (*self._runs, run)[-RUNS_MAX:]
        self._arrivals.record(RUN, pack_run(revision, restarts))

    def drain(self) -> None:
        """Write what is in the pipes now."""
        for stream in self._streams.values():
            stream.drain()

    def write_index(self) -> None:
        """Publish the runs and where the current files begin, for readers."""
        index = RunIndex(
            stdout=self._streams["stdout"].file.base,
            stderr=self._streams["stderr"].file.base,
            arrivals=self._arrivals.file.base,
            runs=self._runs,
        )
        name = index_name(self._task)
        with contextlib.suppress(OSError):  # Without the index, readers treat all output as one run.
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            fd = os.open(f".{name}", flags, 0o640, dir_fd=self._directory)
            data = encode(index)
            try:
                complete = os.write(fd, data) == len(data)
            finally:
                os.close(fd)
            if complete:
                os.rename(f".{name}", name, src_dir_fd=self._directory, dst_dir_fd=self._directory)


class _RotatedFile:
    """A file of at most ``bytes_max``, and its older ones. ``names`` are newest first."""

    def __init__(
        self, directory: int, names: tuple[str, ...], bytes_max: int, on_rotated: Callable[[], None]
    ) -> None:
        self.name = names[0]
        self._directory = directory
        self._names = names
        self._bytes_max = bytes_max
        self._on_rotated = on_rotated
        self._fd = -1
        self.room = bytes_max
        """How many bytes the current file can still take."""
        self.position = 0
        """Position of the next byte."""
        with contextlib.suppress(OSError):
            self._open()

    @property
    def base(self) -> int:
        """Position of the first byte of the current file."""
        return self.position - (self._bytes_max - self.room)

    @property
    def is_empty(self) -> bool:
        """Whether the current file has no bytes yet."""
        return self.room == self._bytes_max

    def write(self, data: bytes | memoryview) -> int:
        """Write some of ``data``; return how many bytes."""
        if self._fd < 0:
            self._open()
        count = os.write(self._fd, data)
        self._move(count)
        return count

    def take_back(self, count: int) -> None:
        """Remove the last ``count`` bytes of the current file."""
        os.ftruncate(self._fd, self._bytes_max - self.room - count)
        self._move(-count)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def rotate(self) -> None:
        """Make the current file the newest of the older ones; the next write begins a new file."""
        os.close(self._fd)
        self._fd = -1
        self.room = self._bytes_max
        if len(self._names) == 1:
            os.unlink(self._names[0], dir_fd=self._directory)
        for newer, older in reversed(list(zip(self._names, self._names[1:], strict=False))):
            with contextlib.suppress(FileNotFoundError):
                os.rename(newer, older, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._on_rotated()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._names[0], flags, 0o640, dir_fd=self._directory)
        self._move(os.fstat(self._fd).st_size)

    def _move(self, count: int) -> None:
        self.position += count
        self.room -= count


class _Arrivals:
    """Records in which order output arrives, and when.

    A flood of one stream costs one record for each ``ARRIVAL_STEP_S``, one of both streams
    ``_SWITCHES_MAX``: the rest of a step is then in order within each stream, but not between them.
    """

    def __init__(self, file: _RotatedFile) -> None:
        self.file = file
        self._last_kind = -1
        self._last_s = 0.0
        self._step_end_s = 0.0
        self._switches = 0

    def note(self, kind: int, position: int) -> None:
        """Record that the byte at ``position`` of a stream arrives now, unless the last record says so."""
        now_s = time.time()
        if not self._step_end_s - ARRIVAL_STEP_S <= now_s < self._step_end_s:
            self._switches = 0
            self._step_end_s = now_s + ARRIVAL_STEP_S
            self.record(kind, position)
        elif kind != self._last_kind and self._switches < _SWITCHES_MAX:
            self._switches += 1
            self.record(kind, position)

    def record(self, kind: int, value: int) -> None:
        """Write a record. On a full disk it is left out: then only the order of the output is lost."""
        now_s = max(time.time(), self._last_s)  # The clock may be set back; the order stays.
        self._last_kind = -1
        with contextlib.suppress(OSError):
            if self.file.room < ARRIVAL_BYTES and not self.file.is_empty:
                self.file.rotate()
            count = self.file.write(pack_arrival(now_s, kind, value))
            if count < ARRIVAL_BYTES:
                self.file.take_back(count)
                return
            self._last_kind, self._last_s = kind, now_s
            if kind == RUN:
                self._switches = 0  # The next output must not count as the previous run's.


class _Stream:
    """One pipe and the files behind it. ``kind`` is its index in ``STREAMS``."""

    def __init__(
        self,
        loop: EventLoop,
        file: _RotatedFile,
        kind: int,
        arrivals: _Arrivals,
        on_lost: Callable[[str], None],
    ) -> None:
        self.file = file
        self._kind = kind
        self._arrivals = arrivals
        self._on_lost = on_lost
        self._dropped_bytes = 0
        self._drop_reason = ""
        self._mid_line = False
        self._read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read_fd, False)
        # Programs of any user may open it again, as /dev/stdout. Only for writing: nobody reads it here.
        os.fchmod(self.write_fd, WRITABLE)
        self._loop = loop
        loop.add(self._read_fd, READ, self._ready)

    def close(self) -> None:
        """Close the pipe."""
        self._loop.remove(self._read_fd)
        os.close(self._read_fd)
        os.close(self.write_fd)

    def drain(self) -> None:
        """Move what is in the pipe now, up to a bound: a writer may be faster than this reader."""
        moved = 0
        while moved < _DRAIN_BYTES_MAX and (count := self._pump()):
            moved += count

    def _ready(self, _events: int) -> None:
        self._pump()

    def _pump(self) -> int:
        try:
            data = os.read(self._read_fd, _CHUNK)
        except BlockingIOError:
            return 0
        left: bytes | memoryview = data
        try:
            self._arrivals.note(self._kind, self.file.position)
            if self._dropped_bytes:
                self._note_dropped()
            while left:
                count = self._write(left)
                if count == len(left):
                    break
                left = memoryview(left)[count:]
        except OSError as error:
            if not self._dropped_bytes:
                self._drop_reason = error.strerror or str(error)
                self._on_lost(f"output of {self.file.name} is dropped: {self._drop_reason}")
            self._dropped_bytes += len(left)
        return len(data)

    def _note_dropped(self) -> None:
        """Write a line into the log about the output that is missing from it."""
        start = "\n" if self._mid_line else ""
        note = f"{start}[galaxy: {self._dropped_bytes} bytes were dropped: {self._drop_reason}]\n"
        left = memoryview(note.encode())
        while left:
            left = left[self._write(left) :]
        self._on_lost(
            f"output of {self.file.name} is written again; {self._dropped_bytes} bytes were dropped"
        )
        self._dropped_bytes = 0

    def _write(self, data: bytes | memoryview) -> int:
        """Write some of ``data``; return how many bytes."""
        part = data
        while len(data) > (room := self.file.room):  # End the file at the end of a line if it has one.
            newline = bytes(data[: max(room, 0)]).rfind(b"\n")
            if newline < 0 and not self.file.is_empty:
                self.file.rotate()
                continue
            part = data[: newline + 1] if newline >= 0 else data[:room]
            break
        count = self.file.write(part)
        self._mid_line = part[count - 1] != ord("\n")
        return count
