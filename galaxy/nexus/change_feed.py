"""The change feed: which rows each commit of a leader wrote, for readers that follow its tables.

Every fenced commit appends to a stream of its role, in the same script, so an entry exists exactly when
its rows do. An entry names rows and carries no values: the reader fetches the current values. So a
value is at least as new as its entry, and a row that changed often is delivered once. The entry makes a
commit of 1 to 500 rows 1 to 5 % slower (115 us to 1.9 ms on Redis 7.0 over loopback).

Each entry also carries its commit (``epoch:serial``) and the commit before it, so entries form a chain
that ends at ``keys.committed``. A reader trusts its rows only while the chain has no gap. The chain
breaks when entries were trimmed, and when the server lost its last commits (a restart, a failover). The
answer is then ``reload``: the reader loads the tables, then continues from the position of that answer.
That position is older than the loaded tables, so the reader may get rows again, and misses none.

Rows are read after the entry that names them, so they may include later commits. The position names
those (``FeedPosition.ahead``): if the server loses one of them, the reader never meets it in the chain,
and must reload.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

import redis

from galaxy.driver.interfaces import FeedPosition, FeedRead, RowChange
from galaxy.errors import BadMessage
from galaxy.model.base import Struct, decode, encode
from galaxy.model.stored.table import TableChange
from galaxy.nexus import keys
from galaxy.nexus.connection import BLOCK_S, reaching

ENTRIES_MAX: Final = 4096
"""Entries kept in the feed of a role, approximately."""
ROWS_MAX: Final = 1000
"""Rows that one entry names. A larger commit writes several entries."""
COMMIT_ROWS_MAX: Final = 100 * ROWS_MAX
"""Rows of a commit whose entries name them; the entry of a larger commit is ``reload``."""
READ_MAX: Final = 100
"""Entries in one answer."""
READ_ROWS_MAX: Final = 5 * ROWS_MAX
"""Rows in one answer, unless one entry names more."""
AHEAD_MAX: Final = 256
"""Commits in ``FeedPosition.ahead``. A reader that stays so far behind reloads."""
EMPTY: Final = "0-0"
"""Position before the first entry."""


class RowNames(Struct, frozen=True, kw_only=True):
    """What one commit wrote, or a part of it: the keys of rows, by table. ``reload``: too many to name."""

    rows: dict[str, list[str]] = {}
    reload: bool = False


class FeedEntry(Struct, frozen=True, kw_only=True):
    """One entry: its id, the commit that wrote it, and the commit before it.

    Where a commit wrote several entries, all but the first come after the commit itself.
    """

    id: str
    commit: str
    after: str
    named: RowNames


def entries_of(changes: Sequence[TableChange]) -> list[bytes]:
    """Return the JSON of ``RowNames`` for the entries of a commit of ``changes``: one at least."""
    if len(changes) > COMMIT_ROWS_MAX:
        return [encode(RowNames(reload=True))]
    parts = []
    for first in range(0, max(len(changes), 1), ROWS_MAX):
        rows: defaultdict[str, list[str]] = defaultdict(list)
        for change in changes[first : first + ROWS_MAX]:
            rows[change.table].append(change.key)
        parts.append(encode(RowNames(rows=rows)))
    return parts


def begin_at(newest: str, committed: str) -> FeedRead:
    """Tell a reader to load the tables, and to continue after the entry ``newest``."""
    return FeedRead(position=FeedPosition(entry=newest, commit=committed), reload=True)


def is_current(position: FeedPosition, committed: str) -> bool:
    """Return whether a reader that has read all entries has the rows of the last commit, ``committed``."""
    return position.commit == committed and not position.ahead


def take_chain(position: FeedPosition, entries: Iterable[FeedEntry]) -> list[FeedEntry] | None:
    """Return the entries of the next answer, or None if the reader must reload: one is missing or unnamed."""
    taken: list[FeedEntry] = []
    commit, rows = position.commit, 0
    for entry in entries:
        if entry.after != commit or entry.named.reload:
            return None
        rows += sum(map(len, entry.named.rows.values()))
        if taken and rows > READ_ROWS_MAX:
            break
        taken.append(entry)
        commit = entry.commit
    return taken


def rows_named(entries: Iterable[FeedEntry]) -> dict[str, list[str]]:
    """Return the keys that ``entries`` name, each once, by table, in order of their last change."""
    rows: dict[str, dict[str, None]] = {}
    for entry in entries:
        for table, names in entry.named.rows.items():
            seen = rows.setdefault(table, {})
            for name in names:
                seen.pop(name, None)
                seen[name] = None
    return {table: list(seen) for table, seen in rows.items()}


def after_entries(position: FeedPosition, entries: Sequence[FeedEntry], committed: str) -> FeedPosition:
    """Return the position after ``entries``, whose rows were read when ``committed`` was the last commit."""
    last = entries[-1]
    met = {entry.commit for entry in entries}
    ahead = dict.fromkeys(commit for commit in (*position.ahead, committed) if commit not in met)
    return FeedPosition(entry=last.id, commit=last.commit, ahead=tuple(ahead))


class ChangeFeed:
    """Reads the feed of any role; writing it is part of a commit."""

    def __init__(self, client: redis.Redis, address: str) -> None:
        self._client = client
        self._address = address

    def read(self, role: str, after: FeedPosition | None, timeout_s: float) -> FeedRead:
        """Return what was committed after the position ``after``, waiting up to ``timeout_s`` for it.

        None as ``after`` asks for a position to begin from: the answer says to reload. An answer
        without changes means that there were none in time.

        Raises:
            Unreachable: Redis does not answer; read again from the same position.
        """
        stream = keys.changes(role)
        end_s = time.monotonic() + timeout_s
        with reaching(self._address):
            while True:
                found, newest, committed = self._state(role, EMPTY if after is None else after.entry)
                if after is None:
                    return begin_at(newest, committed)
                if found:
                    return self._resolve(role, after, found) or begin_at(newest, committed)
                if not is_current(after, committed):
                    return begin_at(newest, committed)
                left_s = end_s - time.monotonic()
                if left_s <= 0:
                    return FeedRead(position=after, current=True)
                block_ms = max(1, int(min(left_s, BLOCK_S) * 1000))
                self._client.xread({stream: after.entry}, count=1, block=block_ms)

    def _state(self, role: str, after: str) -> tuple[list[Any], str, str]:
        """Return the entries after ``after``, the newest entry's id, and the last commit, of one moment."""
        stream = keys.changes(role)
        pipe = self._client.pipeline()
        pipe.xrange(stream, min=f"({after}", count=READ_MAX)
        pipe.xrevrange(stream, count=1)
        pipe.get(keys.committed(role))
        found, last, committed = pipe.execute()
        return found, last[0][0].decode() if last else EMPTY, (committed or b"").decode()

    def _resolve(self, role: str, after: FeedPosition, found: list[Any]) -> FeedRead | None:
        """Return the rows that the next entries name, or None if the reader must reload."""
        try:
            entries = take_chain(after, [_entry(name, fields) for name, fields in found])
        except (BadMessage, KeyError):
            return None
        if entries is None:
            return None
        rows = rows_named(entries)
        pipe = self._client.pipeline()  # One transaction: all rows, and the last commit, at one moment.
        for table, names in rows.items():
            pipe.hmget(keys.table(role, table), names)
        pipe.get(keys.committed(role))
        *found_values, committed = pipe.execute()
        position = after_entries(after, entries, (committed or b"").decode())
        if len(position.ahead) > AHEAD_MAX:
            return None
        changes = [
            RowChange(table=table, key=key, value=value)
            for (table, names), values in zip(rows.items(), found_values, strict=True)
            for key, value in zip(names, values, strict=True)
        ]
        return FeedRead(position=position, changes=tuple(changes))


def _entry(name: bytes, fields: dict[bytes, bytes]) -> FeedEntry:
    return FeedEntry(
        id=name.decode(),
        commit=fields[b"commit"].decode(),
        after=fields[b"after"].decode(),
        named=decode(fields[b"rows"], RowNames),
    )
