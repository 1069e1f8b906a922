"""Groups that were removed, kept for a while so that a late order does not create one again."""

from __future__ import annotations

from collections import deque

from galaxy.model.stored.container import EndedGroup
from galaxy.model.stored.table import Table


class EndedGroups:
    """Adds to the table of ended groups, and trims it by age and number."""

    def __init__(self, table: Table[EndedGroup], *, age_s_max: float, count_max: int) -> None:
        self._table = table
        self._age_s_max = age_s_max
        self._count_max = count_max
        self._oldest_first = deque(sorted(table, key=lambda group: table[group].at_s))

    def add(self, group: str, epoch: int, serial: int, now_s: float, user: str = "") -> None:
        """Record that a group is removed, and the order of AppMaster that removed it."""
        self._table.put(group, EndedGroup(group=group, epoch=epoch, serial=serial, at_s=now_s, user=user))
        self._oldest_first.append(group)
        self.trim(now_s)

    def trim(self, now_s: float) -> None:
        """Drop groups beyond the maximum age, and the oldest ones beyond the maximum number."""
        while self._oldest_first:
            oldest = self._table.get(self._oldest_first[0])
            expired = oldest is None or now_s - oldest.at_s > self._age_s_max
            if not expired and len(self._oldest_first) <= self._count_max:
                return
            group = self._oldest_first.popleft()
            if oldest is not None and group not in self._oldest_first:
                self._table.drop(group)
