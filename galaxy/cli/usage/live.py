"""A table on the whole terminal that is refreshed until the user ends it, as top(1) shows it."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from galaxy.cli.output import STATES, one_line
from galaxy.errors import Unreachable

ORDERS: Final = {"c": "cpu", "m": "memory", "n": "name"}
"""What a key sorts by."""
ENDS: Final = ("q", "Q", "\x03", "\x04")
HEADER_LINES: Final = 3


class Frame(NamedTuple):
    """What is shown at one time."""

    titles: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: int


def show_live(title: str, ask: Callable[[str, int], Frame], order: str, every_s: float) -> None:
    """Show what ``ask(order, rows)`` returns, every ``every_s`` seconds, until q or Ctrl-C.

    While the cluster does not answer, the last table stays, and the first line says so.
    """
    console = Console(file=sys.stdout)
    frame, problem = ask(order, _room(console)), ""
    with contextlib.suppress(KeyboardInterrupt), _keys(), Live(
        console=console, screen=True, auto_refresh=False
    ) as live:  # fmt: skip
        while True:
            live.update(Group(_header(title, order, frame, problem, console), _table(frame)), refresh=True)
            key = _read_key(every_s)
            if key in ENDS:
                return
            order = ORDERS.get(key, order)
            try:
                frame, problem = ask(order, _room(console)), ""
            except Unreachable as error:
                problem = error.message


def _room(console: Console) -> int:
    """Return how many rows fit on the terminal."""
    return max(1, console.height - HEADER_LINES)


def _header(title: str, order: str, frame: Frame, problem: str, console: Console) -> Text:
    shown = f"{len(frame.rows)} of {frame.total}"
    parts = [title, time.strftime("%H:%M:%S"), f"{shown} by {order}", "c m n sort, q quits"]
    text = "  ".join(parts)
    if problem:
        text = one_line(f"{title}: {problem}; still trying")
    line = Text(text, style="red" if problem else "dim", no_wrap=True, overflow="ellipsis")
    line.truncate(console.width, overflow="ellipsis")
    return line


def _table(frame: Frame) -> Table:
    """Return the table; names in the first column stay complete for as long as the others can be cut."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    widest = max((cell_len(row[0]) for row in frame.rows), default=0)
    for number, title in enumerate(frame.titles):
        table.add_column(
            title, no_wrap=True, overflow="ellipsis", min_width=min(widest, 40) if number == 0 else None
        )
    for row in frame.rows:
        table.add_row(*(Text(one_line(cell), style=STATES.get(cell, "")) for cell in row))
    return table


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Get each key as it is pressed, without echo, if standard input is a terminal."""
    if not sys.stdin.isatty():
        yield
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    tty.setcbreak(number)
    try:
        yield
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _read_key(within_s: float) -> str:
    """Return the next key, or an empty text after ``within_s``."""
    if not sys.stdin.isatty():
        time.sleep(within_s)
        return ""
    ready, _, _ = select.select([sys.stdin], [], [], within_s)
    if not ready:
        return ""
    data = os.read(sys.stdin.fileno(), 32)
    return data[:1].decode("ascii", "replace") if data else "q"
