"""Read job files: YAML, JSON or TOML becomes a tree, and each path in it has a line and a column.

Ambiguous input is refused rather than guessed: duplicate keys, YAML tags, more than one
document. YAML is read by its 1.2 core schema, so ``no`` and ``12:30`` are text.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from galaxy.client.source.syntax import Marks, SyntaxDiagnostic
from galaxy.errors import SpecError, UsageError
from galaxy.model.jobspec import parsing
from galaxy.model.jobspec.diagnostics import Diagnostic, spec_error
from galaxy.model.jobspec.spec import JobSpec
from galaxy.units import format_bytes

FILE_BYTES_MAX: Final = 512 * 1024

SUFFIXES: Final[Mapping[str, str]] = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml"}


class Source:
    """A job file that has been read: its ``name`` for messages, its format and its tree."""

    def __init__(self, name: str, format: str, tree: Any, find_marks: Callable[[], Marks]) -> None:
        self.name = name
        self.format = format
        self.tree = tree
        self._find_marks = find_marks

    @cached_property
    def marks(self) -> Marks:
        """Positions of all paths, found on first use, because only error messages need them."""
        return self._find_marks()


def load(path: str, *, also: Callable[[JobSpec], Sequence[Diagnostic]] = lambda _: ()) -> JobSpec:
    """Read the job file at ``path``; ``-`` is standard input.

    ``also`` returns further problems of a spec that follows all rules, such as missing files.

    Raises:
        SpecError: it cannot be read or is wrong; ``details`` has every problem.
        UsageError: the suffix belongs to no known format.
    """
    source = read(path)
    result = parsing.parse(source.tree)
    if problems := result.diagnostics or tuple(also(result.spec)):
        raise spec_error(problems, name=source.name, marks=source.marks)
    return result.spec


def read(path: str) -> Source:
    """Read ``path`` in the format of its suffix; ``-`` is standard input, whose format is guessed.

    Raises:
        SpecError: the file does not exist, is too long, or its syntax is wrong.
        UsageError: the suffix belongs to no known format.
    """
    if path == "-":
        return parse(_decode(sys.stdin.buffer.read(FILE_BYTES_MAX + 1), "<stdin>"), name="<stdin>")
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
    return parse(_decode(data, path), name=path, format=SUFFIXES.get(suffix, ""))


def parse(text: str, *, name: str, format: str = "") -> Source:
    """Parse ``text`` as ``format`` (``yaml``, ``json`` or ``toml``), which is guessed when empty.

    Raises:
        SpecError: the syntax is wrong; the message has line and column.
    """
    chosen = format or _guess_format(text)
    try:
        # Imported here because each reader imports a parser, and a command needs one of them.
        if chosen == "json":
            from galaxy.client.source.json_format import parse_json as parse_text
        elif chosen == "toml":
            from galaxy.client.source.toml_format import parse_toml as parse_text
        else:
            from galaxy.client.source.yaml_format import parse_yaml as parse_text
        tree, find_marks = parse_text(text)
    except SyntaxDiagnostic as problem:
        place = f"{name}:{problem.mark.line}:{problem.mark.column}"
        raise SpecError(f'cannot read job file "{name}"', details=[f"{place}: {problem.text}"]) from problem
    return Source(name, chosen, tree, find_marks)


def _guess_format(text: str) -> str:
    """Guess from the first line: ``{`` starts JSON, ``name = …`` and ``[table]`` start TOML."""
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if stripped.startswith("{"):
            return "json"
        key, equals, _ = stripped.partition("=")
        return "toml" if stripped.startswith("[") or (equals and ":" not in key) else "yaml"
    return "yaml"


def _decode(data: bytes, name: str) -> str:
    if len(data) > FILE_BYTES_MAX:
        limit = format_bytes(FILE_BYTES_MAX)
        raise SpecError(f'cannot read job file "{name}": it is longer than {limit}')
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError(f'cannot read job file "{name}": line {line} is not UTF-8 text') from error
