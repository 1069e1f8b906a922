"""Output of commands: tables for people, data for programs, and text that cannot control the terminal."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TextIO

import msgspec

from galaxy.model.raw_text import shown
from galaxy.units import format_duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.segment import Segments

FORMATS: Final = ("table", "wide", "json", "yaml", "name")

STATES: Final = {
    "running": "green", "healthy": "green", "alive": "green", "finished": "green",
    "pending": "yellow", "deploying": "yellow", "updating": "yellow", "stopping": "yellow",
    "draining": "yellow", "suspect": "yellow", "removing": "yellow", "backoff": "yellow",
    "failed": "red", "dead": "red", "stalled": "red", "degraded": "red", "unhealthy": "red",
    "stopped": "dim", "removed": "dim",
}  # fmt: skip
"""The colour of each state."""

COLOURS: Final = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "magenta": "35", "cyan": "36",
                  "dim": "2", "bold": "1"}  # fmt: skip
"""SGR parameters (ECMA-48). The names are styles of rich as well."""

PROSE: Final = ("ADVICE", "REASON", "RESULT", "USED BY", "POOLS")
"""Titles of last columns whose cells are sentences or lists: they are never cut."""
INDENT: Final = "    "

_ESCAPED: Final = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
"""Control characters that JSON does not require to escape, but that terminals obey."""


class Output:
    """One choice of ``-o``: a table for people, or structs with the SDK's field names for programs."""

    def __init__(self, form: str = "table", *, headers: bool = True) -> None:
        self.form = form
        self.headers = headers

    @property
    def wide(self) -> bool:
        """Whether tables have more columns."""
        return self.form == "wide"

    @property
    def for_people(self) -> bool:
        """Whether a table is to be printed."""
        return self.form in ("table", "wide")

    def print_data(self, value: Any, names: Sequence[str]) -> bool:
        """Print ``value`` as JSON or YAML, or ``names`` one per line; return False for a table."""
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
        """Print aligned columns: fitted to the width of a terminal, complete elsewhere."""
        cells = [[one_line(cell) for cell in row] for row in rows]
        if sys.stdout.isatty():
            self._print_on_terminal(titles, cells)
            return
        for line in plain_table([titles, *cells] if self.headers else cells):
            print_out(line, raw=True)

    def _print_on_terminal(self, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print with colours, fitted to the width of the terminal.

        If the rows are too long, the last column goes to lines of its own, below each row, provided
        that it is prose (``PROSE``). Whatever is still too long is cut.
        """
        # Imported here because it is slow to import, and output to a pipe does not need it.
        from rich.console import Console
        from rich.text import Text

        console = Console(file=sys.stdout, color_system="auto" if wants_colour(sys.stdout) else None)
        prose: list[str] = []
        if titles and titles[-1] in PROSE and _width([titles, *rows]) > console.width:
            prose = [row[-1] for row in rows]
            titles, rows = titles[:-1], [row[:-1] for row in rows]
        lines = _table_lines(console, titles, rows, headers=self.headers)
        before = len(lines) - len(rows)
        for number, line in enumerate(lines):
            console.print(line, end="", soft_wrap=True)
            text = prose[number - before] if prose and number >= before else ""
            for part in _wrapped(text, console.width - len(INDENT)):
                console.print(Text(f"{INDENT}{part}"), soft_wrap=True)


def _width(rows: Sequence[Sequence[str]]) -> int:
    """Return the width of a table on a terminal."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return sum(widths) + 2 * max(0, len(widths) - 1)


def _table_lines(
    console: Console, titles: Sequence[str], rows: Sequence[Sequence[str]], *, headers: bool
) -> list[Segments]:
    """Return the lines of a table with colours, each cut at the width of the terminal."""
    from rich.cells import cell_len
    from rich.segment import Segment, Segments
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=headers, header_style="bold")
    for title in titles:
        table.add_column(Text(title), no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell, style=STATES.get(cell, "")) for cell in row))
    # rich would shorten every column; cutting lines keeps names in the first columns complete.
    options = console.options.update(width=_width([titles, *rows]) + 2)
    lines = []
    for line in console.render_lines(table, options, pad=False):
        if cell_len("".join(segment.text for segment in line).rstrip()) > console.width:
            fitted = [*Segment.adjust_line_length(line, console.width - 1), Segment("…")]
        else:
            fitted = Segment.adjust_line_length(line, console.width)
        lines.append(Segments([*fitted, Segment.line()]))
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    """Return ``text`` in lines of at most ``width`` columns; a longer word is broken."""
    from rich.console import Console
    from rich.text import Text

    if not text:
        return []
    console = Console(width=max(width, 20), file=io.StringIO())
    return [line.plain.rstrip() for line in Text(text).wrap(console, console.width)]


def plain_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return aligned lines with two spaces between columns, and no spaces at their ends."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def with_all_fields(value: Any) -> Any:
    """Return structs as dicts with every field, also those with default values, so that scripts find them."""
    if isinstance(value, msgspec.Struct):
        names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        return {json_name: with_all_fields(getattr(value, name)) for name, json_name in names}
    if isinstance(value, dict):
        return {str(name): with_all_fields(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_all_fields(item) for item in value]
    return msgspec.to_builtins(value)


def one_line(text: str) -> str:
    """Replace every character that could move the cursor or break a table with a space."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else " " for letter in shown(text))


def sanitize(text: str) -> str:
    """Keep the lines of ``text``, and replace every other character that could move the cursor.

    Much of what is printed was written by agents, programs and other users.
    """
    return "\n".join(map(one_line, text.split("\n")))


def truncate(text: str, width: int) -> str:
    """Shorten ``text`` to ``width`` characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def wants_colour(stream: TextIO) -> bool:
    """Return whether ``stream`` is a terminal that should get colours (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, on: bool) -> str:
    """Return ``text`` in a colour of ``COLOURS``, if ``on``."""
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if on and colour in COLOURS else text


def paint_state(state: str, on: bool) -> str:
    """Return a state in its colour, if ``on``."""
    return paint(state, STATES.get(state, ""), on)


def print_out(text: str, *, raw: bool = False) -> None:
    """Write a line to stdout, sanitized unless ``raw``: for text that is safe or has our own colours."""
    sys.stdout.write(f"{text if raw else sanitize(text)}\n")


def print_err(text: str, *, raw: bool = False) -> None:
    """Write a line of progress or a warning to stderr; ``raw`` as in ``print_out``."""
    sys.stderr.write(f"{text if raw else sanitize(text)}\n")
    sys.stderr.flush()


def format_age(at_s: float, now_s: float) -> str:
    """Format how long ago ``at_s`` was; empty for 0, which means never."""
    return "" if not at_s else format_duration(max(0, int(now_s - at_s)))


def format_time(at_s: float) -> str:
    """Format a local time with its UTC offset; empty for 0, which means never."""
    return "" if not at_s else time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(at_s))
