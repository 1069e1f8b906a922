"""A log session: one pod's output, from the files of its container into a session of Nexus."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from galaxy.agent.sessions.directory_watch import DirectoryWatch
from galaxy.agent.sessions.line_decoder import LineDecoder, bytes_of
from galaxy.agent.sessions.log_streams import TaskLogStream, incarnations_in, tasks_in
from galaxy.agent.sessions.task_log import Segment, TaskLog, merge
from galaxy.errors import GalaxyError, Unreachable
from galaxy.model.api.sessions import LogSession, ReadLogs, pack_chunks
from galaxy.model.api.views import LogChunk, LogRun
from galaxy.model.base import encode
from galaxy.model.messages.log_files import STREAMS, Arrival
from galaxy.nexus.presence import Peer
from galaxy.nexus.session import ITEM_BYTES_MAX, Direction
from galaxy.units import format_duration

_LOG: Final = logging.getLogger(__name__)
CHUNK_CHARS: Final = 8 * 1024
"""Characters per chunk: below a session's item limit however JSON escapes them."""
CHECK_S: Final = 1.0
"""How often a follower without new output checks that the container and the reader still exist."""
UNREAD_S: Final = 45.0
"""Time without a read after which the reader counts as gone."""
WRITE_S: Final = 30.0
CONTAINER_S: Final = 25.0
"""How long a follower waits for the container; its client waits 30 s for the first output."""
CONTAINER_CHECK_S: Final = 0.1
TAIL_MAX: Final = 100_000


class LogPipe(Protocol):
    """The part of ``galaxy.nexus.session.Session`` that a log session uses."""

    def write(self, direction: Direction, data: bytes, timeout_s: float = ...) -> None: ...
    def close(self, direction: Direction) -> None: ...
    def peer(self) -> Peer: ...
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
        self._incarnation = order.incarnation
        self._read: ReadLogs = order.read
        self._pipe = pipe
        self._logs = logs
        self._alive = alive
        self._closing = closing
        self._idle_s = idle_s
        self._chunks = _Chunks(order.pod, pipe, order.read)
        self._interrupted = False

    def run(self) -> None:
        """Stream, end with the reason if something went wrong, and close the session."""
        try:
            if self._read.follow:
                self._chunks.acknowledge()
            error = self._stream()
            self._chunks.end(error, self._incarnation, interrupted=self._interrupted)
        except GalaxyError as error:
            _LOG.info("event=logs.ended pod=%s cause=%r", self._pod, error.message)
        finally:
            with contextlib.suppress(GalaxyError):
                self._pipe.close("out")

    def _stream(self) -> str:
        """Stream; return why it could not be done or ended early, or an empty text."""
        if self._read.resume:
            self._incarnation = self._read.resume_incarnation
            incarnations = [one for one in self._incarnations() if one[0] == self._incarnation]
            if not incarnations:
                return ""  # Its files were removed meanwhile.
        else:
            incarnations = self._await_container() if self._read.follow else self._incarnations()
        if not incarnations:
            return f"no logs of {self._pod} on this host"
        if self._read.previous:
            return self._send_previous(incarnations)
        incarnation, directory = incarnations[0]
        self._incarnation = self._chunks.incarnation = incarnation
        # Watch before reading, so that output written in between is not missed.
        watch = DirectoryWatch(directory) if self._read.follow else None
        try:
            logs = self._open(directory)
            self._send(logs, last=watch is None)
            return self._follow(logs, directory, incarnation, watch) if watch is not None else ""
        except OSError as error:
            return f"cannot follow the logs of {self._pod}: {error.strerror or error}"
        finally:
            if watch is not None:
                watch.close()

    def _incarnations(self) -> list[tuple[int, Path]]:
        return incarnations_in(self._logs, self._pod)

    def _await_container(self) -> list[tuple[int, Path]]:
        """Wait until the container to follow has logs: it may be on its way. Return what there is then."""
        end_s = time.monotonic() + CONTAINER_S
        while True:
            found = self._incarnations()
            is_there = bool(found) and found[0][0] >= self._incarnation
            if is_there or time.monotonic() > end_s or self._closing.wait(CONTAINER_CHECK_S):
                return found
            if self._is_reader_gone(quiet_s=0.0):
                return found

    def _open(self, directory: Path, *, previous: bool = False) -> list[TaskLog]:
        """Open the logs of all requested tasks where the requested lines begin; empty if there are none.

        The last lines of each stream contain the last lines of all streams together, and some lines
        before those, which are left out when they come.
        """
        logs = []
        lines = 0
        resumed = {(one.task, one.stream): one.at for one in self._read.resume}
        for task in tasks_in(directory, self._read.task):
            starts, ends = {}, {}
            streams = self._streams(directory, task)
            for stream in streams:
                start, end = max(stream.begin(), stream.run_start(self._read.since_s)), stream.end()
                span = stream.run(1 if previous else 0) if previous or self._read.latest else None
                if span is not None:
                    start, end = span[0], end if span[1] is None else span[1]
                elif previous:
                    break
                if resumed:
                    starts[stream.stream] = max(start, resumed.get((task, stream.stream), 0))
                    continue
                starts[stream.stream], count = stream.last_lines(self._line_count(), start, end)
                ends[stream.stream] = end
                lines += count
            else:
                logs.append(TaskLog(directory, task, streams, starts, ends=ends if previous else None))
        if self._line_count() >= 0 and not resumed:
            self._chunks.left_out = max(0, lines - self._line_count())
        return logs

    def _streams(self, directory: Path, task: str) -> list[TaskLogStream]:
        """Return the requested streams of a task, whether they have files yet or not."""
        wanted = [self._read.stream] if self._read.stream else STREAMS
        return [TaskLogStream(directory, task, stream) for stream in wanted]

    def _send_previous(self, incarnations: list[tuple[int, Path]]) -> str:
        """Send the run before the latest one; if there is none, the previous incarnation's output."""
        logs = self._open(incarnations[0][1], previous=True)
        if not logs and len(incarnations) > 1:
            logs = self._open(incarnations[1][1])
            if not logs:
                return ""
        self._send(logs, last=True)
        return "" if logs else f"{self._pod} has not run before"

    def _line_count(self) -> int:
        """Return how many existing lines to send; -1 for all."""
        return -1 if self._read.tail < 0 else min(self._read.tail, TAIL_MAX)

    def _follow(self, logs: list[TaskLog], directory: Path, incarnation: int, watch: DirectoryWatch) -> str:
        """Send new output until no writer or no reader is left; return why it ends early."""
        quiet_since_s = last_check_s = time.monotonic()
        while not self._closing.is_set():
            changed = watch.wait(CHECK_S)
            alive = self._alive(self._pod, incarnation)
            now_s = time.monotonic()
            self._add_new_tasks(logs, directory)
            if self._send(logs, last=not alive):
                quiet_since_s = now_s
            elif not changed:
                self._chunks.flush_incomplete_lines()
            if not alive:
                return ""
            if now_s - quiet_since_s > self._idle_s:
                return f"{self._pod} wrote nothing for {format_duration(self._idle_s)}"
            if now_s - last_check_s > CHECK_S:
                last_check_s = now_s
                if self._is_reader_gone(quiet_s=now_s - quiet_since_s):
                    return ""
        self._interrupted = True
        return "the agent is ending"

    def _is_reader_gone(self, *, quiet_s: float) -> bool:
        """Return whether nobody reads any more; renews the lease by which the client knows this agent."""
        try:
            unread = quiet_s > UNREAD_S and not self._pipe.has_reader("out")
            return self._pipe.peer().closed or unread
        except Unreachable:  # Redis is away; writing fails when it is for too long.
            return False

    def _add_new_tasks(self, logs: list[TaskLog], directory: Path) -> None:
        """Follow what appeared since: a program that had not started yet has no files."""
        known = {log.task for log in logs}
        for task in tasks_in(directory, self._read.task):
            if task not in known:
                streams = self._streams(directory, task)
                logs.append(TaskLog(directory, task, streams, {stream.stream: 0 for stream in streams}))

    def _send(self, logs: Sequence[TaskLog], *, last: bool) -> bool:
        """Send what was written since the last call; return whether there was any."""
        if not logs:
            return False
        for log in logs:
            self._chunks.begin(log)
        found = False
        for segment in merge(logs, last=last):
            if self._closing.is_set():
                break
            found = True
            self._chunks.add(segment)
        if last:
            self._chunks.flush_incomplete_lines()
        if self._read.follow:
            self._chunks.announce_positions()
        self._chunks.flush()
        return found


