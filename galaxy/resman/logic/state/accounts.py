"""Keeps the accounts: what containers hold on hosts, integrated over time, by user, job, pool and day."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from galaxy.accounting.clock import STEP_S, AccountClock
from galaxy.accounting.integrals import added, closed, day_of, key_of, merged_into
from galaxy.model.messages.container import Demand
from galaxy.model.resources import NOTHING, Resources
from galaxy.model.stored.account import Account, DayUsage, account_key
from galaxy.model.stored.agent import AgentRecord
from galaxy.model.stored.container import Container, Group
from galaxy.resman.logic.state.container_index import PLACED
from galaxy.resman.logic.state.state import ResManState
from galaxy.scheduler.quota import charged

MERGED_MAX: Final = 500
"""Rows that one step merges, in addition to those that it adds."""
ELECTED_S_MIN: Final = 1e9
"""An epoch is Redis' time at the election, in milliseconds; a lower one is a test's."""

Holder = tuple[str, str, str]
"""User, job and pool."""


class Accounts:
    """Brings the accounts up to date with everything that a step has changed, in the same commit.

    Invariant: what an account holds is the sum over its containers that have a place. An earlier
    incarnation counts until its agent has destroyed it. Containers of a group that ResMan does not have
    are nobody's.
    """

    def __init__(self, state: ResManState) -> None:
        self._state = state
        elected_s = state.epoch / 1000
        self.clock = AccountClock(elected_s if elected_s > ELECTED_S_MIN else state.now_s, state.now_s)
        self.now_s = 0.0
        """Redis' clock in the current step; see ``begin_step``."""
        self.recover()

    def recover(self) -> None:
        """Continue after a step that raised; the tables are rolled back already."""
        self._is_new = not len(self._state.accounts)

    def begin_step(self) -> None:
        """Set the time of what the step changes; call it after the step's events."""
        self.now_s = self.clock.now_s(self._state.now_s)

    def step(self) -> bool:
        """Record what the step has changed; return whether more rows are to be merged."""
        changes = self._all_held() if self._is_new else self._changes()
        self._is_new = False
        for holder, amount in changes.items():
            if amount != NOTHING:
                self._change(holder, amount)
        return self._merge()

    def add(self, row: DayUsage) -> None:
        """Add to what is stored of a day."""
        usage, key = self._state.usage, key_of(row)
        usage.put(key, added(usage.get(key), row))

    @property
    def first_day(self) -> int:
        """The first day whose rows are kept apart."""
        return max(1, day_of(self.now_s) - self._state.config.usage_days_max)

    # ---- what a step has changed

    def _all_held(self) -> dict[Holder, Resources]:
        """Return what every account holds, for a store that has kept no accounts: they begin now."""
        sums, state, amounts = _Sums(), self._state, _Amounts()
        for key, row in state.containers.items():
            group = state.groups.get(row.group)
            holder = _holder(row, group, state.agents.get(row.agent))
            if holder is not None and group is not None:
                sums.count(holder, amounts.of(key, row, group), 1)
        return sums.totals()

    def _changes(self) -> dict[Holder, Resources]:
        """Return how much more each account holds than before the step."""
        sums, state, amounts = _Sums(), self._state, _Amounts()
        groups, agents = dict(state.groups.written()), dict(state.agents.written())
        for key, old in self._affected(groups, agents).items():
            if old is not None:
                group = groups[old.group] if old.group in groups else state.groups.get(old.group)
                agent = agents[old.agent] if old.agent in agents else state.agents.get(old.agent)
                if (holder := _holder(old, group, agent)) is not None and group is not None:
                    sums.count(holder, amounts.of(key, old, group), -1)
            new = state.containers.get(key)
            if new is not None:
                group = state.groups.get(new.group)
                if (holder := _holder(new, group, state.agents.get(new.agent))) is not None and group:
                    sums.count(holder, amounts.of(key, new, group), 1)
        return sums.totals()

    def _affected(
        self, groups: Mapping[str, Group | None], agents: Mapping[str, AgentRecord | None]
    ) -> dict[str, Container | None]:
        """Return the rows before the step of all containers that may count differently now.

        These are the written ones, those of a group with another owner or demand, and those of an agent in
        another pool.
        """
        state, rows = self._state, dict(self._state.containers.written())
        for name, old in groups.items():
            if _terms(old) != _terms(state.groups.get(name)):
                for key in state.containers.each("group", name):
                    rows.setdefault(key, state.containers[key])
        for name, record in agents.items():
            if _pool(record) != _pool(state.agents.get(name)):
                for key in state.containers.each("agent", name):
                    rows.setdefault(key, state.containers[key])
        return rows

    def _change(self, holder: Holder, amount: Resources) -> None:
        """Close the interval of an account, and begin the next with ``amount`` more."""
        user, job, pool = holder
        accounts, key = self._state.accounts, account_key(*holder)
        account = accounts.get(key)
        if account is None:
            account = Account(job=job, user=user, pool=pool, since_s=self.now_s)
        for row in closed(account, self.now_s, first_day=self.first_day):
            self.add(row)
        held = (account.held + amount).bounded()
        if held == NOTHING:
            accounts.drop(key)
        else:
            was_set_back = account.since_s - self.now_s > STEP_S
            since_s = self.now_s if was_set_back else max(account.since_s, self.now_s)
            accounts.put(key, replace(account, held=held, since_s=since_s))

    # ---- bounds

    def _merge(self) -> bool:
        """Merge the oldest rows beyond the days and the number that are kept; return whether any are left.

        First rows of one day lose their jobs, so that users and pools are kept apart for longer.
        """
        usage, left = self._state.usage, MERGED_MAX
        for day in self._days("day"):
            if day >= self.first_day:
                break
            left -= self._merge_rows("day", day, left, keep_day=False)
        for index, keep_day in (("jobs", True), ("day", False)):
            over = len(usage) - self._state.config.usage_rows_max
            for day in self._days(index) if over > 0 else ():
                if over <= 0 or left <= 0:
                    break
                merged = self._merge_rows(index, day, min(left, over + 1), keep_day=keep_day)
                left, over = left - merged, len(usage) - self._state.config.usage_rows_max
        return left <= 0

    def _days(self, index: str) -> list[int]:
        return sorted(day for day in self._state.usage.index_values(index) if isinstance(day, int))

    def _merge_rows(self, index: str, day: int, count_max: int, *, keep_day: bool) -> int:
        usage = self._state.usage
        keys = usage.where(index, day)[: max(count_max, 0)]
        for key in keys:
            row = usage[key]
            usage.drop(key)
            self.add(merged_into(row, keep_day=keep_day))
        return len(keys)


