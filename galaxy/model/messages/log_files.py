"""The layout of a task's output on disk: file names, rotation, and where each run begins.

AppWorker writes ``<task>.stdout`` and ``<task>.stderr``. A full file becomes ``.1``, that one
``.2`` and so on; the oldest is removed. Every byte of a stream has a *position*, counted from 0
since the container began, which rotation does not change. ``<task>.runs.json`` (a ``RunIndex``,
replaced atomically at each start and each rotation) holds the position at which the current file
of each stream begins, and the positions at which the latest runs of the program began. So the
output of the previous run lies between two positions, over as many files as that takes.

A reader decodes the index, takes the files' sizes, and reads ``pieces``. If the index differs
afterwards, a rotation happened in between and the reader has to start again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from galaxy.model.base import Struct

STREAMS: Final = ("stdout", "stderr")
RUNS_MAX: Final = 16
"""Runs that the index keeps."""


class Run(Struct, frozen=True, kw_only=True):
    """One run of a program: its number, its start in Unix seconds, and its first position per stream."""

    number: int
    started_s: float
    stdout: int
    stderr: int


class RunIndex(Struct, frozen=True, kw_only=True):
    """``stdout`` and ``stderr`` are the positions of the first byte of the current, unrotated files."""

    stdout: int = 0
    stderr: int = 0
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
    return index.stdout if stream == "stdout" else index.stderr


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
