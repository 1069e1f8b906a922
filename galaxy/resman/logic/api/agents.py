"""Operations on agents: list, cordon, register, label and forget them."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.errors import Conflict, UsageError
from galaxy.model.api.agents import AgentList
from galaxy.model.api.machines import (
    LABELS_MAX,
    REGISTERED_MAX,
    AddAgent,
    AgentsView,
    CordonAgents,
    LabelAgents,
    ListMachines,
    RemoveAgents,
    UncordonAgents,
)
from galaxy.model.api.views import AgentView
from galaxy.model.messages.agent import AgentState, Heartbeat
from galaxy.model.messages.container import ContainerState, Reason
from galaxy.model.stored.agent import AgentRecord, Mark, Registration
from galaxy.operations.agent_views import agent_views
from galaxy.operations.authz import OPERATORS
from galaxy.operations.declaration import Caller, change, query
from galaxy.operations.paging import page_of_names
from galaxy.resman.logic.agents.failures import place_later
from galaxy.resman.logic.api.context import ResManContext
from galaxy.resman.logic.api.hosts import change_each, named, no_agent, records_of, some
from galaxy.resman.logic.api.pools import require_pool
from galaxy.resman.logic.groups.transitions import AgentLost
from galaxy.resman.logic.state.state import ResManState

TROUBLE = "it reports that it cannot carry out orders"


@query(ListMachines, authority=OPERATORS)
def list_machines(context: ResManContext, body: ListMachines, _: Caller) -> AgentList:
    """List agents by name, without what they use: only AppMaster's list reads that.

    Raises:
        NotFound: no agent has that name.
    """
    state = context.state
    if body.agent:
        return AgentList(agents=_views(state, records_of(state, [body.agent])))
    names, after = page_of_names(sorted(state.agents), body)
    return AgentList(
        agents=_views(state, [state.agents[name] for name in names]),
        refused=() if body.after else state.refused_agents,
        registered=() if body.after else tuple(row for _, row in sorted(state.registrations.items())),
        next=after,
    )


@change(CordonAgents, authority=OPERATORS, target=lambda body, _: named(body.agents))
def cordon_agents(context: ResManContext, body: CordonAgents, caller: Caller) -> AgentsView:
    """Place nothing new on agents. One that is cordoned already gets the new reason, if there is one.

    Raises:
        NotFound: one of them is not known.
    """
    state = context.state
    mark = Mark(by=caller.name, at_s=state.now_s, reason=body.reason)
    records = records_of(state, body.agents)
    cordoned = [
        record
        if record.cordon is not None and body.reason in ("", record.cordon.reason)
        else replace(record, cordon=mark)
        for record in records
    ]
    return change_each(state, records, cordoned, "agent.cordoned", body.reason)


@change(UncordonAgents, authority=OPERATORS, target=lambda body, _: named(body.agents))
def uncordon_agents(context: ResManContext, body: UncordonAgents, _: Caller) -> AgentsView:
    """Place containers on agents again.

    Raises:
        NotFound: one of them is not known. Conflict: one of them is drained, so it would stay closed.
    """
    state = context.state
    records = records_of(state, body.agents)
    drained = [record.agent for record in records if record.drain is not None]
    if drained:
        raise Conflict(
            f"{some(drained)} cannot be opened by uncordon: drained or offline",
            details=["nothing was changed"],
            hint=f"galaxy agent online {drained[0]}",
        )
    opened = [replace(record, cordon=None) for record in records]
    return change_each(state, records, opened, "agent.uncordoned")


@change(AddAgent, authority=OPERATORS, target=lambda body, _: body.agent)
def add_agent(context: ResManContext, body: AddAgent, caller: Caller) -> AgentsView:
    """Register an agent that has not joined; a second registration replaces the first.

    Raises:
        Conflict: it has joined already, or too many are registered. NotFound: there is no such pool.
    """
    state = context.state
    if body.agent in state.agents:
        raise Conflict(
            f"{body.agent} has joined already",
            hint="galaxy pool move, galaxy tag add and galaxy agent label change it",
        )
    if body.agent not in state.registrations and len(state.registrations) >= REGISTERED_MAX:
        raise Conflict(
            f"{len(state.registrations):,} agents are registered and have not joined",
            details=[f"{REGISTERED_MAX:,} at most"],
            hint="galaxy agent remove HOST drops a registration",
        )
    if body.pool:
        require_pool(state, body.pool)
    row = Registration(
        agent=body.agent, pool=body.pool, tags=body.tags, labels=body.labels, by=caller.name, at_s=state.now_s
    )
    state.registrations.put(body.agent, row)
    return AgentsView(agents=(body.agent,), changed=(body.agent,))


@change(LabelAgents, authority=OPERATORS, target=lambda body, _: named(body.agents))
def label_agents(context: ResManContext, body: LabelAgents, _: Caller) -> AgentsView:
    """Set and remove labels of agents.

    Raises:
        NotFound: one of them is not known. UsageError: one of them would have too many labels.
    """
    state = context.state
    records, labelled = records_of(state, body.agents), []
    for record in records:
        kept = {key: value for key, value in record.labels.items() if key not in body.remove}
        labels = dict(sorted({**kept, **body.labels}.items()))
        if len(labels) > LABELS_MAX:
            raise UsageError(
                f"{record.agent} would have {len(labels)} labels",
                details=[f"{LABELS_MAX} at most; nothing was changed"],
                hint=f"galaxy agent label {record.agent} KEY- removes one",
            )
        labelled.append(replace(record, labels=labels))
    return change_each(state, records, labelled, "agent.labelled")


@change(RemoveAgents, authority=OPERATORS, target=lambda body, _: named(body.agents))
def remove_agents(context: ResManContext, body: RemoveAgents, _: Caller) -> AgentsView:
    """Forget agents and registrations. With ``force``, containers on them are placed elsewhere at once.

    What Redis has of them is deleted when their heartbeats have stopped; see ``heartbeats._on_unknown``.

    Raises:
        NotFound: one of them is not known. Conflict: one is alive or holds containers, without ``force``.
    """
    state = context.state
    wanted = tuple(dict.fromkeys(body.agents))
    missing = [name for name in wanted if name not in state.agents and name not in state.registrations]
    if missing:
        raise no_agent(state, missing)
    records = [state.agents[name] for name in wanted if name in state.agents]
    if not body.force:
        _require_gone(state, records)
    for record in records:
        _release(state, record)
        state.forget_agent(record.agent)
        state.record("agent.removed", record.agent)
    for name in wanted:
        state.registrations.drop(name)
    return AgentsView(agents=wanted, changed=wanted)


def _require_gone(state: ResManState, records: list[AgentRecord]) -> None:
    """Make sure that agents are dead and hold no container.

    Raises:
        Conflict: names those that are not.
    """
    alive = [record.agent for record in records if record.state is not AgentState.DEAD]
    holding = [record.agent for record in records if state.containers.count("agent", record.agent)]
    if not alive and not holding:
        return
    details = []
    if alive:
        details.append(f"not dead: {some(alive)}")
    details += [f"{name} holds {state.containers.count('agent', name)} containers" for name in holding[:5]]
    first = (alive or holding)[0]
    raise Conflict(
        f"cannot remove {first}: it is not gone" if len(records) == 1 else "cannot remove all of them",
        details=[*details, "nothing was changed"],
        hint=f"galaxy agent drain {first}, stop its agent, and wait until it is dead; or --force",
    )


def _release(state: ResManState, record: AgentRecord) -> None:
    """Give up every container of an agent; its slots are placed elsewhere."""
    reason = Reason(code="agent-removed", message=f"{record.agent} was removed by an operator")
    for key in state.containers.where("agent", record.agent):
        row = state.containers[key]
        if row.state is not ContainerState.DESTROYING:
            state.record("container.lost", key, reason.message)
        state.apply(key, AgentLost(incarnation=row.incarnation, reason=reason))
        if key in state.containers and state.containers[key].state is ContainerState.PENDING:
            place_later(state, key)


def _views(state: ResManState, records: list[AgentRecord]) -> tuple[AgentView, ...]:
    loads = {record.agent: row for record in records if (row := state.loads.get(record.agent))}
    beats = {}
    for record in records:
        watch = state.watches[record.agent]
        beats[record.agent] = Heartbeat(
            agent=record.agent,
            at_s=state.heartbeats.at_s(watch.row),
            boot=watch.boot,
            trouble=TROUBLE if watch.in_trouble else "",
        )
    return agent_views(records, loads, {}, beats)
