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
from galaxy.model.raw_text import shown
from galaxy.units import format_bytes

FILE_BYTES_MAX: Final = 512 * 1024

SUFFIXES: Final[Mapping[str, str]] = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml"}


_FORMATS: Final = tuple(dict.fromkeys(SUFFIXES.values()))


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


def read(path: str, *, what: str = "job file") -> Source:
    """Read ``path`` in the format of its suffix; ``-`` is standard input, whose format is guessed.

    Errors call it ``what``.

    Raises:
        SpecError: the file does not exist, is too long, or its syntax is wrong.
        UsageError: the suffix belongs to no known format.
    """
    if path == "-":
        return parse(
            _decode(sys.stdin.buffer.read(FILE_BYTES_MAX + 1), "<stdin>", what), name="<stdin>", what=what
        )
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES and suffix:
        raise UsageError(
            f'cannot tell the format of "{path}"', details=[f"known: {', '.join(SUFFIXES)}, or - for stdin"]
        )
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have.
        why = getattr(error, "strerror", None) or error
        raise SpecError(f'cannot read {what} "{shown(path)}": {why}') from error
    return parse(_decode(data, path, what), name=path, format=SUFFIXES.get(suffix, ""), what=what)


def parse(text: str, *, name: str, format: str = "", what: str = "job file") -> Source:
    """Parse ``text`` as ``format`` (``yaml``, ``json`` or ``toml``).

    Without a format, it is the first one in which the text has fields. If it is wrong in all of them,
    the message is about the one that the first line looks like.

    Raises:
        SpecError: the syntax is wrong; the message has line and column.
    """
    likely = format or _likely_format(text)
    outcomes: list[Source | SyntaxDiagnostic] = []
    for chosen in (likely, *(other for other in _FORMATS if other != likely and not format)):
        try:
            source = Source(name, chosen, *_parse(text, chosen))
        except SyntaxDiagnostic as problem:
            outcomes.append(problem)
            continue
        if isinstance(source.tree, dict):
            return source
        outcomes.append(source)
    likeliest = outcomes[0]
    if isinstance(likeliest, Source):
        return likeliest
    place = f"{name}:{likeliest.mark.line}:{likeliest.mark.column}"
    details = [f"{place}: {likeliest.text}"]
    raise SpecError(f'cannot read {what} "{name}"', details=details) from likeliest


def _parse(text: str, format: str) -> tuple[Any, Callable[[], Marks]]:
    # Imported here because each reader imports a parser, and a command needs one of them.
    if format == "json":
        from galaxy.client.source.json_format import parse_json as parse_text
    elif format == "toml":
        from galaxy.client.source.toml_format import parse_toml as parse_text
    else:
        from galaxy.client.source.yaml_format import parse_yaml as parse_text
    return parse_text(text)


def _likely_format(text: str) -> str:
    """Return the format that the first line looks like: JSON with ``{``, TOML with ``a =`` or ``[a]``."""
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if stripped.startswith("{"):
            return "json"
        if stripped.startswith(("---", "%", "- ", "? ")):
            return "yaml"
        key, equals, _ = stripped.partition("=")
        return "toml" if stripped.startswith("[") or (equals and ":" not in key) else "yaml"
    return "yaml"


def _decode(data: bytes, name: str, what: str) -> str:
    if len(data) > FILE_BYTES_MAX:
        limit = format_bytes(FILE_BYTES_MAX)
        raise SpecError(f'cannot read {what} "{name}": it is longer than {limit}')
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError(f'cannot read {what} "{name}": line {line} is not UTF-8 text') from error