class _Chunks:
    """Turns segments into chunks of text, and writes as many at once as one item of the session takes."""

    def __init__(self, pod: str, pipe: LogPipe, read: ReadLogs) -> None:
        self._pod = pod
        self._pipe = pipe
        self._since_s = read.since_s
        self._announced_run_s = {one.task: one.run_s for one in read.resume}
        """By task: the start of the last run that an earlier session has announced."""
        self.incarnation = 0
        self._positions: dict[tuple[str, str], int] = {}
        """By stream: up to where its text was sent or left out."""
        self._silent: set[tuple[str, str]] = set()
        """Streams whose position has changed without a chunk that says so."""
        self.left_out = 0
        """How many more lines are read without being sent."""
        self._decoders: dict[tuple[str, str], LineDecoder] = {}
        self._incomplete_s: dict[tuple[str, str], float] = {}
        """When the incomplete line of a stream began to arrive."""
        self._runs: dict[str, Arrival] = {}
        """By task: the run that begins with its next text."""
        self._begun: set[str] = set()
        self._encoded: list[bytes] = []
        self._bytes = 0

    def begin(self, log: TaskLog) -> None:
        """Look up to which run the first text of a task belongs, the first time."""
        if log.task not in self._begun:
            self._begun.add(log.task)
            for stream, at in log.positions().items():
                self._move((log.task, stream), at)
            run = log.run_at_start()
            if run is not None and run.at_s > self._announced_run_s.get(log.task, 0.0):
                self._runs[log.task] = run

    def add(self, segment: Segment) -> None:
        """Send the text of a segment as far as its lines are complete, or announce its run."""
        task = segment.task
        if segment.run is not None:
            if segment.at_s <= self._announced_run_s.get(task, 0.0):
                return
            self._flush_incomplete(task)
            self._runs[task] = segment.run
            if not self.left_out and segment.at_s >= self._since_s:
                self._send_run(task)
            return
        if segment.stream is None:
            return
        key = task, segment.stream.stream
        if segment.at_s and segment.at_s < self._since_s:
            self._move(key, segment.end)
            return
        decoder = self._decoders.setdefault(key, LineDecoder("surrogateescape"))
        at = segment.start
        while at < segment.end:
            at, data = segment.stream.read(at, segment.end)
            if not data:
                break
            began_s = self._incomplete_s.pop(key, segment.at_s)
            text = decoder.add(data)
            self._send_text(key, text, began_s, segment.at_s, end=at - decoder.rest_bytes)
            if decoder.has_rest:
                self._incomplete_s[key] = segment.at_s if text else began_s

    def flush_incomplete_lines(self) -> None:
        """Send the incomplete lines: at the end of the output, or after a pause in it."""
        for task in {task for task, _ in self._decoders}:
            self._flush_incomplete(task)
        self.flush()

    def flush(self) -> None:
        """Write what has gathered."""
        if self._encoded:
            encoded, self._encoded, self._bytes = self._encoded, [], 0
            self._pipe.write("out", pack_chunks(encoded), WRITE_S)

    def acknowledge(self) -> None:
        """Send an empty chunk, so that the client knows that the agent answers while a program is silent."""
        self._put(LogChunk(pod=self._pod))
        self.flush()

    def announce_positions(self) -> None:
        """Say where reading began and what was left out, so that another session can continue there."""
        for task, stream in sorted(self._silent):
            at = self._positions[task, stream]
            self._put(
                LogChunk(pod=self._pod, task=task, stream=stream, next=at, incarnation=self.incarnation)
            )
        self._silent.clear()

    def end(self, error: str, incarnation: int, *, interrupted: bool) -> None:
        """End the session of this incarnation's log; ``error`` says what went wrong."""
        chunk = LogChunk(
            pod=self._pod, end=True, error=error, incarnation=incarnation, interrupted=interrupted
        )
        self._put(chunk)
        self.flush()

    def _move(self, key: tuple[str, str], at: int) -> None:
        self._positions[key] = at
        self._silent.add(key)

    def _flush_incomplete(self, task: str) -> None:
        for key, decoder in self._decoders.items():
            if key[0] == task:
                at_s = self._incomplete_s.pop(key, 0.0)
                text = decoder.rest()
                end = self._positions.get(key, 0) + bytes_of(text)
                self._send_text(key, text, at_s, at_s, end=end)

    def _send_text(self, key: tuple[str, str], text: str, first_s: float, at_s: float, *, end: int) -> None:
        """Send lines; the first one of them began to arrive at ``first_s``, the others at ``at_s``.

        ``end`` is the position after the text.
        """
        self._move(key, end)
        if self.left_out and text:
            text, first_s = self._leave_out(text), at_s
        if not text:
            return
        self._silent.discard(key)
        if key[0] in self._runs:
            self._send_run(key[0])
        if first_s != at_s:
            line, newline, text = text.partition("\n")
            self._send_pieces(key, line + newline, first_s, end=end - bytes_of(text))
        self._send_pieces(key, text, at_s, end=end)

    def _leave_out(self, text: str) -> str:
        """Return ``text`` without its first lines, as many as are still to be left out."""
        at = 0
        while self.left_out and at < len(text):
            newline = text.find("\n", at)
            at = len(text) if newline < 0 else newline + 1
            self.left_out -= 1
        return text[at:]

    def _send_run(self, task: str) -> None:
        run = self._runs.pop(task)
        mark = LogRun(revision=run.revision, restarts=run.restarts)
        self._put(LogChunk(pod=self._pod, task=task, at_s=run.at_s, run=mark))

    def _send_pieces(self, key: tuple[str, str], text: str, at_s: float, *, end: int) -> None:
        at = end - bytes_of(text)
        for start in range(0, len(text), CHUNK_CHARS):
            piece = text[start : start + CHUNK_CHARS]
            at += bytes_of(piece)
            chunk = LogChunk(pod=self._pod, task=key[0], stream=key[1], text=piece, at_s=at_s, next=at)
            try:
                self._put(chunk)
            except UnicodeEncodeError:
                # The bytes are sent too, so half as many fit.
                middle = len(piece) // 2
                at -= bytes_of(piece)
                for half in filter(None, (piece[:middle], piece[middle:])):
                    raw = half.encode("utf-8", "surrogateescape")
                    replaced = raw.decode("utf-8", "replace")
                    at += len(raw)
                    self._put(msgspec.structs.replace(chunk, text=replaced, raw=raw, next=at))

    def _put(self, chunk: LogChunk) -> None:
        data = encode(chunk)
        if self._bytes + len(data) + len(self._encoded) + 2 > ITEM_BYTES_MAX:
            self.flush()
        self._encoded.append(data)
        self._bytes += len(data)