class _Sums:
    """How often each account holds each amount: most containers of a step take the same."""

    def __init__(self) -> None:
        self._times: dict[tuple[Holder, int], list[int]] = {}
        self._amounts: dict[int, Resources] = {}

    def count(self, holder: Holder, amount: Resources, times: int) -> None:
        self._amounts[id(amount)] = amount  # Kept, so that its id is not used again.
        self._times.setdefault((holder, id(amount)), [0])[0] += times

    def totals(self) -> dict[Holder, Resources]:
        """Return the sum of each account."""
        sums: dict[Holder, Resources] = {}
        for (holder, number), (times,) in self._times.items():
            if times:
                sums[holder] = sums.get(holder, NOTHING).plus(self._amounts[number], times)
        return sums


class _Amounts:
    """What containers take, computed once for each demand."""

    def __init__(self) -> None:
        self._by_demand: dict[int, tuple[Demand, Resources]] = {}

    def of(self, key: str, row: Container, group: Group) -> Resources:
        """Return what one placed container counts for its owner."""
        order = group.order
        if key != row.container:
            return charged(row.resources.of_one_container(), order.priority)
        if row.resources != NOTHING:  # While it is resized, it holds the larger amounts.
            both = group.demand_of(row.size).resources.bounded().largest(row.resources)
            return charged(both, order.priority)
        demand = group.demand_of(row.size)
        known = self._by_demand.get(id(demand))
        if known is None:  # The demand is kept as well, so that its id is not used again.
            amount = charged(demand.resources.bounded(), order.priority)
            known = self._by_demand[id(demand)] = demand, amount
        return known[1]


def _holder(row: Container, group: Group | None, agent: AgentRecord | None) -> Holder | None:
    """Return the account that a container counts in, or None if it has no place or no group."""
    if row.state not in PLACED or not row.agent or group is None:
        return None
    return group.order.user, row.group, _pool(agent) or ""


def _terms(group: Group | None) -> tuple[str, Demand, int] | None:
    return None if group is None else (group.order.user, group.order.demand, group.order.priority)


def _pool(agent: AgentRecord | None) -> str | None:
    return None if agent is None else agent.pool
