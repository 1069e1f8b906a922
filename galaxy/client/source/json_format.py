"""JSON with positions: the standard library reads JSON, but does not say where anything was."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from json import decoder
from typing import Any, Final

from galaxy.client.source.job_file import DEPTH_MAX, SyntaxDiagnostic
from galaxy.model.jobspec.diagnostics import Mark, Path

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORDS: Final = {"true": True, "false": False, "null": None}
_WORD: Final = re.compile(r"[A-Za-z]+")
_DIGITS_MAX: Final = 64


def parse_json(text: str) -> tuple[Any, dict[Path, Mark]]:
    """Return the value in ``text`` and where everything in it is; a tab is one column.

    Raises:
        SyntaxFlaw: it is not JSON, or a key comes twice.
    """
    scan = _Scan(text)
    value = scan.value((), scan.space(0))
    end = scan.space(scan.end)
    if end != len(text):
        raise scan.flaw(end, "something follows the end of the value")
    return value, scan.marks


class _Scan:
    """Reads ``text`` from left to right; ``end`` is behind what was read last."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.end = 0
        self.marks: dict[Path, Mark] = {}
        self._lines = [0, *(match.end() for match in re.finditer(r"\n", text))]

    def mark(self, at: int) -> Mark:
        line = bisect_right(self._lines, at)
        return Mark(line, at - self._lines[line - 1] + 1)

    def flaw(self, at: int, text: str) -> SyntaxDiagnostic:
        return SyntaxDiagnostic(self.mark(min(at, len(self.text))), text)

    def space(self, at: int) -> int:
        match = _SPACE.match(self.text, at)
        assert match is not None
        return match.end()

    def value(self, path: Path, at: int) -> Any:
        if len(path) > DEPTH_MAX:
            raise self.flaw(at, f"more than {DEPTH_MAX} levels within each other")
        self.marks.setdefault(path, self.mark(at))
        letter = self.text[at : at + 1]
        if letter == "{":
            return self._fields(path, at)
        if letter == "[":
            return self._items(path, at)
        if letter == '"':
            return self._string(at)
        number = _NUMBER.match(self.text, at)
        if number:
            self.end = number.end()
            if len(number[0]) > _DIGITS_MAX:
                raise self.flaw(at, f"a number of more than {_DIGITS_MAX} characters")
            return float(number[0]) if number[1] or number[2] else int(number[0])
        word = _WORD.match(self.text, at)
        if word and word[0] in _WORDS:
            self.end = word.end()
            return _WORDS[word[0]]
        raise self.flaw(
            at, "the text ends too early" if not letter else f"a value was expected, not {letter!r}"
        )

    def _string(self, at: int) -> str:
        try:
            value: str
            value, self.end = decoder.scanstring(self.text, at + 1, True)  # type: ignore[attr-defined]
        except json.JSONDecodeError as error:
            raise self.flaw(error.pos, error.msg) from error
        return value

    def _fields(self, path: Path, at: int) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        at = self.space(at + 1)
        if self.text.startswith("}", at):
            self.end = at + 1
            return fields
        while True:
            if not self.text.startswith('"', at):
                comma = ", or a comma too many" if self.text.startswith("}", at) else ""
                raise self.flaw(at, f"a field's name in quotes was expected{comma}")
            name = self._string(at)
            here = (*path, name)
            if name in fields:
                first = self.marks[here].line
                raise self.flaw(at, f"`{name}` is given twice, first in line {first}")
            self.marks[here] = self.mark(at)
            colon = self.space(self.end)
            if not self.text.startswith(":", colon):
                raise self.flaw(colon, "`:` was expected")
            fields[name] = self.value(here, self.space(colon + 1))
            at, done = self._next("}")
            if done:
                return fields

    def _items(self, path: Path, at: int) -> list[Any]:
        items: list[Any] = []
        at = self.space(at + 1)
        if self.text.startswith("]", at):
            self.end = at + 1
            return items
        while True:
            items.append(self.value((*path, len(items)), at))
            at, done = self._next("]")
            if done:
                return items

    def _next(self, closing: str) -> tuple[int, bool]:
        """Step over a comma or the ``closing`` bracket; return where to go on, and whether it closed."""
        at = self.space(self.end)
        if self.text.startswith(closing, at):
            self.end = at + 1
            return self.end, True
        if not self.text.startswith(",", at):
            raise self.flaw(at, f"`,` or `{closing}` was expected")
        return self.space(at + 1), False
