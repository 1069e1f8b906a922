"""The agent's table on disk: written before anything that follows from it happens."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from galaxy.errors import BadMessage, HostError
from galaxy.model.stored.table import Table, TableChange

PRECIOUS = frozenset({"epochs", "finished"})
"""Tables whose rows must outlive a loss of power: everything else dies with the machine too."""

STORED_FORMAT: Final = 2
"""Format of the rows, as ``PRAGMA user_version``; 0 is a new database, 1 was written by 0.1.0."""


class AgentStore:
    """Rows by table and key in SQLite, one transaction a step.

    The log is written ahead (WAL) and kept in the kernel's memory: that survives every death
    of the process, and a machine that loses power loses its containers as well. What must
    outlive even that, epochs and finished batch pods, is synced before ``commit`` returns.
    """

    def __init__(self, path: Path) -> None:
        """Open or make the database.

        Raises:
            HostError: the file is damaged, of a later version, in use by another agent, or its
                directory can not be written.
        """
        self._path = path
        with self._told("open"):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._base = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except BaseException:
            self._base.close()
            raise

    def _prepare(self) -> None:
        with self._told("open"):
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
            raise HostError(
                f"cannot use {self._path}: Galaxy 0.1.0 wrote it, and this release does not take it over",
                hint="end its jobs with 0.1.0 (galaxy down), then start this release with an empty directory;"
                " see Upgrading in docs/operations.md",
            )
        with self._told("write"):
            self._base.execute(
                "CREATE TABLE IF NOT EXISTS rows (name TEXT, key TEXT, value BLOB NOT NULL,"
                " PRIMARY KEY (name, key)) WITHOUT ROWID"
            )
            self._base.execute(f"PRAGMA user_version={STORED_FORMAT}")

    def load(self, tables: Mapping[str, Table[Any]]) -> None:
        """Fill ``tables`` with what was committed.

        Raises:
            HostError: a row can not be read.
        """
        with self._told("read"):
            for name, table in tables.items():
                table.load(self._base.execute("SELECT key, value FROM rows WHERE name=?", (name,)))

    def commit(self, changes: Iterable[TableChange]) -> None:
        """Write all of ``changes``, or nothing.

        Raises:
            HostError: the disk is full or failing; nothing was written.
        """
        gathered = list(changes)
        if not gathered:
            return
        level = "FULL" if any(change.table in PRECIOUS for change in gathered) else "NORMAL"
        with self._told("write"):
            self._base.execute(f"PRAGMA synchronous={level}")
            self._base.execute("BEGIN IMMEDIATE")
            try:
                for change in gathered:
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
        """Keep a fact about this host, and return what was kept under that name before."""
        with self._told("write"):
            row = self._base.execute("SELECT value FROM rows WHERE name='fact' AND key=?", (name,)).fetchone()
        before = None if row is None else bytes(row[0]).decode()
        if before != value:
            self.commit([TableChange(table="fact", key=name, value=value.encode())])
        return before

    def close(self) -> None:
        self._base.close()

    @contextlib.contextmanager
    def _told(self, what: str) -> Any:
        try:
            yield
        except (sqlite3.DatabaseError, OSError, BadMessage) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or isinstance(error, BadMessage):
                raise self._damaged(str(error)) from error
            hint = "free disk space" if code == sqlite3.SQLITE_FULL else "check the disk and its permissions"
            raise HostError(f"cannot {what} {self._path}: {error}", hint=hint) from error

    def _damaged(self, why: str) -> HostError:
        return HostError(
            f"cannot use {self._path}: it is damaged",
            details=(why,),
            hint=f"move it away; containers in {self._path.parent} are then destroyed and made anew",
        )
