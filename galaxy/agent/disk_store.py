"""The agent's tables on disk. A step is committed here before its effects are carried out."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from galaxy.errors import BadMessage, HostError
from galaxy.model.earlier_releases import release_of
from galaxy.model.stored.table import Table, TableChange

SYNCED_TABLES = frozenset({"epochs", "finished"})
"""Tables whose rows must survive a power failure. The others describe containers, which do not."""

STORED_FORMAT: Final = 3
"""Format of the rows, kept as ``PRAGMA user_version``. 0 is a new database."""


class AgentStore:
    """Rows by table and key in SQLite, one transaction per step.

    The write-ahead log stays in the kernel's page cache. That survives the death of the process; a
    machine that loses power loses its containers as well. Epochs and finished batch pods must
    survive even that, so they are synced before ``commit`` returns.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the database.

        Raises:
            HostError: the file is damaged, of another format, in use by another agent, or its
                directory cannot be written.
        """
        self._path = path
        with self._as_host_error("open"):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._base = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except BaseException:
            self._base.close()
            raise

    def _prepare(self) -> None:
        with self._as_host_error("open"):
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA wal_autocheckpoint=256")
            self._base.execute("PRAGMA cache_size=-512")
            damage = self._base.execute("PRAGMA quick_check(1)").fetchone()[0]
            version = self._base.execute("PRAGMA user_version").fetchone()[0]
        if damage != "ok":
            raise self._damaged(damage)
        if version > STORED_FORMAT:
            raise HostError(f"cannot use {self._path}: it was written by a later version of Galaxy")
        if 0 < version < STORED_FORMAT:
            release = release_of(version)
            raise HostError(
                f"cannot use {self._path}: Galaxy {release} wrote it, and this release cannot read it",
                hint=f"end its jobs with {release} (galaxy down), then start this release with an"
                " empty directory; see Upgrading in docs/operations.md",
            )
        with self._as_host_error("write"):
            self._base.execute(
                "CREATE TABLE IF NOT EXISTS rows (name TEXT, key TEXT, value BLOB NOT NULL,"
                " PRIMARY KEY (name, key)) WITHOUT ROWID"
            )
            self._base.execute(f"PRAGMA user_version={STORED_FORMAT}")

    def load(self, tables: Mapping[str, Table[Any]]) -> None:
        """Fill ``tables`` with the committed rows.

        Raises:
            HostError: a row cannot be read.
        """
        with self._as_host_error("read"):
            for name, table in tables.items():
                table.load(self._base.execute("SELECT key, value FROM rows WHERE name=?", (name,)))

    def commit(self, changes: Iterable[TableChange]) -> None:
        """Write all of ``changes`` or none.

        Raises:
            HostError: the disk is full or failing; nothing was written.
        """
        rows = list(changes)
        if not rows:
            return
        level = "FULL" if any(change.table in SYNCED_TABLES for change in rows) else "NORMAL"
        with self._as_host_error("write"):
            self._base.execute(f"PRAGMA synchronous={level}")
            self._base.execute("BEGIN IMMEDIATE")
            try:
                for change in rows:
                    if change.value is None:
                        where = (change.table, change.key)
                        self._base.execute("DELETE FROM rows WHERE name=? AND key=?", where)
                    else:
                        row = (change.table, change.key, change.value)
                        self._base.execute("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", row)
                self._base.execute("COMMIT")
            except BaseException:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                raise

    def fact(self, name: str, value: str) -> str | None:
        """Store a fact about this host and return the value stored under that name before."""
        with self._as_host_error("write"):
            row = self._base.execute("SELECT value FROM rows WHERE name='fact' AND key=?", (name,)).fetchone()
        before = None if row is None else bytes(row[0]).decode()
        if before != value:
            self.commit([TableChange(table="fact", key=name, value=value.encode())])
        return before

    def close(self) -> None:
        self._base.close()

    @contextlib.contextmanager
    def _as_host_error(self, action: str) -> Any:
        """Turn errors of SQLite and the disk into a ``HostError`` that says what cannot be done."""
        try:
            yield
        except (sqlite3.DatabaseError, OSError, BadMessage) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or isinstance(error, BadMessage):
                raise self._damaged(str(error)) from error
            hint = "free disk space" if code == sqlite3.SQLITE_FULL else "check the disk and its permissions"
            raise HostError(f"cannot {action} {self._path}: {error}", hint=hint) from error

    def _damaged(self, why: str) -> HostError:
        return HostError(
            f"cannot use {self._path}: it is damaged",
            details=(why,),
            hint=f"move it away; containers in {self._path.parent} are then destroyed and created again",
        )
