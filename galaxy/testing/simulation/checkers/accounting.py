"""Accounting is exact: what is stored of each day is what containers held, summed up independently.

The truth is integrated from ResMan's commits, row by row, whatever leaders die between them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final

from galaxy.model.base import decode
from galaxy.model.messages.container import ContainerState
from galaxy.model.messages.names import RESMAN
from galaxy.model.resources import FIELDS, NOTHING, Resources
from galaxy.model.stored.account import Account, DayUsage
from galaxy.model.stored.agent import AgentRecord
from galaxy.model.stored.container import Container, Group
from galaxy.model.stored.table import TableChange
from galaxy.scheduler.quota import charged
from galaxy.testing.simulation.checkers.violation import Violation

TOLERANCE: Final = 0.001
"""Largest difference from the truth, as a share of it."""
SLACK_S: Final = 0.05
"""By how much all changes of one job together may in addition be accounted too early or too late."""
DAY_S: Final = 86_400

_PLACED: Final = (ContainerState.ALLOCATING, ContainerState.READY, ContainerState.DESTROYING)
_KINDS: Final[dict[str, type[Any]]] = {
    "containers": Container, "groups": Group, "agents": AgentRecord, "accounts": Account, "usage": DayUsage,
}  # fmt: skip

Where = tuple[int, str, str, str]
"""Day, user, job and pool."""


class AccountingChecker:
    """Follows the commits of ResMan. Call ``committed`` with each of them."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._rows: dict[str, dict[str, Any]] = {table: {} for table in _KINDS}
        self._held: dict[tuple[str, str, str], Resources] = {}
        self._since_s = 0.0
        self.truth: defaultdict[Where, dict[str, float]] = defaultdict(lambda: dict.fromkeys(FIELDS, 0.0))
        """What was held, resource by resource, times seconds."""
        self.most: defaultdict[tuple[str, str, str], Resources] = defaultdict(lambda: NOTHING)
        """The most that was held at once."""

    def joined(self, record: AgentRecord) -> None:
        """Record an agent that joined before the first call of ``committed``."""
        self._rows["agents"][record.agent] = record

    def committed(self, role: str, changes: Sequence[TableChange]) -> None:
        """Integrate until now, then apply a commit."""
        if role != RESMAN:
            return
        self.advance()
        held_changes = False
        for change in changes:
            if change.table in _KINDS:
                rows = self._rows[change.table]
                if change.value is None:
                    rows.pop(change.key, None)
                else:
                    rows[change.key] = decode(change.value, _KINDS[change.table])
                held_changes = held_changes or change.table not in ("accounts", "usage")
        if held_changes:
            self._held = self._sum_up()

    def advance(self) -> None:
        """Add what was held since the last call, cut at midnight."""
        now_s = self._now_s()
        while self._since_s < now_s:
            day = int(self._since_s // DAY_S)
            until_s = min(now_s, (day + 1.0) * DAY_S)
            for holder, held in self._held.items():
                for field in FIELDS:
                    self.truth[day, *holder][field] += getattr(held, field) * (until_s - self._since_s)
            self._since_s = until_s if self._held else now_s

    def check(self) -> None:
        """Compare the stored rows and open accounts with the truth.

        Raises:
            Violation: they differ by more than ``TOLERANCE``, and more than slightly late changes explain.
        """
        self.advance()
        stored = self._stored()
        for where in {*stored, *self.truth}:
            most = self.most[where[1:]]
            for field in FIELDS:
                has, true = stored[where][field], self.truth[where][field]
                if abs(has - true) > TOLERANCE * true + SLACK_S * getattr(most, field):
                    day, user, job, pool = where
                    raise Violation(
                        f"{job} of {user} is accounted {has:.0f} {field} seconds in {pool} on day {day}, "
                        f"and held {true:.0f}"
                    )

    def _stored(self) -> defaultdict[Where, dict[str, float]]:
        """Return what ResMan has stored, with the intervals that are still open."""
        sums: defaultdict[Where, dict[str, float]] = defaultdict(lambda: dict.fromkeys(FIELDS, 0.0))
        for row in self._rows["usage"].values():
            for field in FIELDS:
                sums[row.day, row.user, row.job, row.pool][field] += getattr(row.assigned, f"{field}_s")
        now_s = self._now_s()
        for account in self._rows["accounts"].values():
            start_s = account.since_s
            while start_s < now_s:
                day = int(start_s // DAY_S)
                until_s = min(now_s, (day + 1.0) * DAY_S)
                for field in FIELDS:
                    amount = getattr(account.held, field)
                    sums[day, account.user, account.job, account.pool][field] += amount * (until_s - start_s)
                start_s = until_s
        return sums

    def _sum_up(self) -> dict[tuple[str, str, str], Resources]:
        held: dict[tuple[str, str, str], Resources] = {}
        groups, agents = self._rows["groups"], self._rows["agents"]
        for key, row in self._rows["containers"].items():
            if row.state not in _PLACED or row.group not in groups:
                continue
            order = groups[row.group].order
            amount = row.resources
            if key == row.container:
                amount = amount.largest(groups[row.group].demand_of(row.size).resources)
            holder = order.user, row.group, agents[row.agent].pool if row.agent in agents else ""
            held[holder] = held.get(holder, NOTHING) + charged(amount, order.priority)
        for holder, amount in held.items():
            most = self.most[holder]
            self.most[holder] = Resources(
                **{field: max(getattr(most, field), getattr(amount, field)) for field in FIELDS}
            )
        return held
