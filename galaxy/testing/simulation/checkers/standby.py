"""Never: a leadership begins with other tables than the store has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from galaxy.model.stored.table import Table
from galaxy.nexus.in_memory import MemoryNexus
from galaxy.testing.simulation.checkers.violation import Violation


def check_begun(leader: str, role: str, tables: Mapping[str, Table[Any]], nexus: MemoryNexus) -> None:
    """Check the rows and the indexes of ``tables`` before the first step of a leadership.

    Raises:
        Violation: a row is missing, stale or gone from the store.
    """
    for name, table in tables.items():
        stored = nexus.read_table(role, name, table.kind)
        found = dict(table.items())
        for key in sorted(found.keys() | stored.keys()):
            if found.get(key) != stored.get(key):
                raise Violation(
                    f"{leader} begins with {found.get(key)} as row {key} of {name}; "
                    f"stored is {stored.get(key)}"
                )
        if not table.is_indexed():
            raise Violation(f"{leader} begins with table {name}, whose indexes do not fit its rows")
