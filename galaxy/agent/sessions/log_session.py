"""A log session: one pod's output, from the files of its container into a session of Nexus."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from galaxy.agent.sessions.directory_watch import DirectoryWatch
from galaxy.agent.sessions.line_decoder import LineDecoder
from galaxy.agent.sessions.log_streams import TaskLogStream, incarnations_in, streams_in
from galaxy.errors import GalaxyError
from galaxy.model.api.sessions import LogSession, ReadLogs
from galaxy.model.api.views import LogChunk
from galaxy.model.base import encode
from galaxy.nexus.session import Direction
from galaxy.units import format_duration

_LOG: Final = logging.getLogger(__name__)
CHUNK_CHARS: Final = 8 * 1024
"""Characters per chunk: below a session's item limit however JSON escapes them."""
CHECK_S: Final = 1.0
"""How often a follower without new output checks that the container and the reader still exist."""
UNREAD_S: Final = 45.0
"""Time without a read after which the reader counts as gone."""
WRITE_S: Final = 30.0
TAIL_MAX: Final = 100_000


class LogPipe(Protocol):
    """The part of ``galaxy.nexus.session.Session`` that a log session uses."""

    def write(self, direction: Direction, data: bytes, timeout_s: float = ...) -> None: ...
    def close(self, direction: Direction) -> None: ...
    def is_closed(self, direction: Direction) -> bool: ...
    def has_reader(self, direction: Direction) -> bool: ...


class LogSessionRunner:
    """Streams the requested output; when following, until the container or the reader is gone."""

    def __init__(
        self,
        order: LogSession,
        pipe: LogPipe,
        logs: Path,
        *,
        alive: Callable[[str, int], bool],
        closing: threading.Event,
        idle_s: float,
    ) -> None:
        self._pod = order.pod
        self._read: ReadLogs = order.read
        self._pipe = pipe
        self._logs = logs
        self._alive = alive
        self._closing = closing
        self._idle_s = idle_s
        self._positions: dict[tuple[str, str], int] = {}
        self._decoders: dict[tuple[str, str], LineDecoder] = {}

    def run(self) -> None:
        """Stream, end with the reason if something went wrong, and close the session."""
        try:
            self._write(LogChunk(pod=self._pod, end=True, error=self._stream()))
        except GalaxyError as error:
            _LOG.info("event=logs.ended pod=%s cause=%r", self._pod, error.message)
        finally:
            with contextlib.suppress(GalaxyError):
                self._pipe.close("out")

    def _stream(self) -> str:
        """Stream; return why it could not be done or ended early, or an empty text."""
        incarnations = incarnations_in(self._logs, self._pod)
        if not incarnations:
            return f"no logs of {self._pod} on this host"
        if self._read.previous:
            return self._send_previous(incarnations)
        incarnation, directory = incarnations[0]
        # Watch before reading, so that output written in between is not missed.
        watch = DirectoryWatch(directory) if self._read.follow else None
        try:
            self._send_tail(directory)
            why = self._follow(directory, incarnation, watch) if watch is not None else ""
        except OSError as error:
            return f"cannot follow the logs of {self._pod}: {error.strerror or error}"
        finally:
            if watch is not None:
                watch.close()
        self._send_incomplete_lines()
        return why

    def _send_tail(self, directory: Path) -> None:
        for stream in streams_in(directory, self._read.task, self._read.stream):
            end = stream.end()
            self._send(stream, stream.last_lines(self._line_count(), stream.begin(), end), end)

    def _send_previous(self, incarnations: list[tuple[int, Path]]) -> str:
        """Send the run before the latest one; if there is none, the previous incarnation's output."""
        found = False
        for stream in streams_in(incarnations[0][1], self._read.task, self._read.stream):
            span = stream.run(1)
            if span is not None and span[1] is not None:
                found = True
                self._send(stream, stream.last_lines(self._line_count(), span[0], span[1]), span[1])
        if not found and len(incarnations) > 1:
            found = True
            self._send_tail(incarnations[1][1])
        self._send_incomplete_lines()
        return "" if found else f"{self._pod} has not run before"

    def _line_count(self) -> int:
        """Return how many existing lines to send; -1 for all."""
        return -1 if self._read.tail < 0 else min(self._read.tail, TAIL_MAX)

    def _follow(self, directory: Path, incarnation: int, watch: DirectoryWatch) -> str:
        """Send new output until no writer or no reader is left; return why it ends early."""
        quiet_since_s = last_check_s = time.monotonic()
        while not self._closing.is_set():
            changed = watch.wait(CHECK_S)
            alive = self._alive(self._pod, incarnation)
            now_s = time.monotonic()
            if self._send_new(directory):
                quiet_since_s = now_s
            elif not changed:
                self._send_incomplete_lines()
            if not alive:
                return ""
            if now_s - quiet_since_s > self._idle_s:
                return f"{self._pod} wrote nothing for {format_duration(self._idle_s)}"
            if now_s - last_check_s > CHECK_S:
                last_check_s = now_s
                unread = now_s - quiet_since_s > UNREAD_S and not self._pipe.has_reader("out")
                if unread or self._pipe.is_closed("out"):
                    return ""
        return "the agent is ending"

    def _send_new(self, directory: Path) -> bool:
        """Send the output written since the last call; return whether there was any."""
        any_new = False
        for stream in streams_in(directory, self._read.task, self._read.stream):
            start = self._positions.get((stream.task, stream.stream), 0)
            any_new |= self._send(stream, start, None)
        return any_new

    def _send(self, stream: TaskLogStream, start: int, end: int | None) -> bool:
        """Send from ``start`` to ``end`` (None: to the end of the output); return whether there was any."""
        key, at = (stream.task, stream.stream), start
        decoder = self._decoders.setdefault(key, LineDecoder())
        while not self._closing.is_set():
            at, data = stream.read(at, end)
            self._positions[key] = at
            if not data:
                break
            self._send_text(key, decoder.add(data))
        self._positions[key] = at
        return at > start

    def _send_incomplete_lines(self) -> None:
        for key, decoder in self._decoders.items():
            self._send_text(key, decoder.rest())

    def _send_text(self, key: tuple[str, str], text: str) -> None:
        for start in range(0, len(text), CHUNK_CHARS):
            piece = text[start : start + CHUNK_CHARS]
            self._write(LogChunk(pod=self._pod, task=key[0], stream=key[1], text=piece))

    def _write(self, chunk: LogChunk) -> None:
        self._pipe.write("out", encode(chunk), WRITE_S)
