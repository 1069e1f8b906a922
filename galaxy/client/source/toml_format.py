"""TOML: parsed and checked by tomllib; when positions are needed, a second pass finds them.

No maintained TOML library reports where a key was: tomllib and tomli return plain values, and
tomlkit keeps comments and spacing but no lines. The second pass can be short, because it only
sees text that tomllib has accepted.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Final

from galaxy.client.source.syntax import DEPTH_MAX, TOO_DEEP, Marks, SyntaxDiagnostic, depth_of
from galaxy.model.jobspec.diagnostics import Mark, Path
from galaxy.model.jobspec.scalars import WrittenDate, fraction, whole_number

_ERROR: Final = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)
_SKIP: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' r"'''.*?'{3,5}|" r'"(?:[^"\\\n]|\\.)*"|' r"'[^'\n]*'", re.DOTALL
)
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR: Final = re.compile(rf"{_STRING.pattern}|[^,\]}}\r\n#]*", re.DOTALL)

_KEY: Final = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_DEEP_KEY: Final = re.compile(
    rf"(?P<deep>(?:{_KEY}[ \t]*+\.[ \t]*+){{{DEPTH_MAX + 1}}})"
    r"|\"{3}(?:[^\\\"]|\\.|\"(?!\"\"))*+\"{0,5}|'{3}(?:[^']|'(?!''))*+'{0,5}"
    r"|\"(?:[^\"\\\n]|\\.)*+\"?|'[^'\n]*+'?"
    r"|#[^\n]*+|[A-Za-z0-9_-]++",
    re.DOTALL,
)
"""A dotted key of too many parts. The other alternatives consume strings and comments, so that nothing
inside them matches."""


def parse_toml(text: str) -> tuple[Any, Callable[[], Marks]]:
    """Return the tables in ``text``, and a function that finds their positions.

    Raises:
        SyntaxDiagnostic: it is not TOML, or is too deep.
    """
    text = text.replace("\r\n", "\n")
    _refuse_deep_keys(text)
    try:
        tree = tomllib.loads(text)
        if depth_of(tree) > DEPTH_MAX + 1:
            raise SyntaxDiagnostic(Mark(1, 1), TOO_DEEP)
    except RecursionError as error:
        raise SyntaxDiagnostic(Mark(1, 1), TOO_DEEP) from error
    except ValueError as error:  # TOMLDecodeError, or an integer of more digits than int() takes.
        match = _ERROR.fullmatch(str(error))
        last_line = Mark(text.count("\n") + 1, 1)
        mark = Mark(int(match[2]), int(match[3])) if match and match[2] else last_line
        raise SyntaxDiagnostic(mark, match[1] if match else str(error)) from error
    if not _has_numbers(tree):
        return tree, lambda: _MarkFinder(text).marks
    finder = _MarkFinder(text)
    return _as_written(tree, finder.scalars, ()), lambda: finder.marks


def _refuse_deep_keys(text: str) -> None:
    """Refuse dotted keys of very many parts, for which tomllib takes minutes."""
    for match in _DEEP_KEY.finditer(text):
        if match["deep"]:
            line = text.count("\n", 0, match.start()) + 1
            column = match.start() - text.rfind("\n", 0, match.start())
            raise SyntaxDiagnostic(Mark(line, column), TOO_DEEP)


def _has_numbers(value: Any) -> bool:
    """Return whether ``value`` has numbers or dates, whose text tomllib does not keep."""
    if isinstance(value, dict | list):
        return any(_has_numbers(item) for item in (value.values() if isinstance(value, dict) else value))
    return not isinstance(value, str | bool)


def _as_written(value: Any, texts: dict[Path, str], path: Path) -> Any:
    """Return ``value`` with numbers and dates that remember their ``texts``."""
    if isinstance(value, dict):
        return {name: _as_written(item, texts, (*path, name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_as_written(item, texts, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, str | bool):
        return value
    text = texts[path]
    if isinstance(value, int):
        return whole_number(value, text)
    return fraction(value, text) if isinstance(value, float) else WrittenDate(text)


class _MarkFinder:
    """Walks over valid TOML and records where keys and items of lists start.

    Each method reads one construct that starts at offset ``at``, and returns the offset after it.
    """

    def __init__(self, text: str) -> None:
        self.marks: Marks = {(): Mark(1, 1)}
        self.scalars: dict[Path, str] = {}
        """How numbers, dates, true and false were written, and strings with their quotes."""
        self._text = text
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._list_lengths: dict[Path, int] = {}
        table: Path = ()
        at = self._skip(0)
        while at < len(text):
            if text.startswith("[", at):
                table, at = self._header(at)
            else:
                at = self._pair(table, at)
            at = self._skip(at)

    def _record(self, path: Path, at: int) -> None:
        line = bisect_right(self._line_starts, at)
        self.marks.setdefault(path, Mark(line, at - self._line_starts[line - 1] + 1))

    def _skip(self, at: int) -> int:
        return _end(_SKIP, self._text, at)

    def _header(self, at: int) -> tuple[Path, int]:
        """Read ``[a.b]`` or ``[[a.b]]``. Within a list of tables, a name stands for its last item."""
        brackets = 2 if self._text.startswith("[[", at) else 1
        names, end = self._key(at + brackets)
        path: Path = ()
        for name in names[:-1]:
            path = self._last_item((*path, name), at)
        path = (*path, names[-1])
        self._record(path, at)
        if brackets == 2:
            index = self._list_lengths.get(path, 0)
            self._list_lengths[path] = index + 1
            path = (*path, index)
            self._record(path, at)
        return path, self._skip(end) + brackets

    def _last_item(self, path: Path, at: int) -> Path:
        self._record(path, at)
        return (*path, self._list_lengths[path] - 1) if path in self._list_lengths else path

    def _key(self, at: int) -> tuple[list[str], int]:
        """Read ``a."b".c``; return its parts."""
        names: list[str] = []
        while True:
            at = self._skip(at)
            string = _STRING.match(self._text, at)
            end = string.end() if string else _end(_BARE_KEY, self._text, at)
            names.append(tomllib.loads(f"x = {string[0]}")["x"] if string else self._text[at:end])
            at = self._skip(end)
            if not self._text.startswith(".", at):
                return names, at
            at += 1

    def _pair(self, table: Path, at: int) -> int:
        """Read ``key = value``."""
        names, end = self._key(at)
        path = table
        for name in names:
            path = (*path, name)
            self._record(path, at)
        return self._value(path, self._skip(end + 1))

    def _value(self, path: Path, at: int) -> int:
        self._record(path, at)
        if self._text.startswith("[", at):
            return self._sequence(at, "]", lambda index, at: self._value((*path, index), at))
        if self._text.startswith("{", at):
            return self._sequence(at, "}", lambda _, at: self._pair(path, at))
        end = _end(_SCALAR, self._text, at)
        self.scalars[path] = self._text[at:end].strip()
        return end

    def _sequence(self, at: int, closing: str, read: Callable[[int, int], int]) -> int:
        """Read a list or an inline table; ``read`` reads the element with an index at an offset."""
        at, index = self._skip(at + 1), 0
        while not self._text.startswith(closing, at):
            at = self._skip(read(index, at))
            at = self._skip(at + 1) if self._text.startswith(",", at) else at
            index += 1
        return at + 1


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    assert match is not None
    return match.end()
