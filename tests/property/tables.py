"""The store of a logic under test, and invariants of its tables after every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from galaxy.model.base import encode
from galaxy.model.stored.table import Table


class Disk:
    """The committed rows. Every commit is read back and compared."""

    def __init__(self, tables: Mapping[str, Table[Any]]) -> None:
        self.rows: dict[str, dict[str, bytes]] = {name: {} for name in tables}

    def commit(self, tables: Mapping[str, Table[Any]]) -> None:
        """Store the changes as drivers do, and assert that the stored rows equal the tables."""
        for name, table in tables.items():
            check_indexes(table)
            for change in table.changes():
                if change.value is None:
                    self.rows[name].pop(change.key, None)
                else:
                    self.rows[name][change.key] = change.value
            table.accept()
            read: Table[Any] = Table(name, table.kind)
            read.load(self.rows[name].items())
            assert {key: read[key] for key in read} == {key: table[key] for key in table}, name

    def load(self, tables: Mapping[str, Table[Any]]) -> None:
        for name, table in tables.items():
            table.load(self.rows[name].items())


def check_indexes(table: Table[Any]) -> None:
    """Assert that every index lists exactly the rows with each of its values."""
    for index, key_of in table._keys.items():
        expected: dict[Any, set[str]] = {}
        for key in table:
            value = key_of(table[key])
            if value is not None:
                expected.setdefault(value, set()).add(key)
        assert {value: set(table.where(index, value)) for value in table.index_values(index)} == expected, (
            index
        )


def snapshot(tables: Mapping[str, Table[Any]]) -> dict[str, dict[str, bytes]]:
    return {name: {key: encode(table[key]) for key in table} for name, table in tables.items()}
