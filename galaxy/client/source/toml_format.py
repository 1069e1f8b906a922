"""TOML with positions: tomllib reads and judges it; a second pass over what is known to be valid
finds where each key was, which tomllib does not tell.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from datetime import date, datetime, time
from typing import Any, Final

from galaxy.client.source.job_file import DEPTH_MAX, SyntaxDiagnostic
from galaxy.model.jobspec.diagnostics import Mark, Path

_AT: Final = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)
_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN: Final = re.compile(r"[^,\]}\r\n#]*")
_STRING: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' r"'''.*?'{3,5}|" r'"(?:[^"\\\n]|\\.)*"|' r"'[^'\n]*'", re.DOTALL
)
_DIGITS_MAX: Final = 400
_KEY: Final = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_EXTREME: Final = re.compile(
    rf"(?P<deep>(?:{_KEY}[ \t]*+\.[ \t]*+){{{DEPTH_MAX + 1}}})"
    rf"|(?P<long>[0-9_]{{{_DIGITS_MAX + 1}}})(?![A-Za-z0-9_-]*+[ \t]*+[=.\]])"
    r"|\"{3}(?:[^\\\"]|\\.|\"(?!\"\"))*+\"{0,5}|'{3}(?:[^']|'(?!''))*+'{0,5}"
    r"|\"(?:[^\"\\\n]|\\.)*+\"?|'[^'\n]*+'?"
    r"|#[^\n]*+|[A-Za-z0-9_-]++",
    re.DOTALL,
)
"""Strings, ended or not, comments and words are matched so that nothing inside them is."""


def parse_toml(text: str) -> tuple[Any, dict[Path, Mark]]:
    """Return the tables in ``text`` and where everything in them is.

    Raises:
        SyntaxFlaw: it is not TOML.
    """
    text = text.replace("\r\n", "\n")
    _refuse_extremes(text)
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = _AT.fullmatch(str(error))
        last = Mark(text.count("\n") + 1, 1)
        mark = Mark(int(match[2]), int(match[3])) if match and match[2] else last
        raise SyntaxDiagnostic(mark, match[1] if match else str(error)) from error
    except RecursionError as error:
        raise SyntaxDiagnostic(Mark(1, 1), f"more than {DEPTH_MAX} levels within each other") from error
    if _depth(tree) > DEPTH_MAX:
        raise SyntaxDiagnostic(Mark(1, 1), f"more than {DEPTH_MAX} levels within each other")
    return _plain(tree), _Places(text).marks


def _refuse_extremes(text: str) -> None:
    """Refuse what tomllib takes minutes for, a name of very many parts, or raises on, very long numbers."""
    for match in _EXTREME.finditer(text):
        if match["deep"] or match["long"]:
            line = text.count("\n", 0, match.start()) + 1
            mark = Mark(line, match.start() - text.rfind("\n", 0, match.start()))
            deep = f"more than {DEPTH_MAX} levels within each other"
            raise SyntaxDiagnostic(
                mark, deep if match["deep"] else f"a number of more than {_DIGITS_MAX} digits"
            )


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max((_depth(item) for item in inner), default=0)


def _plain(value: Any) -> Any:
    """Write dates as text: a job file has none, so the reader will say what was expected."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime | date | time) else value


class _Places:
    """Walks over valid TOML and notes where keys and list items begin."""

    def __init__(self, text: str) -> None:
        self.marks: dict[Path, Mark] = {(): Mark(1, 1)}
        self._text = text
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self._counts: dict[Path, int] = {}
        table: Path = ()
        at = self._skip(0)
        while at < len(text):
            if text.startswith("[", at):
                table, at = self._header(at)
            else:
                at = self._pair(table, at)
            at = self._skip(at)

    def _skip(self, at: int) -> int:
        match = _BLANK.match(self._text, at)
        assert match is not None
        return match.end()

    def _note(self, path: Path, at: int) -> None:
        line = bisect_right(self._lines, at)
        self.marks.setdefault(path, Mark(line, at - self._lines[line - 1] + 1))

    def _header(self, at: int) -> tuple[Path, int]:
        """Read ``[a.b]`` or ``[[a.b]]``; inside a list of tables the last one is meant."""
        many = self._text.startswith("[[", at)
        names, end = self._key(at + (2 if many else 1))
        path: Path = ()
        for depth, name in enumerate(names):
            path = (*path, name)
            self._note(path, at)
            if path in self._counts and not (many and depth == len(names) - 1):
                path = (*path, self._counts[path] - 1)
        if many:
            index = self._counts.get(path, 0)
            self._counts[path] = index + 1
            path = (*path, index)
            self._note(path, at)
        return path, self._text.index("]", end) + (2 if many else 1)

    def _key(self, at: int) -> tuple[list[str], int]:
        names: list[str] = []
        while True:
            at = self._skip(at)
            string = _STRING.match(self._text, at)
            bare = _BARE.match(self._text, at)
            if string:
                names.append(tomllib.loads(f"x = {string[0]}")["x"])
                at = string.end()
            else:
                assert bare is not None
                names.append(bare[0])
                at = bare.end()
            after = self._skip(at)
            if not self._text.startswith(".", after):
                return names, after
            at = after + 1

    def _pair(self, table: Path, at: int) -> int:
        """Read ``key = value`` and return where it ends."""
        names, end = self._key(at)
        path = table
        for name in names:
            path = (*path, name)
            self._note(path, at)
        return self._value(path, self._skip(end + 1))

    def _value(self, path: Path, at: int) -> int:
        self._note(path, at)
        string = _STRING.match(self._text, at)
        if string:
            return string.end()
        if self._text.startswith("[", at):
            return self._list(path, at)
        if self._text.startswith("{", at):
            at = self._skip(at + 1)
            while not self._text.startswith("}", at):
                at = self._skip(self._pair(path, at))
                at = self._skip(at + 1) if self._text.startswith(",", at) else at
            return at + 1
        plain = _PLAIN.match(self._text, at)
        assert plain is not None
        return plain.end()

    def _list(self, path: Path, at: int) -> int:
        at, index = self._skip(at + 1), 0
        while not self._text.startswith("]", at):
            at = self._skip(self._value((*path, index), at))
            at = self._skip(at + 1) if self._text.startswith(",", at) else at
            index += 1
        return at + 1
