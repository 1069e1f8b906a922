"""What ``galaxy up`` and ``galaxy down`` show: a live list on a terminal, else a line a change."""

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
_BUSY: Final = ("starting", "stopping")


class Display:
    """Shows parts by name; each has one line that changes on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._parts: dict[str, PartChanged] = {}
        self._live = Live(console=console, refresh_per_second=10) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.update(self._table(), refresh=True)
            self._live.stop()

    def show(self, happened: PartChanged) -> None:
        """Show one change."""
        self._parts[happened.part] = happened
        if self._live:
            self._live.update(self._table())
        elif happened.state not in _BUSY:
            line = f"{happened.part:<12} {happened.state:<6} {self._detail(happened)}".rstrip()
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for part, happened in self._parts.items():
            busy = happened.state in _BUSY
            mark = Spinner("dots", style="cyan") if busy else Text("●", style=_STYLES[happened.state])
            state = Text(happened.state, style=_STYLES[happened.state])
            table.add_row(mark, Text(part), state, Text(self._detail(happened), style="dim"))
        return table

    @staticmethod
    def _detail(happened: PartChanged) -> str:
        took = f"({format_duration(round(happened.took_s, 1))})" if happened.took_s else ""
        return " ".join(word for word in (happened.detail, took) if word)
