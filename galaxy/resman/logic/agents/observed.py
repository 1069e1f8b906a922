"""Compares reported containers with the tables: ready, failed, missing, adopted or destroyed ones."""

from __future__ import annotations

from galaxy.ids import split_pod
from galaxy.model.messages.agent import AgentReport
from galaxy.model.messages.container import ContainerState, ObservedContainer, ObservedContainerState, Reason
from galaxy.model.stored.container import Container
from galaxy.resman.logic.agents.failures import count_failure, place_later, reset_failures
from galaxy.resman.logic.groups.transitions import SlotAdopted, SlotDestroyed, SlotFailed, SlotStarted
from galaxy.resman.logic.state.agent_watch import AgentWatch
from galaxy.resman.logic.state.container_index import old_incarnation_key
from galaxy.resman.logic.state.state import ResManState
from galaxy.scheduler.reconcile import difference


def compare(state: ResManState, watch: AgentWatch, report: AgentReport) -> None:
    """Apply every difference between a report and the tables, except where a newer report was applied."""
    agent, serial = report.agent, report.serial
    newer, full_serial = watch.newer_serials, watch.full_serial
    observed = [one for one in report.containers if serial > newer.get(one.container, full_serial)]
    expected: dict[tuple[str, int], str] = {}
    if report.full:
        for key in state.containers.where("agent", agent):
            row = state.containers[key]
            expected[row.container, row.incarnation] = key
    else:
        for one in observed:
            if found := state.find(agent, one.container, one.incarnation):
                expected[one.container, one.incarnation] = found
    differs = difference(expected, observed, full=report.full)
    for key, one in differs.known:
        _on_known(state, key, one)
    proven = report.epoch >= state.epoch
    for one in differs.unknown:
        _on_unknown(state, agent, one, proven=proven)
    for key in differs.missing:
        row = state.containers[key]
        if serial > newer.get(row.container, full_serial):
            _on_missing(state, key, row, proven=proven)
    if not report.full:
        newer.update((one.container, serial) for one in observed)


def _on_known(state: ResManState, key: str, observed: ObservedContainer) -> None:
    """Apply what an agent reports about a container that the tables have."""
    row = state.containers.get(key)
    if row is None:
        return  # The report names it twice, and the first entry ended it.
    desired = row.state in (ContainerState.ALLOCATING, ContainerState.READY)
    match observed.state:
        case ObservedContainerState.READY:
            if row.state is ContainerState.ALLOCATING:
                reset_failures(state, row.agent)
                state.record("container.ready", key, f"on {row.agent}, incarnation {row.incarnation}")
            started = SlotStarted(
                incarnation=row.incarnation,
                ports=observed.ports,
                size=observed.size,
                resize=observed.resize,
            )
            state.apply(key, started)
            if observed.resize is not None:
                state.unacknowledged.slow_down(key, state.now_s)
        case ObservedContainerState.GONE if row.state is ContainerState.DESTROYING:
            state.apply(key, SlotDestroyed(incarnation=row.incarnation))
        case ObservedContainerState.GONE if desired:
            _fail(state, key, observed.reason or Reason(code="gone", message=f"{row.agent} says it is gone"))
        case ObservedContainerState.CREATING if row.state is ContainerState.ALLOCATING:
            state.unacknowledged.slow_down(key, state.now_s)
        case ObservedContainerState.DESTROYING if row.state is ContainerState.DESTROYING:
            state.unacknowledged.slow_down(key, state.now_s)
        case ObservedContainerState.ENDED | ObservedContainerState.DESTROYING if desired:
            state.detach_incarnation(key)
            message = f"{row.agent} ended it without a reason"
            _fail(state, key, observed.reason or Reason(code="ended", message=message))


def _fail(state: ResManState, key: str, reason: Reason) -> None:
    row = state.containers[key]
    if row.state is ContainerState.ALLOCATING:
        count_failure(state, row.agent)
    state.record("container.failed", key, f"on {row.agent}: {reason.message or reason.code}")
    state.apply(key, SlotFailed(incarnation=row.incarnation, reason=reason))
    place_later(state, key)


def _on_missing(state: ResManState, key: str, row: Container, *, proven: bool) -> None:
    """Handle a row that a full report omits.

    Only a report made in this leadership (``proven``) shows that the container is gone: an older report
    may have been made before the container was. For a container that is being created or destroyed, the
    command is resent, because it may still be on its way, until no command can be valid any more.
    """
    if row.state is ContainerState.READY:
        if not proven:
            state.request_report(row.agent)
            return
        reason = Reason(code="gone", message=f"{row.agent} does not have it any more")
        state.record("container.failed", key, reason.message)
        state.apply(key, SlotFailed(incarnation=row.incarnation, reason=reason))
        place_later(state, key)
    elif (
        row.state is ContainerState.DESTROYING
        and proven
        and state.now_s - row.since_s > state.config.order_ttl_s
    ):
        state.apply(key, SlotDestroyed(incarnation=row.incarnation))
    else:
        state.unacknowledged.make_due(key, state.now_s)


def _on_unknown(state: ResManState, agent: str, observed: ObservedContainer, *, proven: bool) -> None:
    """Adopt a container that no row expects if its slot waits for a place; otherwise destroy it.

    Only a report made under this leadership is enough to adopt it. An older one may be a late report
    of an earlier boot, and the container gone since.
    """
    if observed.state is ObservedContainerState.GONE:
        return
    row = state.containers.get(observed.container)
    if (
        observed.state is ObservedContainerState.READY
        and row is not None
        and row.state is ContainerState.PENDING
        and observed.incarnation >= row.incarnation
        and state.groups[row.group].has_size(observed.size)
    ):
        if not proven:
            state.request_report(agent)
            return
        adopted = SlotAdopted(
            incarnation=observed.incarnation, agent=agent, ports=observed.ports, size=observed.size
        )
        state.apply(observed.container, adopted)
        state.retry_timers.stop(observed.container)
        state.record("container.adopted", observed.container, f"on {agent}")
        return
    try:
        group, slot = split_pod(observed.container)
    except ValueError:
        return
    stray = Container(
        container=observed.container,
        group=group,
        slot=slot,
        incarnation=observed.incarnation,
        state=ContainerState.DESTROYING,
        agent=agent,
        ports=observed.ports,
        since_s=state.now_s,
        resources=observed.resources,
    )
    state.write(old_incarnation_key(observed.container, observed.incarnation, agent), stray)
    state.record("container.stray", observed.container, f"on {agent}, incarnation {observed.incarnation}")
