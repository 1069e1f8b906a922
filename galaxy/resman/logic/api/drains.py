"""Operations that empty machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from galaxy.errors import Conflict, UsageError
from galaxy.model.api.drains import (
    LEFT_MAX,
    DrainAgents,
    DrainList,
    DrainPlan,
    DrainView,
    LeavingView,
    OnlineAgents,
    PlanDrain,
    PlannedMove,
    ShortJob,
    ShowDrains,
)
from galaxy.model.api.machines import AgentsView
from galaxy.model.messages.container import ContainerState, Reason
from galaxy.model.stored.agent import AgentRecord, Drain
from galaxy.model.stored.container import Container
from galaxy.operations.authz import OPERATORS
from galaxy.operations.declaration import Caller, change, query
from galaxy.resman.logic.agents.leaving import ask_of
from galaxy.resman.logic.api.context import ResManContext
from galaxy.resman.logic.api.hosts import change_each, named, records_of, some
from galaxy.resman.logic.state.state import ResManState
from galaxy.scheduler.cluster_view import PlacementStatus
from galaxy.scheduler.place import place

PLANNED_MAX: Final = 10_000
"""Containers of one plan."""
_ENDS: Final = Reason(code="batch", message="it stays until it has ended")
_HERE: Final = (ContainerState.ALLOCATING, ContainerState.READY)


@change(
    DrainAgents,
    authority=OPERATORS,
    target=lambda body, _: named(body.agents, "offline" if body.offline else ""),
)
def drain_agents(context: ResManContext, body: DrainAgents, caller: Caller) -> AgentsView:
    """Have every container leave agents. A later request replaces deadline, force and reason of the first.

    Raises:
        NotFound: one of them is not known.
    """
    state = context.state
    drain = Drain(
        by=caller.name,
        at_s=state.now_s,
        reason=body.reason,
        until_s=state.now_s + body.deadline_s if body.deadline_s else 0.0,
        force=body.force,
        offline=body.offline,
    )
    records = records_of(state, body.agents)
    drained = [replace(record, drain=_renewed(record.drain, drain)) for record in records]
    kind = "agent.offline" if body.offline else "agent.drain"
    return change_each(state, records, drained, kind, body.reason)


@change(OnlineAgents, authority=OPERATORS, target=lambda body, _: named(body.agents))
def online_agents(context: ResManContext, body: OnlineAgents, _: Caller) -> AgentsView:
    """End the drain of agents. One that is cordoned as well stays cordoned.

    Raises:
        NotFound: one of them is not known. Conflict: none is drained, and one of them is cordoned.
    """
    state = context.state
    records = records_of(state, body.agents)
    cordoned = [record.agent for record in records if record.cordon is not None]
    if cordoned and not any(record.drain is not None for record in records):
        raise Conflict(
            f"not drained, but cordoned: {some(cordoned)}",
            details=["nothing was changed"],
            hint=f"galaxy agent uncordon {cordoned[0]}",
        )
    return change_each(state, records, [replace(record, drain=None) for record in records], "agent.online")


@query(ShowDrains, authority=OPERATORS)
def show_drains(context: ResManContext, body: ShowDrains, _: Caller) -> DrainList:
    """Show what is left on agents.

    Raises:
        NotFound: one of them is not known.
    """
    state = context.state
    drains = tuple(_view(state, record) for record in records_of(state, body.agents))
    return DrainList(drains=drains, safe_mode=context.safe_mode.reason)


@query(PlanDrain, authority=OPERATORS)
def plan_drain(context: ResManContext, body: PlanDrain, _: Caller) -> DrainPlan:
    """Say where each container on agents would go, and which jobs would be short; change nothing.

    Raises:
        NotFound: one of them is not known. UsageError: they have too many containers for one plan.
    """
    state = context.state
    records = records_of(state, body.agents)
    rows = [row for record in records for row in _rows(state, record.agent) if row.state in _HERE]
    if len(rows) > PLANNED_MAX:
        raise UsageError(
            f"these agents have {len(rows):,} containers",
            details=[f"a plan has {PLANNED_MAX:,} at most"],
            hint="plan the drain of fewer agents",
        )
    moving = [row for row in rows if body.evict or not state.groups[row.group].order.batch]
    found, reasons = _tried(state, [record.agent for record in records], moving)
    moves = []
    for row in sorted(rows, key=lambda row: (row.agent, row.group, row.slot)):
        key = row.container
        reason = None if key in found else reasons.get(key, _ENDS)
        moves.append(
            PlannedMove(container=key, job=row.group, agent=row.agent, to=found.get(key, ""), reason=reason)
        )
    short: dict[str, list[str]] = {}
    for key in sorted(reasons):
        short.setdefault(state.containers[key].group, []).append(key)
    return DrainPlan(
        moves=tuple(moves),
        short=tuple(
            ShortJob(
                job=group,
                count=len(keys),
                replica=state.groups[group].order.replicas,
                reason=reasons[keys[0]],
            )
            for group, keys in short.items()
        ),
        safe_mode=context.safe_mode.reason,
    )


def _renewed(old: Drain | None, new: Drain) -> Drain:
    """Return the drain that replaces ``old``: offline stays offline, and a reason stays without a new one."""
    if old is None:
        return new
    merged = replace(
        new, offline=new.offline or old.offline, done_s=old.done_s, reason=new.reason or old.reason
    )
    same = replace(merged, by=old.by, at_s=old.at_s)
    return old if same == old and not new.until_s else merged


def _tried(
    state: ResManState, agents: Sequence[str], rows: Sequence[Container]
) -> tuple[dict[str, str], dict[str, Reason]]:
    """Return, by container, where it would go, or why nowhere; the scheduler's view stays as it is."""
    view = state.view
    before = {name: PlacementStatus(int(view.status[view.row(name)])) for name in agents}
    found: dict[str, str] = {}
    reasons: dict[str, Reason] = {}
    asks = []
    by_group: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for row in rows:
        if row.leave is not None and row.leave.to:
            found[row.container] = row.leave.to
        else:
            by_group.setdefault((row.group, row.avoid), []).append(row.container)
    for (group, avoid), keys in sorted(by_group.items()):
        asks.append(ask_of(state, group, keys, avoid))
    for name, status in before.items():
        if status is PlacementStatus.OPEN:
            view.set_status(name, PlacementStatus.CORDONED)
    plan = place(view, asks)
    for placement in plan.placements:
        view.release(placement.container)
        found[placement.container[:-1]] = placement.agent
    for name, status in before.items():
        view.set_status(name, status)
    for refusal in plan.refusals:
        reasons.update((key[:-1], refusal.reason) for key in refusal.containers)
    return found, reasons


def _view(state: ResManState, record: AgentRecord) -> DrainView:
    rows = _rows(state, record.agent)
    return DrainView(
        agent=record.agent,
        state=record.state,
        drain=record.drain,
        containers=len(rows),
        left=tuple(_leaving(row) for row in rows[:LEFT_MAX]),
    )


def _rows(state: ResManState, agent: str) -> list[Container]:
    rows = [state.containers[key] for key in state.containers.where("agent", agent)]
    return sorted(rows, key=lambda row: (row.group, row.slot, row.incarnation))


def _leaving(row: Container) -> LeavingView:
    leave = row.leave
    return LeavingView(
        container=row.container,
        job=row.group,
        state=row.state,
        to=leave.to if leave else "",
        reason=leave.blocked if leave and not leave.to else None,
        evicted=leave.evict if leave else False,
    )
