"""Agents' reports: who joins and returns, and what of the containers is as it should be."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from galaxy.ids import HOST, split_pod
from galaxy.model.messages.agent import AgentInfo, AgentReport, AgentState
from galaxy.model.messages.container import ContainerState, ObservedContainer, ObservedContainerState, Reason
from galaxy.model.stored.agent import AgentRecord
from galaxy.model.stored.container import Container
from galaxy.resman.logic.groups.transitions import SlotAdopted, SlotDestroyed, SlotFailed, SlotStarted
from galaxy.resman.logic.state.agent_watch import AgentWatch
from galaxy.resman.logic.state.state import ResManState
from galaxy.scheduler.cluster_view import Standing
from galaxy.scheduler.reconcile import difference

NEWS_MAX: Final = 1000
"""Containers that an agent has reported since its last full report, before it is asked for another."""
NEWS_KEPT_MAX: Final = 2 * NEWS_MAX
"""Containers that it may have reported since then: what would be more is as if lost, until it sends one."""


def take_in(books: ResManState, report: AgentReport) -> None:
    """Believe what a report says, as far as nothing newer is known."""
    agent = report.agent
    if agent not in books.watches and not _join(books, report):
        return
    watch = books.stir(agent)
    if not _current(books, watch, report):
        return
    if not report.full and len(watch.news) + len(report.containers) > NEWS_KEPT_MAX:
        books.ask(agent)
        return
    record = books.agents[agent]
    if record.state is AgentState.DEAD and not (report.full and books.pulse.fresh(watch.row)):
        return  # It has to beat, and to say all that is there, before it counts again.
    if report.info is not None and report.info.agent == agent and report.serial >= watch.full:
        _inform(books, record, report.info)
    _compare(books, watch, report)
    if report.full:
        _remember(watch, report)
        if record.state is AgentState.DEAD:
            _return(books, agent)
    elif not watch.heard:
        books.ask(agent)


def _join(books: ResManState, report: AgentReport) -> bool:
    """Take in an agent that was not known; only a full report says what it is and has."""
    if not HOST.fullmatch(report.agent):
        return False
    info = report.info
    if not report.full or info is None or info.agent != report.agent:
        books.ask(report.agent)
        return False
    record = AgentRecord(agent=report.agent, info=info, since_s=books.now_s)
    books.agents.put(report.agent, record)
    watch = books.watch(record, Standing.OPEN)
    books.pulse.beat([watch.row], [books.pulse.read_s])
    books.tell("agent.joined", report.agent, f"pool {info.pool}, mode {info.mode}")
    return True


def _current(books: ResManState, watch: AgentWatch, report: AgentReport) -> bool:
    """Return whether a report comes from the present life of its agent, as far as is known."""
    if report.boot == watch.boot:
        return True
    if report.boot in watch.old_boots:
        return False
    watch.turn(report.boot, books.pulse.read_s)
    return True


def _inform(books: ResManState, record: AgentRecord, info: AgentInfo) -> None:
    if info == record.info:
        return
    books.agents.put(record.agent, replace(record, info=info))
    row = books.view.row(record.agent)
    books.view.join(info, Standing(int(books.view.standing[row])))
    if info.address != record.info.address:
        for key in books.containers.where("agent", record.agent):
            container = books.containers[key]
            if key == container.container:
                books.changed.setdefault(container.group, {})[key] = None


def _remember(watch: AgentWatch, report: AgentReport) -> None:
    if report.serial >= watch.full:
        watch.full, watch.heard = report.serial, True
        watch.news = {key: serial for key, serial in watch.news.items() if serial > report.serial}


def _return(books: ResManState, agent: str) -> None:
    """Count an agent that was dead as alive again, now that what is there is on the books."""
    books.agents.put(agent, replace(books.agents[agent], state=AgentState.ALIVE, since_s=books.now_s))
    books.view.stand(agent, Standing.OPEN)
    books.lost.pop(agent, None)
    books.tell("agent.returned", agent)


def _compare(books: ResManState, watch: AgentWatch, report: AgentReport) -> None:
    """Let every difference between a report and the books happen to the books."""
    agent, serial = report.agent, report.serial
    found = [one for one in report.containers if serial > watch.news.get(one.container, watch.full)]
    booked: dict[tuple[str, int], str] = {}
    if report.full:
        for key in books.containers.where("agent", agent):
            row = books.containers[key]
            booked[row.container, row.incarnation] = key
    else:
        for one in found:
            if key_of := books.find(agent, one.container, one.incarnation):
                booked[one.container, one.incarnation] = key_of
    apart = difference(booked, found, full=report.full)
    for key, one in apart.known:
        _found(books, key, one)
    for one in apart.strange:
        _stranger(books, agent, one)
    for key in apart.missing:
        row = books.containers[key]
        if serial > watch.news.get(row.container, watch.full):
            _missing(books, key, row, proven=report.epoch >= books.epoch)
    if not report.full:
        watch.news.update((one.container, serial) for one in found)
        if len(watch.news) > NEWS_MAX:
            books.ask(agent)  # With a full report it begins anew.


def _found(books: ResManState, key: str, found: ObservedContainer) -> None:
    """Move a row on by what its agent says of it."""
    row = books.containers.get(key)
    if row is None:
        return  # The report names it twice, and what it said first ended it.
    wanted = row.state in (ContainerState.ALLOCATING, ContainerState.READY)
    match found.state:
        case ObservedContainerState.READY:
            if row.state is ContainerState.ALLOCATING:
                _trust(books, row.agent)
                books.tell("container.ready", key, f"on {row.agent}, incarnation {row.incarnation}")
            books.happen(key, SlotStarted(incarnation=row.incarnation, ports=found.ports))
        case ObservedContainerState.GONE if row.state is ContainerState.DESTROYING:
            books.happen(key, SlotDestroyed(incarnation=row.incarnation))
        case ObservedContainerState.GONE if wanted:
            _end(books, key, found, Reason(code="gone", message=f"{row.agent} says it is gone"))
        case ObservedContainerState.MAKING if row.state is ContainerState.ALLOCATING:
            books.owed.rest(key, books.now_s)
        case ObservedContainerState.DESTROYING if row.state is ContainerState.DESTROYING:
            books.owed.rest(key, books.now_s)
        case ObservedContainerState.ENDED | ObservedContainerState.DESTROYING if wanted:
            books.split(key)
            message = f"{row.agent} ended it without a reason"
            _end(books, key, found, Reason(code="ended", message=message))


def _end(books: ResManState, key: str, found: ObservedContainer, default: Reason) -> None:
    row = books.containers[key]
    reason = found.reason or default
    if row.state is ContainerState.ALLOCATING:
        distrust(books, row.agent)
    books.tell("container.failed", key, f"on {row.agent}: {reason.message or reason.code}")
    books.happen(key, SlotFailed(incarnation=row.incarnation, reason=reason))
    hold_back(books, key)


def give_up(books: ResManState, key: str) -> None:
    """Stop waiting for an agent to make a container: it is to be made elsewhere."""
    row = books.containers[key]
    waited_s = round(books.now_s - row.since_s)
    message = f"{row.agent} has not made it in {waited_s} s"
    distrust(books, row.agent)
    books.tell("container.failed", key, message)
    books.split(key)
    reason = Reason(code="create-timeout", message=message)
    books.happen(key, SlotFailed(incarnation=row.incarnation, reason=reason))
    hold_back(books, key)


def hold_back(books: ResManState, key: str) -> None:
    """See to it that a slot that waits out a failure is placed afterwards."""
    row = books.containers[key]
    if row.state is ContainerState.PENDING:
        books.later.start(key, row.retry_s)


def _missing(books: ResManState, key: str, row: Container, *, proven: bool) -> None:
    """Deal with a row that a full report leaves out.

    Only a report that was made under this leadership proves anything: an older one may have
    been made before the container was. A command may be on its way still: what is to be made
    or destroyed is commanded again, until no command can be alive any more.
    """
    if row.state is ContainerState.READY:
        if not proven:
            books.ask(row.agent)
            return
        reason = Reason(code="gone", message=f"{row.agent} does not have it any more")
        books.tell("container.failed", key, reason.message)
        books.happen(key, SlotFailed(incarnation=row.incarnation, reason=reason))
        hold_back(books, key)
    elif (
        row.state is ContainerState.DESTROYING
        and proven
        and books.now_s - row.since_s > books.config.command_life_s
    ):
        books.happen(key, SlotDestroyed(incarnation=row.incarnation))
    else:
        books.owed.hurry(key, books.now_s)


def _stranger(books: ResManState, agent: str, found: ObservedContainer) -> None:
    """Adopt a container that is on no book if its slot waits for a place; else have it destroyed."""
    if found.state is ObservedContainerState.GONE:
        return
    row = books.containers.get(found.container)
    if (
        found.state is ObservedContainerState.READY
        and row is not None
        and row.state is ContainerState.PENDING
        and found.incarnation >= row.incarnation
    ):
        books.happen(
            found.container,
            SlotAdopted(incarnation=found.incarnation, agent=agent, ports=found.ports),
        )
        books.later.stop(found.container)
        books.tell("container.adopted", found.container, f"on {agent}")
        return
    try:
        group, slot = split_pod(found.container)
    except ValueError:
        return
    stray = Container(
        container=found.container,
        group=group,
        slot=slot,
        incarnation=found.incarnation,
        state=ContainerState.DESTROYING,
        agent=agent,
        ports=found.ports,
        since_s=books.now_s,
        cpu_milli=found.cpu_milli,
        memory_bytes=found.memory_bytes,
        disk_bytes=found.disk_bytes,
    )
    books.write(f"{found.container}#{found.incarnation}@{agent}", stray)
    books.tell("container.stray", found.container, f"on {agent}, incarnation {found.incarnation}")


def distrust(books: ResManState, agent: str) -> None:
    """Count a failure to make a container against its agent."""
    watch = books.stir(agent)
    watch.failures += 1
    watch.failed_s = books.now_s
    if watch.failures >= books.config.flaky_failures:
        books.flaky[agent] = None
        books.view.distrust(agent, True)


def _trust(books: ResManState, agent: str) -> None:
    books.stir(agent).failures = 0
    if agent in books.flaky:
        del books.flaky[agent]
        books.view.distrust(agent, False)


def forgive(books: ResManState) -> None:
    """Trust agents again that have not failed for a while."""
    for agent in list(books.flaky):
        if books.now_s - books.watches[agent].failed_s >= books.config.flaky_s:
            _trust(books, agent)
