"""The layout of a task's output on disk: file names, rotation, order of arrival, and where runs begin.

AppWorker writes ``<task>.stdout`` and ``<task>.stderr``. A full file becomes ``.1``, that one
``.2`` and so on; the oldest is removed. Every byte of a stream has a *position*, counted from 0
since the container began, which rotation does not change. ``<task>.runs.json`` (a ``RunIndex``,
replaced atomically at each start and each rotation) holds the position at which the current file
of each stream begins, and the positions at which the latest runs of the program began. So the
output of the previous run lies between two positions, over as many files as that takes.

``<task>.arrivals`` says in which order the bytes of both streams arrived, and when. It consists of
records of ``ARRIVAL_BYTES``, oldest first. A record of a stream holds the time and the position of
the next byte of that stream, and is written before that byte. The bytes from there up to the next
record of the same stream arrived at that time, or at most ``ARRIVAL_STEP_S`` later; there is a
record whenever the stream or the time changes. A record of a run holds the time, the revision and
the restart with which the program started. The file is rotated like the others, so it can
begin later than the output; it can also be lost. An incomplete record at the end is ignored.

A reader decodes the index, takes the files' sizes, and reads ``pieces``. If the index differs
afterwards, a rotation happened in between and the reader has to start again.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from galaxy.model.base import Struct

STREAMS: Final = ("stdout", "stderr")
ARRIVALS: Final = "arrivals"
RUN: Final = 2
"""The ``kind`` of an arrival that begins a run; 0 and 1 are the indexes of ``STREAMS``."""
ARRIVAL_STEP_S: Final = 0.01
"""Bytes of one stream that arrive within this time share a record."""
RUNS_MAX: Final = 16
"""Runs that the index keeps."""


_RECORD: Final = struct.Struct("<QQ")
ARRIVAL_BYTES: Final = _RECORD.size
_KIND_BITS: Final = 2
_RESTARTS_BITS: Final = 32


class Arrival(NamedTuple):
    """When output arrived, or a run began. ``value`` is a position, or of a run its packed numbers."""

    at_s: float
    kind: int
    value: int

    @property
    def revision(self) -> int:
        """The job's revision of a run."""
        return self.value >> _RESTARTS_BITS

    @property
    def restarts(self) -> int:
        """How often the program of a run had been restarted before."""
        return self.value & ((1 << _RESTARTS_BITS) - 1)


class Run(Struct, frozen=True, kw_only=True):
    """One run of a program: its number, its start in Unix seconds, and its first position per stream."""

    number: int
    started_s: float
    stdout: int
    stderr: int
    revision: int = 0
    restarts: int = 0


class RunIndex(Struct, frozen=True, kw_only=True):
    """``stdout``, ``stderr`` and ``arrivals`` are the positions of the first byte of the unrotated files."""

    stdout: int = 0
    stderr: int = 0
    arrivals: int = 0
    runs: tuple[Run, ...] = ()
    """Oldest first, at most ``RUNS_MAX``."""


class Piece(Struct, frozen=True, kw_only=True):
    """``length`` bytes of file ``name`` from byte ``start`` on."""

    name: str
    start: int
    length: int


def index_name(task: str) -> str:
    """Return the name of a task's index file."""
    return f"{task}.runs.json"


def file_names(task: str, stream: str, files_max: int) -> tuple[str, ...]:
    """Return the names that a stream's files can have, newest first."""
    return tuple(f"{task}.{stream}" + (f".{age}" if age else "") for age in range(max(files_max, 1)))


def base_of(index: RunIndex, stream: str) -> int:
    """Return the position of the first byte of a stream's current, unrotated file."""
    return {"stdout": index.stdout, "stderr": index.stderr, ARRIVALS: index.arrivals}[stream]


def pack_arrival(at_s: float, kind: int, value: int) -> bytes:
    """Return a record of the arrivals file."""
    return _RECORD.pack(int(at_s * 1_000_000) << _KIND_BITS | kind, value)


def pack_run(revision: int, restarts: int) -> int:
    """Return the ``value`` of a run's arrival."""
    return revision << _RESTARTS_BITS | min(restarts, (1 << _RESTARTS_BITS) - 1)


def unpack_arrivals(data: bytes) -> list[Arrival]:
    """Return the complete records in ``data``."""
    complete_bytes = len(data) - len(data) % ARRIVAL_BYTES
    return [
        Arrival((stamp >> _KIND_BITS) / 1_000_000, stamp & 3, value)
        for stamp, value in _RECORD.iter_unpack(data[:complete_bytes])
    ]


def run_span(index: RunIndex, stream: str, *, back: int = 0) -> tuple[int, int | None] | None:
    """Return the positions at which a run's output begins and ends.

    ``back`` counts runs backwards from the latest, 0. The end is None for the latest run, which may
    still write. The result is None if the program has not run that often, or if the index no
    longer holds that run.
    """
    if back >= len(index.runs):
        return None
    at = len(index.runs) - 1 - back
    starts = [run.stdout if stream == "stdout" else run.stderr for run in index.runs]
    return starts[at], starts[at + 1] if back else None


def pieces(
    newest_first: Sequence[tuple[str, int]], base: int, start: int = 0, end: int | None = None
) -> tuple[Piece, ...]:
    """Return what to read, in order, for the positions from ``start`` up to but excluding ``end``.

    ``newest_first`` holds (name, size in bytes) of the existing files, the current one first.
    ``base`` is the position of the current file's first byte. Output that rotation removed is
    left out.
    """
    result: list[Piece] = []
    last = base + (newest_first[0][1] if newest_first else 0)
    end = last if end is None else min(end, last)
    at = base
    for age, (name, size) in enumerate(newest_first):
        if age:
            at -= size
        first, past = max(start, at), min(end, at + size)
        if first < past:
            result.append(Piece(name=name, start=first - at, length=past - first))
    return tuple(reversed(result))
