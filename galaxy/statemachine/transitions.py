"""A lifecycle's law: a literal table from (state, event type) to state."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

S = TypeVar("S", bound=Enum)


class TransitionTable(Generic[S]):
    """What may follow what. A pair the table does not hold is *not legal*, told by ``None``."""

    def __init__(self, table: Mapping[tuple[S, type], S]) -> None:
        self._table = dict(table)

    def next_state(self, state: S, event: type) -> S | None:
        """Return the state after ``event``, or None when the law does not know the pair."""
        return self._table.get((state, event))

    def pairs(self) -> Mapping[tuple[S, type], S]:
        """Return the whole table, for tests and for the diagrams in docs."""
        return self._table
