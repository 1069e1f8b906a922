"""Progress of ``galaxy up`` and ``galaxy down``: a live list on a terminal, else one line per change."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from galaxy.cli.local.supervisor import PartChanged
from galaxy.units import format_duration

_STYLES: Final = {"ready": "green", "gone": "dim", "died": "red", "starting": "cyan", "stopping": "cyan"}
_IN_PROGRESS: Final = ("starting", "stopping")


class _Live(Live):
    """A live list that is written again only when it has changed or a spinner in it turns.

    ``galaxy up`` in the foreground shows one for as long as the cluster runs.
    """

    changed = True
    spins = False

    def refresh(self) -> None:
        if self.changed or self.spins:
            self.changed = False
            super().refresh()


class Display:
    """Shows the last state of each part; on a terminal each part has one line that changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._parts: dict[str, PartChanged] = {}
        self._live = _Live(console=console, refresh_per_second=10) if console.is_terminal else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live and self._live.is_started:
            self._live.stop()

    def show(self, changed: PartChanged) -> None:
        """Show one change."""
        self._parts[changed.part] = changed
        if self._live:
            self._live.spins = any(part.state in _IN_PROGRESS for part in self._parts.values())
            self._live.update(self._table())
            self._live.changed = True
            self._live.start()
        elif changed.state not in _IN_PROGRESS:
            print_line(self._console, f"{changed.part:<12} {changed.state:<6} {_detail(changed)}".rstrip())

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for part, changed in self._parts.items():
            style = _STYLES[changed.state]
            mark = Spinner("dots", style=style) if changed.state in _IN_PROGRESS else Text("●", style=style)
            state = Text(changed.state, style=style)
            table.add_row(mark, Text(part), state, Text(_detail(changed), style="dim"))
        return table


def print_line(console: Console, line: str) -> None:
    """Print ``line`` as it is: without markup, highlighting or wrapping."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _detail(changed: PartChanged) -> str:
    took = f"({format_duration(round(changed.took_s, 1))})" if changed.took_s else ""
    return " ".join(text for text in (changed.detail, took) if text)
