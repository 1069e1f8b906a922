"""A task's output in the order in which it arrived, over both of its streams.

``galaxy.model.messages.log_files`` describes the files.
"""

from __future__ import annotations

import heapq
import sys
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from galaxy.agent.sessions.log_streams import TaskLogStream
from galaxy.model.messages.log_files import (
    ARRIVAL_BYTES,
    ARRIVALS,
    RUN,
    STREAMS,
    Arrival,
    Run,
    pack_arrival,
    pack_run,
    unpack_arrivals,
)

_RECORDS_BYTES_MAX: Final = 16 * 1024 * 1024
"""Records read of one task, the newest first; earlier output has no times."""
_UNKNOWN_S: Final = 0.0


class Segment(NamedTuple):
    """Bytes of one stream that arrived together; without ``stream``, the start of ``run``.

    ``at_s`` is when they arrived, in Unix seconds; 0.0 means unknown.
    """

    at_s: float
    task: str
    stream: TaskLogStream | None = None
    start: int = 0
    end: int = 0
    run: Arrival | None = None


class TaskLog:
    """Reads one task's output from the given positions on; ``advance`` continues where it ended.

    ``starts`` are the positions at which to begin in each of ``streams``, by the name of the stream.
    """

    def __init__(
        self,
        directory: Path,
        task: str,
        streams: Sequence[TaskLogStream],
        starts: dict[str, int],
        *,
        ends: dict[str, int] | None = None,
    ) -> None:
        """``ends`` limits reading to one earlier run: where each stream ends, by the name of the stream."""
        self.task = task
        self._streams = {STREAMS.index(stream.stream): stream for stream in streams}
        self._fixed_ends = None if ends is None else {STREAMS.index(name): at for name, at in ends.items()}
        self._next = {STREAMS.index(name): at for name, at in starts.items()}
        """By kind: the position of the first byte that was not returned yet."""
        self._at_s = dict.fromkeys(self._streams, _UNKNOWN_S)
        """By kind: when the last byte that was returned arrived."""
        self._arrivals = TaskLogStream(directory, task, ARRIVALS)
        self._records = bytearray()
        """Records that were read and are not processed yet."""
        self._known_bytes = 0
        """Number of bytes of ``_records`` that an earlier ``advance`` has read."""
        self._has_times = self._arrivals.end() > 0
        self._records_from = self._arrivals.end()
        if self._has_times:
            self._load_records()
        else:
            self._records += _records_of(self._runs(), list(self._streams))
            self._known_bytes = len(self._records)

    def positions(self) -> dict[str, int]:
        """Return the position of the next byte to return, by the name of the stream."""
        return {STREAMS[kind]: at for kind, at in self._next.items()}

    def run_at_start(self) -> Arrival | None:
        """Return the run to which the first output belongs, if the index still knows it."""
        found: Arrival | None = None
        for run in self._runs():
            firsts = {0: run.stdout, 1: run.stderr}
            if all(firsts[kind] <= at for kind, at in self._next.items() if at < self._end(kind)):
                found = Arrival(run.started_s, RUN, pack_run(run.revision, run.restarts))
        return found

    def advance(self, *, last: bool = False) -> Iterator[Segment]:
        """Yield what was written since the last call, in order.

        With ``last`` there is no later call. Otherwise the output of a record that was written this
        moment waits for the next call if its bytes are not there yet: output of the other stream
        that arrived after it would overtake it.
        """
        ends = {kind: self._end(kind) for kind in self._streams}  # Before the records: those come first.
        self._read_records()
        stamps = array("Q", bytes(self._records))
        if sys.byteorder == "big":
            stamps.byteswap()
        count = len(stamps) // 2
        limits, first = _limits(stamps, count, ends)
        early = [kind for kind in self._streams if self._next[kind] < min(first[kind], ends[kind])]
        for kind in sorted(early, key=lambda kind: (self._at_s[kind], kind)):
            yield from self._segments(kind, self._next[kind], min(first[kind], ends[kind]))
        done = 0
        for number in range(count):
            stamp, value = stamps[2 * number], stamps[2 * number + 1]
            kind, at_s = stamp & 3, (stamp >> 2) / 1_000_000
            if kind == RUN:
                if self._fixed_ends is None:
                    yield Segment(at_s, self.task, run=Arrival(at_s, RUN, value))
            elif kind in self._streams:
                is_new = number * ARRIVAL_BYTES >= self._known_bytes
                if is_new and not last and value >= ends[kind]:
                    break
                self._at_s[kind] = at_s if self._has_times else _UNKNOWN_S
                yield from self._segments(kind, max(self._next[kind], value), min(limits[number], ends[kind]))
            done = number + 1
        else:
            for kind in self._streams:  # Damaged records must not hide output.
                yield from self._segments(kind, self._next[kind], ends[kind])
        del self._records[: done * ARRIVAL_BYTES]
        self._known_bytes = len(self._records)

    def _segments(self, kind: int, start: int, end: int) -> Iterator[Segment]:
        if start < end:
            self._next[kind] = end
            yield Segment(self._at_s[kind], self.task, self._streams[kind], start, end)

    def _end(self, kind: int) -> int:
        end = self._streams[kind].end()
        return end if self._fixed_ends is None else min(end, self._fixed_ends[kind])

    def _runs(self) -> tuple[Run, ...]:
        return self._arrivals.index().runs

    def _load_records(self) -> None:
        """Load the records from the one on to which the first output belongs, searching backwards."""
        missing = {kind for kind, at in self._next.items() if at < self._end(kind)}
        if not missing:
            return
        at = self._records_from
        begin = max(self._arrivals.begin(), at - _RECORDS_BYTES_MAX)
        blocks: list[bytes] = []
        cut = 0
        while missing and at > begin:
            low = max(begin, at - 64 * 1024)
            block = self._arrivals.read_all(low, at)
            for number, record in reversed(list(enumerate(unpack_arrivals(block)))):
                if record.kind in missing and record.value <= self._next[record.kind]:
                    missing.discard(record.kind)
                    cut = number * ARRIVAL_BYTES
                if not missing:
                    break
            else:
                cut = 0
            blocks.append(block[: len(block) - len(block) % ARRIVAL_BYTES])
            at = low
        self._records += b"".join(reversed(blocks))[cut:]
        self._known_bytes = len(self._records)

    def _read_records(self) -> None:
        if not self._has_times and self._arrivals.end() == 0:
            return
        while True:
            after, data = self._arrivals.read(self._records_from)
            incomplete = len(data) % ARRIVAL_BYTES
            if len(data) == incomplete:
                return
            self._has_times = True
            self._records += data[: len(data) - incomplete]
            self._records_from = after - incomplete


def merge(logs: Sequence[TaskLog], *, last: bool = False) -> Iterator[Segment]:
    """Yield what was written to several tasks' logs since the last call, in the order of arrival."""
    if len(logs) == 1:
        return logs[0].advance(last=last)
    return heapq.merge(*(log.advance(last=last) for log in logs), key=lambda segment: segment.at_s)


def _limits(stamps: array[int], count: int, ends: dict[int, int]) -> tuple[array[int], dict[int, int]]:
    """Return where the output of each record ends, and the position of each stream's first record."""
    limits = array("Q", bytes(8 * count))
    following = dict(ends)
    for number in range(count - 1, -1, -1):
        kind = stamps[2 * number] & 3
        if kind in following:
            limits[number] = following[kind]
            following[kind] = stamps[2 * number + 1]
    return limits, following


def _records_of(runs: Sequence[Run], kinds: Sequence[int]) -> bytes:
    """Return records for output whose own records are lost: run after run, stdout first."""
    records = b""
    for run in runs:
        records += pack_arrival(run.started_s, RUN, pack_run(run.revision, run.restarts))
        for kind in kinds:
            records += pack_arrival(run.started_s, kind, run.stdout if kind == 0 else run.stderr)
    return records
