"""What goes to stdout, as a table or for machines, and what goes to the terminal beside it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, TextIO

import msgspec

from galaxy.units import format_duration

FORMATS: Final = ("table", "wide", "json", "yaml", "name")

COLOURS: Final = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "magenta": "35", "cyan": "36",
                  "dim": "2", "bold": "1"}  # fmt: skip

STATES: Final = {
    "running": "green", "healthy": "green", "alive": "green", "finished": "green",
    "pending": "yellow", "deploying": "yellow", "updating": "yellow", "stopping": "yellow",
    "draining": "yellow", "suspect": "yellow", "removing": "yellow", "backoff": "yellow",
    "failed": "red", "dead": "red", "stalled": "red", "degraded": "red", "unhealthy": "red",
    "stopped": "dim", "removed": "dim",
}  # fmt: skip
"""Colour of a state wherever it is shown."""


_ESCAPED: Final = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
"""Control characters that JSON need not escape, and terminals obey."""


class Output:
    """One choice of ``-o``: ``rows`` for people, or nouns with the SDK's field names for machines."""

    def __init__(self, form: str = "table", *, headers: bool = True) -> None:
        self.form = form
        self.headers = headers

    @property
    def wide(self) -> bool:
        return self.form == "wide"

    @property
    def for_people(self) -> bool:
        return self.form in ("table", "wide")

    def print_data(self, value: Any, names: Sequence[str]) -> bool:
        """Print ``value`` for machines, or ``names`` one a line; False when people want a table."""
        if self.form == "json":
            text = json.dumps(with_all_fields(value), indent=2, ensure_ascii=False)
            print_out(text.translate(_ESCAPED), raw=True)
        elif self.form == "yaml":
            from galaxy.client.source.yaml_format import write_yaml

            print_out(write_yaml(with_all_fields(value)).rstrip("\n"), raw=True)
        elif self.form == "name":
            for name in names:
                print_out(name)
        return not self.for_people

    def print_table(self, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print ``rows`` below ``titles``, columns aligned; on a terminal cut to its width."""
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        for line in table_lines(
            titles, rows, headers=self.headers, width=width, colour=wants_colour(sys.stdout)
        ):
            print_out(line, raw=True)


def with_all_fields(value: Any) -> Any:
    """Return nouns as dicts with every field, defaults too: a script should not have to know them."""
    if isinstance(value, msgspec.Struct):
        return {name: with_all_fields(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {str(name): with_all_fields(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_all_fields(item) for item in value]
    return msgspec.to_builtins(value)


def table_lines(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    headers: bool = True,
    width: int = 0,
    colour: bool = False,
) -> list[str]:
    """Return aligned lines, two spaces between columns; 0 is no ``width`` to cut to."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    shown = [list(titles), *cells] if headers else cells
    if not shown:
        return []
    widths = [max(len(row[at]) for row in shown) for at in range(len(titles))]
    lines = []
    for number, row in enumerate(shown):
        last = len(row) - 1
        plain = "  ".join(cell if at == last else cell.ljust(widths[at]) for at, cell in enumerate(row))
        line = truncate(plain.rstrip(), width)
        head = headers and number == 0
        lines.append(_coloured_line(line, row, widths, head) if colour else line)
    return lines


def _coloured_line(line: str, row: Sequence[str], widths: Sequence[int], head: bool) -> str:
    """Colour a finished line: its states, or all of it when it is the head."""
    if head:
        return paint(line, "bold", True)
    at, painted = 0, line
    for cell, width in zip(row, widths, strict=True):
        if cell in STATES and line[at : at + len(cell)] == cell:
            ahead = len(painted) - len(line)
            start = at + ahead
            painted = painted[:start] + paint(cell, STATES[cell], True) + painted[start + len(cell) :]
        at += width + 2
    return painted


def one_line(text: str) -> str:
    """Return ``text`` without anything that could move the cursor or break a table."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def sanitize(text: str) -> str:
    """Return ``text`` with its lines, and nothing else that could move the cursor.

    Agents, programs and other users have a say in much of what is told.
    """
    return "\n".join(map(one_line, text.split("\n")))


def truncate(text: str, width: int) -> str:
    """Shorten ``text`` to ``width`` characters; 0 is no limit."""
    return text if not width or len(text) <= width else f"{text[: width - 1]}…"


def wants_colour(stream: TextIO) -> bool:
    """Tell whether ``stream`` is a terminal that wants colours (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, on: bool) -> str:
    """Return ``text`` in a colour of ``COLOURS`` when ``on``."""
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if on and colour in COLOURS else text


def paint_state(state: str, on: bool) -> str:
    """Return a state in its colour when ``on``."""
    return paint(state, STATES.get(state, ""), on)


def print_out(text: str, *, raw: bool = False) -> None:
    """Write a line of data to stdout, sanitize; ``raw`` is that already, or our own: colours, a script."""
    sys.stdout.write(f"{text if raw else sanitize(text)}\n")


def print_err(text: str, *, raw: bool = False) -> None:
    """Write a line of progress or warning to stderr; ``raw`` as in ``write``."""
    sys.stderr.write(f"{text if raw else sanitize(text)}\n")
    sys.stderr.flush()


def format_age(at_s: float, now_s: float) -> str:
    """Write how long ago something was; empty for what never was."""
    return "" if not at_s else format_duration(max(0, int(now_s - at_s)))


def format_time(at_s: float) -> str:
    """Write a time in full, local with its offset; empty for what never was."""
    return "" if not at_s else time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(at_s))
