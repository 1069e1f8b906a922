"""Containers that are to leave their agents: which, why, where to, and when a drain is done.

ResMan decides that a slot leaves (``Container.leave``), and keeps room for it on another agent.
AppMaster, which gets this with the slot's status, stops its programs at the pace of its job and then
orders the move (``SlotMove``). So a pod stays where it is until there is room for it elsewhere, except
when it is evicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

from msgspec.structs import replace

from galaxy.model.messages.container import ContainerState, GroupOrder, Leave, Reason
from galaxy.model.messages.trace import agent_cause, timer_cause
from galaxy.model.stored.agent import AgentRecord
from galaxy.resman.logic.state.container_index import reservation_key
from galaxy.resman.logic.state.state import ResManState
from galaxy.scheduler.place import place
from galaxy.scheduler.requests import Ask

_HERE: Final = (ContainerState.ALLOCATING, ContainerState.READY)
RETRIED_MAX: Final = 500
"""Leaving containers without room elsewhere for which room is looked for in one step."""


class Leaving:
    """Decides which containers leave, and keeps room for them; everything is derived from the tables."""

    def __init__(self, state: ResManState) -> None:
        self.state = state
        self._evicting: dict[str, None] = {}
        """Agents whose deadline is over, as far as their containers know."""
        self._homeless: dict[str, None] = dict.fromkeys(state.containers.where("leaving", True))
        """Leaving containers for which room is to be looked for."""

    def on_heartbeats(self) -> None:
        """Look again for room for containers that have none, and for those whose room is gone."""
        state = self.state
        for key in state.containers.each("leaving", True):
            leave = state.containers[key].leave
            if leave is not None and not (
                leave.to and leave.to in state.agents and state.view.is_open(leave.to)
            ):
                self._homeless[key] = None

    def step(self, *, safe: bool) -> bool:
        """Take the decisions of a step, in safe mode (``safe``) without room; return whether more wait."""
        state = self.state
        self._check_deadlines()
        for key in state.leaves_to_check:
            self._check(key)
        state.leaves_to_check.clear()
        if not safe:
            self._find_room()
        self._check_done()
        return bool(self._homeless) and not safe

    def next_s(self) -> float | None:
        """Return when the next deadline is over, in Unix seconds."""
        times = [drain.until_s for name in self.state.draining if (drain := self.state.agents[name].drain)]
        return min((at_s for at_s in times if at_s > self.state.now_s), default=None)

    def _check_deadlines(self) -> None:
        state = self.state
        for name in [name for name in self._evicting if name not in state.draining]:
            del self._evicting[name]
        for name in state.draining:
            drain = state.agents[name].drain
            if drain is None:
                continue
            if not drain.evicts(state.now_s):
                self._evicting.pop(name, None)
            elif name not in self._evicting:
                self._evicting[name] = None
                state.leaves_to_check.update(dict.fromkeys(state.containers.where("agent", name)))

    def _check(self, key: str) -> None:
        """Bring ``leave`` of a container to what it should be."""
        state = self.state
        row = state.containers.get(key)
        if row is None or key != row.container:
            return
        record = state.agents.get(row.agent)
        leave = None
        if record is not None and row.state in _HERE:
            leave = wanted(record, state.groups[row.group].order, state.now_s)
        if leave is not None and row.leave is not None:
            leave = replace(leave, to=row.leave.to, blocked=row.leave.blocked)
        if leave == row.leave:
            return
        state.write(key, replace(row, leave=leave))
        if leave is not None and not leave.to:
            self._homeless[key] = None

    def _find_room(self) -> None:
        """Keep room elsewhere for leaving containers, as many as one step may."""
        state = self.state
        by_group: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for key in list(islice(self._homeless, RETRIED_MAX)):
            del self._homeless[key]
            row = state.containers.get(key)
            if row is None or row.leave is None:
                continue
            if self._has_room(key):
                continue
            if row.leave.to:
                state.write(key, replace(row, leave=replace(row.leave, to="")))
            if not state.groups[row.group].order.batch or row.leave.evict:
                by_group.setdefault((row.group, row.avoid), []).append(key)
        for (group, avoid), keys in by_group.items():
            self._place(group, avoid, keys)

    def _place(self, group: str, avoid: tuple[str, ...], keys: Sequence[str]) -> None:
        state = self.state
        state.cause = timer_cause("placement")
        plan = place(state.view, [ask_of(state, group, keys, avoid)])
        for placement in plan.placements:
            state.view.created(placement.container)
            key = placement.container[:-1]
            row = state.containers[key]
            assert row.leave is not None
            state.write(key, replace(row, leave=replace(row.leave, to=placement.agent, blocked=None)))
        for refusal in plan.refusals:
            for container in refusal.containers:
                row = state.containers[container[:-1]]
                assert row.leave is not None
                if row.leave.blocked != refusal.reason:
                    state.write(
                        container[:-1], replace(row, leave=replace(row.leave, blocked=refusal.reason))
                    )

    def _has_room(self, key: str) -> bool:
        """Return whether room is kept for a leaving container, on an agent that still takes it."""
        state = self.state
        leave = state.containers[key].leave
        return leave is not None and leave.to in state.agents and state.view.is_open(leave.to)

    def _check_done(self) -> None:
        state = self.state
        for name in state.draining:
            record = state.agents[name]
            if record.drain is None:
                continue
            empty = not state.containers.count("agent", name)
            if empty != bool(record.drain.done_s):
                state.cause = agent_cause(name)
                done_s = state.now_s if empty else 0.0
                state.agents.put(name, replace(record, drain=replace(record.drain, done_s=done_s)))
                if empty:
                    state.record("agent.drained", name)


def ask_of(state: ResManState, group: str, keys: Sequence[str], avoid: tuple[str, ...] = ()) -> Ask:
    """Return what is asked of the scheduler to keep room for the slots ``keys`` of ``group``."""
    order = state.groups[group].order
    return Ask(
        group=group,
        shape=state.shape(group),
        containers=tuple(reservation_key(key) for key in keys),
        size=order.replicas,
        priority=order.priority,
        avoid=avoid,
    )


def wanted(record: AgentRecord, order: GroupOrder, now_s: float) -> Leave | None:
    """Return why a container of ``order`` is to leave its agent, without where to; None if it may stay."""
    demand, drain = order.demand, record.drain
    if drain is not None:
        why = f": {drain.reason}" if drain.reason else ""
        code = "offline" if drain.offline else "drain"
        message = f"{record.agent} is drained by {drain.by}{why}"
        evict = drain.evicts(now_s)
        if evict and not drain.force:
            message += "; the deadline is over"
        return Leave(reason=Reason(code=code, message=message), evict=evict)
    if demand.pools and record.pool not in demand.pools:
        return Leave(reason=Reason(code="pool", message=f"{record.agent} is in pool {record.pool} now"))
    if demand.tag and demand.tag not in record.tags:
        return Leave(reason=Reason(code="tag", message=f"{record.agent} lacks tag {demand.tag}"))
    return None
