"""Job files as text: YAML, JSON or TOML become a tree, and every path in it a line and a column.

What is odd in a format is refused rather than guessed: duplicate keys, YAML tags, more than one
document. YAML is read by its 1.2 core schema, so ``no`` and ``12:30`` are text, not a boolean
and not a number.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from galaxy.errors import SpecError, UsageError
from galaxy.model.jobspec import parsing
from galaxy.model.jobspec.diagnostics import Mark
from galaxy.model.jobspec.diagnostics import Path as FieldPath
from galaxy.model.jobspec.spec import JobSpec
from galaxy.units import format_bytes

FILE_BYTES_MAX: Final = 512 * 1024
DEPTH_MAX: Final = 32
"""Lists and fields within each other; a job file needs eight."""

SUFFIXES: Final[Mapping[str, str]] = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml"}


class Source(NamedTuple):
    """A job file that has been read: its ``name`` for messages, its tree, where everything is."""

    name: str
    tree: Any
    marks: dict[FieldPath, Mark]
    format: str


class SyntaxDiagnostic(Exception):
    """A text that is not what its format says, at one place."""

    def __init__(self, mark: Mark, text: str) -> None:
        super().__init__(text)
        self.mark = mark
        self.text = text


def load(path: str) -> JobSpec:
    """Read the job file at ``path``, or standard input for ``-``.

    Raises:
        SpecError: it cannot be read, or is wrong; ``details`` has every problem.
    """
    source = read(path)
    return parsing.load(source.tree, name=source.name, marks=source.marks)


def read(path: str) -> Source:
    """Read ``path`` (``-``: standard input) as the format that its suffix, or its look, says.

    Raises:
        SpecError: there is no such file, it is too long, or its syntax is wrong.
        UsageError: the suffix is of no known format.
    """
    if path == "-":
        return parse(_text(sys.stdin.buffer.read(FILE_BYTES_MAX + 1), "<stdin>"), name="<stdin>")
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES and suffix:
        raise UsageError(
            f'cannot tell the format of "{path}"', details=[f"known: {', '.join(SUFFIXES)}, or - for stdin"]
        )
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise SpecError(f'cannot read job file "{path}": {error.strerror}') from error
    return parse(_text(data, path), name=path, format=SUFFIXES.get(suffix, ""))


def parse(text: str, *, name: str, format: str = "") -> Source:
    """Read ``text``; without ``format`` its first character decides between JSON, TOML and YAML.

    Raises:
        SpecError: the syntax is wrong; the message has line and column.
    """
    chosen = format or _look(text)
    try:
        if chosen == "json":
            from galaxy.client.source.json_format import parse_json as read_tree
        elif chosen == "toml":
            from galaxy.client.source.toml_format import parse_toml as read_tree
        else:
            from galaxy.client.source.yaml_format import parse_yaml as read_tree
        tree, marks = read_tree(text)
    except SyntaxDiagnostic as flaw:
        place = f"{name}:{flaw.mark.line}:{flaw.mark.column}"
        raise SpecError(f'cannot read job file "{name}"', details=[f"{place}: {flaw.text}"]) from flaw
    return Source(name, tree, marks, chosen)


def _look(text: str) -> str:
    """Guess a format: ``{`` begins JSON; a first line like ``name = …`` or ``[table]`` is TOML."""
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if stripped.startswith("{"):
            return "json"
        key, equals, _ = stripped.partition("=")
        return "toml" if stripped.startswith("[") or (equals and ":" not in key) else "yaml"
    return "yaml"


def _text(data: bytes, name: str) -> str:
    if len(data) > FILE_BYTES_MAX:
        limit = format_bytes(FILE_BYTES_MAX)
        raise SpecError(f'cannot read job file "{name}": it is longer than {limit}')
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError(f'cannot read job file "{name}": line {line} is not UTF-8 text') from error
