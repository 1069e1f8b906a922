"""A log session: one pod's output, from the files of its container, into a session of Nexus."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from galaxy.agent.sessions.log_tail import DirectoryWatch, Lines, StreamFiles, lives_in, streams_in
from galaxy.errors import GalaxyError
from galaxy.model.api.sessions import LogSession, ReadLogs
from galaxy.model.api.views import LogChunk
from galaxy.model.base import encode
from galaxy.nexus.session import Direction
from galaxy.units import format_duration

_LOG: Final = logging.getLogger(__name__)
CHUNK_CHARS: Final = 8 * 1024
"""So much text stays below a session's item limit, however JSON escapes it."""
LOOK_S: Final = 1.0
"""How often a follower without news looks whether the container and the reader are there."""
UNREAD_S: Final = 45.0
"""How long a reader may take nothing before it counts as gone."""
WRITE_S: Final = 30.0
TAIL_MAX: Final = 100_000


class Pipe(Protocol):
    """What is used of ``galaxy.nexus.session.Session``."""

    def write(self, direction: Direction, data: bytes, timeout_s: float = ...) -> None: ...
    def close(self, direction: Direction) -> None: ...
    def closed(self, direction: Direction) -> bool: ...
    def attended(self, direction: Direction) -> bool: ...


class LogStreamer:
    """Streams until everything is told, or, following, until container or reader are gone."""

    def __init__(
        self,
        order: LogSession,
        pipe: Pipe,
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
        self._at: dict[tuple[str, str], int] = {}
        self._lines: dict[tuple[str, str], Lines] = {}

    def run(self) -> None:
        """Stream, say why when it can not be done, and close."""
        try:
            self._say(LogChunk(pod=self._pod, end=True, error=self._stream()))
        except GalaxyError as error:
            _LOG.info("event=logs.ended pod=%s cause=%r", self._pod, error.message)
        finally:
            with contextlib.suppress(GalaxyError):
                self._pipe.close("out")

    def _stream(self) -> str:
        """Stream, and return why not, or nothing."""
        lives = lives_in(self._logs, self._pod)
        if not lives:
            return f"no logs of {self._pod} on this host"
        if self._read.previous:
            return self._previous(lives)
        incarnation, directory = lives[0]
        # Watch first, so that nothing written in between is missed.
        watch = DirectoryWatch(directory) if self._read.follow else None
        try:
            self._tail(directory)
            why = self._follow(directory, incarnation, watch) if watch is not None else ""
        except OSError as error:
            return f"cannot follow the logs of {self._pod}: {error.strerror or error}"
        finally:
            if watch is not None:
                watch.close()
        self._rest()
        return why

    def _tail(self, directory: Path) -> None:
        for files in streams_in(directory, self._read.task, self._read.stream):
            end = files.end()
            self._send(files, files.last_lines(self._count(), files.begin(), end), end)

    def _previous(self, lives: list[tuple[int, Path]]) -> str:
        """Send the run before the latest one, in this container or the one before it."""
        found = False
        for files in streams_in(lives[0][1], self._read.task, self._read.stream):
            span = files.run(1)
            if span is not None and span[1] is not None:
                found = True
                self._send(files, files.last_lines(self._count(), span[0], span[1]), span[1])
        if not found and len(lives) > 1:
            found = True
            self._tail(lives[1][1])
        self._rest()
        return "" if found else f"{self._pod} has not run before"

    def _count(self) -> int:
        return -1 if self._read.tail < 0 else min(self._read.tail, TAIL_MAX)

    def _follow(self, directory: Path, incarnation: int, watch: DirectoryWatch) -> str:
        """Send what is written until nobody writes or reads any more; return why it ends early."""
        quiet_since_s = last_look_s = time.monotonic()
        while not self._closing.is_set():
            changed = watch.wait(LOOK_S)
            living = self._alive(self._pod, incarnation)
            now_s = time.monotonic()
            if self._news(directory):
                quiet_since_s = now_s
            elif not changed:
                self._rest()
            if not living:
                return ""
            if now_s - quiet_since_s > self._idle_s:
                return f"{self._pod} wrote nothing for {format_duration(self._idle_s)}"
            if now_s - last_look_s > LOOK_S:
                last_look_s = now_s
                unread = now_s - quiet_since_s > UNREAD_S and not self._pipe.attended("out")
                if unread or self._pipe.closed("out"):
                    return ""
        return "the agent is ending"

    def _news(self, directory: Path) -> bool:
        news = False
        for files in streams_in(directory, self._read.task, self._read.stream):
            news |= self._send(files, self._at.get((files.task, files.stream), 0), None)
        return news

    def _send(self, files: StreamFiles, start: int, end: int | None) -> bool:
        """Send from ``start`` to ``end``, or to what there is; return whether there was anything."""
        key, at = (files.task, files.stream), start
        lines = self._lines.setdefault(key, Lines())
        while not self._closing.is_set():
            at, data = files.read(at, end)
            self._at[key] = at
            if not data:
                break
            self._text(key, lines.add(data))
        self._at[key] = at
        return at > start

    def _rest(self) -> None:
        for key, lines in self._lines.items():
            self._text(key, lines.rest())

    def _text(self, key: tuple[str, str], text: str) -> None:
        for start in range(0, len(text), CHUNK_CHARS):
            piece = text[start : start + CHUNK_CHARS]
            self._say(LogChunk(pod=self._pod, task=key[0], stream=key[1], text=piece))

    def _say(self, chunk: LogChunk) -> None:
        self._pipe.write("out", encode(chunk), WRITE_S)
