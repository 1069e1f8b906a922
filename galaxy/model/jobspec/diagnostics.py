"""What is wrong in a job file, and where: a flaw has a path, a sentence and, from a file, a place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from galaxy.errors import NotSupportedYet, SpecError
from galaxy.units import counted

Path = tuple[str | int, ...]
"""Where in a job file: names of fields and indexes of lists, from the outside in."""

DIAGNOSTICS_MAX: Final = 200
"""Flaws shown at most; a file with more is not a job file."""


class Mark(NamedTuple):
    """A place in a text, both counted from 1."""

    line: int
    column: int


class Diagnostic(NamedTuple):
    """One thing that is wrong at ``path``; ``unsupported`` means right, but not in this version.

    ``about`` are the other fields that it goes over: while they cannot be read, it says nothing.
    """

    path: Path
    text: str
    unsupported: bool = False
    about: tuple[Path, ...] = ()

    def __str__(self) -> str:
        return f"`{write_path(self.path)}`: {self.text}" if self.path else self.text


def write_path(path: Path) -> str:
    """Write a path as people do: ``pod.tasks[0].ports[1].name``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def mark_of(path: Path, marks: Mapping[Path, Mark]) -> Mark | None:
    """Return where ``path`` is, or else the nearest thing around it; None when nothing is known."""
    return next((marks[path[:end]] for end in range(len(path), -1, -1) if path[:end] in marks), None)


def error_of(flaws: Sequence[Diagnostic], *, name: str, marks: Mapping[Path, Mark]) -> SpecError:
    """Return one error that lists all ``flaws`` in the order of the file, with ``name:line:column``."""
    placed = [(mark_of(flaw.path, marks) or Mark(0, 0), flaw) for flaw in flaws]
    placed.sort(key=lambda pair: pair[0])
    lines = [
        f"{name}:{mark.line}:{mark.column}: {flaw}" if mark.line else f"{name}: {flaw}"
        for mark, flaw in placed
    ]
    if len(lines) > DIAGNOSTICS_MAX:
        lines = [*lines[:DIAGNOSTICS_MAX], f"and {len(flaws) - DIAGNOSTICS_MAX} more"]
    kind = NotSupportedYet if all(flaw.unsupported for flaw in flaws) else SpecError
    count = counted(len(flaws), "problem")
    return kind(f'cannot use job file "{name}": {count}', details=lines)
