"""The tables of a standby, kept as the leader commits them, so that a new leader need not read them all.

The rows are decoded and indexed. What a logic derives from them is not kept: it costs more to keep
current than to derive once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from galaxy.driver.interfaces import Feed, FeedPosition, FeedRead
from galaxy.driver.stored_format import StoredFormat, check_format, format_table
from galaxy.model.base import Struct, decode
from galaxy.model.stored.table import Table

Check = Callable[[], None]
"""Called between pieces of a long read; it may raise to end the read."""

BEHIND_MIN: Final = 10_000
"""A standby that is behind by more rows than this and than its tables have loads them instead."""


class Loaded(Struct, frozen=True, kw_only=True):
    """All rows of all tables, by table, and the position to continue from."""

    rows: dict[str, dict[str, Any]]
    position: FeedPosition


class WarmTables:
    """Tables of ``role`` that follow its change feed.

    While ``position`` is not None, each table holds the rows that the store held at that position, except
    rows that a later entry names. So tables whose reader is ``current`` equal the store.

    ``read`` may block and changes nothing; ``apply`` changes the tables and does not block. So a caller with
    threads needs a lock for ``apply`` only. While these tables belong to a leader, nothing is called but
    ``release``, which must come before the leader's first change.
    """

    def __init__(self, role: str, feed: Feed, tables: Iterable[Table[Any]]) -> None:
        self.role = role
        self.position: FeedPosition | None = None
        self._feed = feed
        self._format: Table[StoredFormat] = format_table()
        self._tables = {table.name: table for table in (self._format, *tables)}

    def read(self, timeout_s: float, check: Check = lambda: None) -> FeedRead | Loaded:
        """Return what ``apply`` needs next, waiting up to ``timeout_s`` for a commit; load if necessary.

        Raises:
            Unreachable: try again later. BadMessage: a stored row cannot be read.
            GalaxyError: a release with another format wrote the tables.
        """
        read = self._feed.read_changes(self.role, self.position, timeout_s)
        return self._load(read.position, check) if self.position is None else read

    def apply(self, read: FeedRead | Loaded) -> int:
        """Bring the tables to ``read``; return how many rows that were. The next ``read`` may have to load.

        Raises:
            BadMessage: a row cannot be read. GalaxyError: a release with another format has written.
        """
        if isinstance(read, Loaded):
            for name, table in self._tables.items():
                table.fill(read.rows[name])
            self.position = read.position
            return sum(map(len, read.rows.values()))
        self.position, position = None, read.position  # Until all rows are written, they are inconsistent.
        if read.reload:
            self.clear()
            return 0
        for change in read.changes:
            if change.table not in self._tables:
                continue  # It is another release's.
            table = self._tables[change.table]
            if change.value is None:
                table.drop(change.key)
            else:
                table.put(change.key, decode(change.value, table.kind))
        for table in self._tables.values():
            table.accept()
        check_format(self.role, self._format)
        self.position = position
        return len(read.changes)

    def catch_up(self) -> bool:
        """Read what is left of the feed; return whether the tables now equal the store.

        For a leader that has won the election and not begun: nobody else can commit, so the end of the feed
        is the last commit. If this returns False, the tables must be loaded.

        Raises:
            Unreachable, BadMessage, GalaxyError: as for ``read`` and ``apply``.
        """
        rows, rows_max = 0, BEHIND_MIN + sum(map(len, self._tables.values()))
        while self.position is not None and rows <= rows_max:
            read = self._feed.read_changes(self.role, self.position, 0.0)
            if read.current:
                return True
            rows += self.apply(read)
        self.release()  # Loading costs less.
        return False

    def release(self) -> None:
        """Leave the tables to a leader, or to the next load; they do not follow the feed any more."""
        self.position = None

    def clear(self) -> None:
        """Empty the tables, so that a load does not need the memory for two copies."""
        self.release()
        for table in self._tables.values():
            table.fill({})

    def _load(self, start: FeedPosition, check: Check) -> Loaded:
        rows: dict[str, dict[str, Any]] = {}
        ahead: dict[str, None] = {}
        for name, table in self._tables.items():
            rows[name] = {}
            accept = _decoder(rows[name], table.kind, check)
            ahead[self._feed.read_rows(self.role, name, accept)] = None
            if table is self._format:
                found = format_table()
                found.fill(rows[name])
                check_format(self.role, found)
        ahead.pop(start.commit, None)
        position = FeedPosition(entry=start.entry, commit=start.commit, ahead=tuple(ahead))
        return Loaded(rows=rows, position=position)


def _decoder(
    rows: dict[str, Any], kind: type[Struct], check: Check
) -> Callable[[Sequence[tuple[str, bytes]]], None]:
    def accept(piece: Sequence[tuple[str, bytes]]) -> None:
        check()
        for key, value in piece:
            rows[key] = decode(value, kind)

    return accept
