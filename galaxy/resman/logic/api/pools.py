"""Operations on pools and tags."""

from __future__ import annotations

from collections import Counter

from msgspec.structs import replace

from galaxy.errors import Conflict, NotFound, UsageError
from galaxy.model.api.machines import (
    POOLS_MAX,
    TAGS_MAX,
    AgentsView,
    CreatePool,
    ListPools,
    ListTags,
    MovePool,
    PoolList,
    PoolView,
    RemovePool,
    TagAgents,
    TagList,
    TagView,
    UntagAgents,
)
from galaxy.model.messages.agent import AgentState
from galaxy.model.resources import NOTHING
from galaxy.model.stored.agent import AgentRecord, PoolRecord
from galaxy.operations.authz import OPERATORS
from galaxy.operations.declaration import Caller, change, query
from galaxy.operations.paging import page_of
from galaxy.resman.logic.api.context import ResManContext
from galaxy.resman.logic.api.hosts import change_each, named, records_of, some
from galaxy.resman.logic.state.state import ResManState
from galaxy.suggest import did_you_mean


@query(ListPools, authority=OPERATORS)
def list_pools(context: ResManContext, body: ListPools, _: Caller) -> PoolList:
    """List the pools: those that were created, and those that agents are in."""
    pools, after = page_of(_pools(context.state).values(), lambda pool: (pool.pool,), body)
    return PoolList(pools=tuple(pools), next=after)


@change(CreatePool, authority=OPERATORS, target=lambda body, _: body.pool)
def create_pool(context: ResManContext, body: CreatePool, caller: Caller) -> PoolView:
    """Create an empty pool.

    Raises:
        Conflict: it exists, or there are too many.
    """
    state = context.state
    if body.pool in state.pools:
        raise Conflict(f'there is a pool "{body.pool}" already', hint="galaxy pool list")
    if len(state.pools) >= POOLS_MAX:
        raise Conflict(f"there are {len(state.pools)} pools", details=[f"{POOLS_MAX} at most"])
    state.pools.put(body.pool, PoolRecord(pool=body.pool, by=caller.name, at_s=state.now_s))
    return _pools(state)[body.pool]


@change(RemovePool, authority=OPERATORS, target=lambda body, _: body.pool)
def remove_pool(context: ResManContext, body: RemovePool, _: Caller) -> PoolView:
    """Remove a pool.

    Raises:
        NotFound: there is no such pool. Conflict: agents are in it, or are registered for it.
    """
    state = context.state
    require_pool(state, body.pool)
    inside = sorted(name for name, record in state.agents.items() if record.pool == body.pool)
    expected = sorted(name for name, row in state.registrations.items() if row.pool == body.pool)
    if inside or expected:
        details = [f"agents in it: {some(inside)}"] if inside else []
        details += [f"registered for it: {some(expected)}"] if expected else []
        raise Conflict(
            f'pool "{body.pool}" is not empty', details=details, hint="galaxy pool move HOST... POOL"
        )
    view = _pools(state)[body.pool]
    state.pools.drop(body.pool)
    return view


@change(MovePool, authority=OPERATORS, target=lambda body, _: named(body.agents, body.pool))
def move_pool(context: ResManContext, body: MovePool, _: Caller) -> AgentsView:
    """Move agents to a pool.

    Raises:
        NotFound: there is no such pool, or no such agent.
    """
    state = context.state
    require_pool(state, body.pool)
    records = records_of(state, body.agents)
    moved = [replace(record, pool=body.pool) for record in records]
    return change_each(state, records, moved, "agent.pool", body.pool)


@change(TagAgents, authority=OPERATORS, target=lambda body, _: named(body.agents, ",".join(body.tags)))
def tag_agents(context: ResManContext, body: TagAgents, _: Caller) -> AgentsView:
    """Give tags to agents.

    Raises:
        NotFound: one of them is not known. UsageError: one of them would have too many tags.
    """
    state = context.state
    records, tagged = records_of(state, body.agents), []
    for record in records:
        tags = tuple(sorted({*record.tags, *body.tags}))
        if len(tags) > TAGS_MAX and tags != record.tags:
            raise UsageError(
                f"{record.agent} would have {len(tags)} tags",
                details=[f"{TAGS_MAX} at most; nothing was changed"],
                hint=f"galaxy tag remove TAG {record.agent}",
            )
        tagged.append(replace(record, tags=tags) if set(tags) != set(record.tags) else record)
    return change_each(state, records, tagged, "agent.tagged", ", ".join(body.tags))


@change(UntagAgents, authority=OPERATORS, target=lambda body, _: named(body.agents, ",".join(body.tags)))
def untag_agents(context: ResManContext, body: UntagAgents, _: Caller) -> AgentsView:
    """Take tags from agents.

    Raises:
        NotFound: one of them is not known.
    """
    state = context.state
    records = records_of(state, body.agents)
    untagged = [
        replace(record, tags=tuple(tag for tag in record.tags if tag not in body.tags)) for record in records
    ]
    return change_each(state, records, untagged, "agent.untagged", ", ".join(body.tags))


@query(ListTags, authority=OPERATORS)
def list_tags(context: ResManContext, body: ListTags, _: Caller) -> TagList:
    """List the tags with their agents."""
    agents: dict[str, list[str]] = {}
    for name, record in sorted(context.state.agents.items()):
        for tag in record.tags:
            agents.setdefault(tag, []).append(name)
    views = (TagView(tag=tag, agents=tuple(names)) for tag, names in agents.items())
    tags, after = page_of(views, lambda view: (view.tag,), body)
    return TagList(tags=tuple(tags), next=after)


def require_pool(state: ResManState, pool: str) -> None:
    """Make sure that ``pool`` exists.

    Raises:
        NotFound: it was not created, and no agent is in it.
    """
    if pool in state.pools:
        return
    known = {record.pool for record in state.agents.values()}
    if pool not in known:
        raise NotFound(
            f'there is no pool "{pool}"',
            details=did_you_mean(pool, {*known, *state.pools}),
            hint=f"galaxy pool create {pool}",
        )


def _pools(state: ResManState) -> dict[str, PoolView]:
    agents: dict[str, list[AgentRecord]] = {pool: [] for pool in state.pools}
    for record in state.agents.values():
        agents.setdefault(record.pool, []).append(record)
    registered = Counter(row.pool for row in state.registrations.values())
    return {pool: _view(state, pool, records, registered[pool]) for pool, records in sorted(agents.items())}


def _view(state: ResManState, pool: str, records: list[AgentRecord], registered: int) -> PoolView:
    total = assigned = NOTHING
    for record in records:
        load = state.loads.get(record.agent)
        if record.state is not AgentState.DEAD and load is not None:
            total, assigned = total.plus(load.total, 1), assigned.plus(load.assigned, 1)
    row = state.pools.get(pool)
    counts = Counter(record.state.value for record in records)
    return PoolView(
        pool=pool,
        agents=dict(sorted(counts.items())),
        total=total,
        assigned=assigned,
        by=row.by if row else "",
        created_s=row.at_s if row else 0.0,
        registered=registered,
    )
