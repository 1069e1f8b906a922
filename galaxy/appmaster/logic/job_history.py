"""The table of removed jobs, bounded: the oldest rows are dropped first."""

from __future__ import annotations

from collections import deque

from galaxy.model.stored.job import HistoryRecord
from galaxy.model.stored.table import Table


class JobHistory:
    """What is known of removed jobs, at most ``size_max`` of them."""

    def __init__(self, table: Table[HistoryRecord], size_max: int) -> None:
        self._table = table
        self._size_max = size_max
        self._by_age = deque(sorted((past.at_s, key) for key, past in table.items()))

    def add(self, past: HistoryRecord) -> None:
        """Keep ``past``; beyond ``size_max`` the oldest is dropped."""
        self._table.put(past.job, past)
        self._by_age.append((past.at_s, past.job))
        while len(self._by_age) > self._size_max:
            self._table.drop(self._by_age.popleft()[1])
