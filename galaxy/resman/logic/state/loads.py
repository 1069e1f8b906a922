"""Keeps the tables of loads: what the containers of each agent ask for, and the sum over all agents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Final

from msgspec.structs import replace

from galaxy.model.messages.agent import AgentState
from galaxy.model.resources import FIELDS, Resources
from galaxy.model.stored.cluster import ALL, AgentLoad, AgentSums
from galaxy.resman.logic.state.state import ResManState

RECORDED_MAX: Final = 100
"""Agents whose load one step records. Those of a large burst follow in the next steps."""


class AgentLoads:
    """Records the load of agents whose containers or records have changed.

    Invariant: the row of ``sums`` is the sum of the rows of ``loads``, because both change in one commit.
    """

    def __init__(self, state: ResManState) -> None:
        self._state = state
        self._outdated: dict[str, None] = dict.fromkeys((*state.agents, *state.loads))
        """Agents to record, oldest change first; all at first: the last leader may not have finished."""

    def step(self) -> bool:
        """Record loads after everything else in a step; return whether more are to be recorded."""
        state, outdated = self._state, self._outdated
        for key, old in state.containers.written():
            for row in (old, state.containers.get(key)):
                if row is not None and row.agent:
                    outdated[row.agent] = None
        for agent, _ in state.agents.written():
            outdated[agent] = None
        agents = list(islice(outdated, RECORDED_MAX))
        sums = state.sums.get(ALL) or AgentSums()
        if agents or sums.refused != state.refused_agents:
            state.sums.put(ALL, replace(self._record(agents, sums), refused=state.refused_agents))
        return bool(outdated)

    def _record(self, agents: Sequence[str], sums: AgentSums) -> AgentSums:
        """Record the loads of ``agents``; return the sums with them."""
        state, counts, total, assigned = self._state, Counter(sums.agents), sums.total, sums.assigned
        left, closed = dict(sums.left), Counter(sums.closed)
        for agent in agents:
            del self._outdated[agent]
            old, new = state.loads.get(agent), self._load(agent)
            if new == old:
                continue
            for load, sign in ((old, -1), (new, 1)):
                if load is not None:
                    counts[load.state] += sign
                    closed[load.closed] += sign
                    if load.state is not AgentState.DEAD:
                        total, assigned = total.plus(load.total, sign), assigned.plus(load.assigned, sign)
            left.pop(agent, None)
            if new is not None and new.left:
                left[agent] = new.left
            if new is None:
                state.loads.drop(agent)
            else:
                state.loads.put(agent, new)
        by_state = {str(name): count for name, count in sorted(counts.items()) if count}
        by_closed = {why: count for why, count in sorted(closed.items()) if why and count}
        return AgentSums(agents=by_state, total=total, assigned=assigned, left=left, closed=by_closed)

    def _load(self, agent: str) -> AgentLoad | None:
        """Return the load of an agent as the scheduler's view has it; None without a record."""
        state = self._state
        record = state.agents.get(agent)
        if record is None:
            return None
        total, row = record.info.resources.bounded(), state.view.row(agent)
        free = {field: int(column[row]) for field, column in zip(FIELDS, state.view.free, strict=True)}
        rows = [state.containers[key] for key in state.containers.each("agent", agent)]
        return AgentLoad(
            agent=agent,
            state=record.state,
            total=total,
            assigned=total - Resources(**free),
            containers=tuple(sorted({row.container for row in rows})),
            left=record.left,
            closed=record.closed,
        )
