"""A task's output: from pipes into rotated files of limited size and number.

``galaxy.model.messages.log_files`` describes the files. Each stream has one pipe for as long as the
container exists. One callback moves at most 64 KiB, so a flood fills its pipe and slows its program
down, not AppWorker. If the host's disk is full, output is dropped and counted, and a line in the log
says so once there is room; the program is not blocked.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Final

from galaxy.model.base import encode
from galaxy.model.messages.log_files import RUNS_MAX, STREAMS, Run, RunIndex, file_names, index_name
from galaxy.worker_entry.event_loop import READ, EventLoop

_CHUNK: Final = 64 * 1024
_DRAIN_BYTES_MAX: Final = 1024 * 1024


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
        """``directory`` is an open directory; ``on_lost`` is called when output is dropped.

        Raises:
            OSError: there is no free descriptor.
        """
        self._directory = directory
        self._task = task
        self._runs: tuple[Run, ...] = ()
        self._streams: dict[str, _Stream] = {}
        try:
            for stream in STREAMS:
                names = file_names(task, stream, files_max)
                self._streams[stream] = _Stream(loop, directory, names, bytes_max, self.write_index, on_lost)
        except OSError:
            for opened in self._streams.values():
                opened.close()
            raise

    @property
    def stdout(self) -> int:
        """The descriptor that programs write to."""
        return self._streams["stdout"].write_fd

    @property
    def stderr(self) -> int:
        return self._streams["stderr"].write_fd

    def begin_run(self, number: int, started_s: float) -> None:
        """Record where the output of the next run begins; ``write_index`` publishes it."""
        for stream in self._streams.values():
            stream.drain()
        at = {name: stream.position for name, stream in self._streams.items()}
        run = Run(number=number, started_s=started_s, stdout=at["stdout"], stderr=at["stderr"])
        self._runs = (*self._runs, run)[-RUNS_MAX:]

    def drain(self) -> None:
        """Write what is in the pipes now."""
        for stream in self._streams.values():
            stream.drain()

    def write_index(self) -> None:
        """Publish the runs and where the current files begin, for readers."""
        index = RunIndex(
            stdout=self._streams["stdout"].base, stderr=self._streams["stderr"].base, runs=self._runs
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


class _Stream:
    """One pipe and the files behind it."""

    def __init__(
        self,
        loop: EventLoop,
        directory: int,
        names: tuple[str, ...],
        bytes_max: int,
        on_rotated: Callable[[], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._directory = directory
        self._names = names
        self._bytes_max = max(bytes_max, 1)
        self._on_rotated = on_rotated
        self._on_lost = on_lost
        self._dropped_bytes = 0
        self._drop_reason = ""
        self._mid_line = False
        self._file = -1
        self._size = 0
        self.base = 0
        self._read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read_fd, False)
        with contextlib.suppress(OSError):
            self._open()
        self._loop = loop
        loop.add(self._read_fd, READ, self._ready)

    def close(self) -> None:
        """Close the pipe and the file."""
        self._loop.remove(self._read_fd)
        for fd in (self._read_fd, self.write_fd, self._file):
            if fd >= 0:
                os.close(fd)

    @property
    def position(self) -> int:
        return self.base + self._size

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
        left = memoryview(data)
        try:
            if self._dropped_bytes:
                self._note_dropped()
            while left:
                left = left[self._write(left) :]
        except OSError as error:
            if not self._dropped_bytes:
                self._drop_reason = error.strerror or str(error)
                self._on_lost(f"output of {self._names[0]} is dropped: {self._drop_reason}")
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
            f"output of {self._names[0]} is written again; {self._dropped_bytes} bytes were dropped"
        )
        self._dropped_bytes = 0

    def _write(self, data: memoryview) -> int:
        """Write some of ``data``; return how many bytes."""
        while True:
            if self._file < 0:
                self._open()
            room = self._bytes_max - self._size
            part = data
            if len(data) > room:  # End the file at the end of a line if it has one.
                newline = bytes(data[: max(room, 0)]).rfind(b"\n")
                if newline < 0 and self._size:
                    self._rotate()
                    continue
                part = data[: newline + 1] if newline >= 0 else data[:room]
            count = os.write(self._file, part)
            self._size += count
            self._mid_line = part[count - 1] != ord("\n")
            return count

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(self._names[0], flags, 0o640, dir_fd=self._directory)
        self._size = os.fstat(self._file).st_size

    def _rotate(self) -> None:
        os.close(self._file)
        self._file = -1
        self.base += self._size
        self._size = 0
        if len(self._names) == 1:
            os.unlink(self._names[0], dir_fd=self._directory)
        for newer, older in reversed(list(zip(self._names, self._names[1:], strict=False))):
            with contextlib.suppress(FileNotFoundError):
                os.rename(newer, older, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._on_rotated()
