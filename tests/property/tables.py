"""What must hold of any logic's tables after any step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from galaxy.model.base import encode
from galaxy.model.stored.table import Table


class Disk:
    """What was committed; every commit is read back and compared."""

    def __init__(self, tables: Mapping[str, Table[Any]]) -> None:
        self.rows: dict[str, dict[str, bytes]] = {name: {} for name in tables}

    def commit(self, tables: Mapping[str, Table[Any]]) -> None:
        """Store the journals, as drivers do, and assert that what was stored is what is there."""
        for name, table in tables.items():
            check_indexes(table)
            for change in table.changes():
                if change.value is None:
                    self.rows[name].pop(change.key, None)
                else:
                    self.rows[name][change.key] = change.value
            table.accept()
            if table.durable:
                fresh: Table[Any] = Table(name, table.kind)
                fresh.load(self.rows[name].items())
                assert {key: fresh[key] for key in fresh} == {key: table[key] for key in table}, name

    def load(self, tables: Mapping[str, Table[Any]]) -> None:
        for name, table in tables.items():
            table.load(self.rows[name].items())


def check_indexes(table: Table[Any]) -> None:
    """Assert that every index lists exactly the rows that belong there."""
    for index, key_of in table._keys.items():
        wanted: dict[Any, set[str]] = {}
        for key in table:
            value = key_of(table[key])
            if value is not None:
                wanted.setdefault(value, set()).add(key)
        assert {value: set(table.where(index, value)) for value in table.index_values(index)} == wanted, index


def snapshot(tables: Mapping[str, Table[Any]]) -> dict[str, dict[str, bytes]]:
    return {name: {key: encode(table[key]) for key in table} for name, table in tables.items()}
