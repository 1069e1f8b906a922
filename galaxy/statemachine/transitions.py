"""A lifecycle as data: a literal table from (state, event type) to the next state."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

S = TypeVar("S", bound=Enum)


class TransitionTable(Generic[S]):
    """The valid transitions of one lifecycle. A pair that is not in the table changes nothing."""

    def __init__(self, table: Mapping[tuple[S, type], S]) -> None:
        self._table = dict(table)

    def next_state(self, state: S, event: type) -> S | None:
        """Return the state after ``event``, or None when the pair is not in the table."""
        return self._table.get((state, event))

    def pairs(self) -> Mapping[tuple[S, type], S]:
        """Return the complete table, for tests."""
        return self._table
