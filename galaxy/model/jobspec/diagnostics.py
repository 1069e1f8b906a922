"""Problems in a job file: each has a path, a text and, if known, a position in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from galaxy.errors import NotSupportedYet, SpecError
from galaxy.units import counted

Path = tuple[str | int, ...]
"""A place in a job file: field names and list indexes, outermost first."""

DIAGNOSTICS_MAX: Final = 200
"""Most diagnostics shown for one file."""


class Mark(NamedTuple):
    """A position in a text; line and column count from 1."""

    line: int
    column: int


class Diagnostic(NamedTuple):
    """One problem at ``path``. ``unsupported``: valid, but not implemented in this version.

    ``about`` lists other fields that it depends on: the diagnostic is dropped if one of them could not be
    parsed.
    """

    path: Path
    text: str
    unsupported: bool = False
    about: tuple[Path, ...] = ()

    def __str__(self) -> str:
        return f"`{write_path(self.path)}`: {self.text}" if self.path else self.text


def write_path(path: Path) -> str:
    """Format a path: ``pod.tasks[0].ports[1].name``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def nearest_mark(path: Path, marks: Mapping[Path, Mark]) -> Mark | None:
    """Return the position of ``path`` or of its nearest known parent, None without any."""
    return next((marks[path[:end]] for end in range(len(path), -1, -1) if path[:end] in marks), None)


def spec_error(
    diagnostics: Sequence[Diagnostic],
    *,
    name: str = "",
    marks: Mapping[Path, Mark] | None = None,
    label: str = "",
) -> SpecError:
    """Return one error that lists all ``diagnostics`` in the order of the file, with ``name:line:column``.

    Without the ``name`` of a file, the lines name the fields only, and ``label`` names the job.
    """
    placed = [
        (nearest_mark(diagnostic.path, marks or {}) or Mark(0, 0), diagnostic) for diagnostic in diagnostics
    ]
    placed.sort(key=lambda pair: pair[0])
    lines = [f"{_place(name, mark)}{diagnostic}" for mark, diagnostic in placed]
    if len(lines) > DIAGNOSTICS_MAX:
        lines = [*lines[:DIAGNOSTICS_MAX], f"and {len(diagnostics) - DIAGNOSTICS_MAX} more"]
    kind = NotSupportedYet if all(diagnostic.unsupported for diagnostic in diagnostics) else SpecError
    count = counted(len(diagnostics), "problem")
    named = f'job file "{name}"'
    return kind(f"cannot use {label or named}: {count}", details=lines)


def _place(name: str, mark: Mark) -> str:
    if not name:
        return ""
    return f"{name}:{mark.line}:{mark.column}: " if mark.line else f"{name}: "
