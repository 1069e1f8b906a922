"""Preemption takes only strictly less important containers, and only where it makes enough room."""

from __future__ import annotations

from galaxy.model.messages.container import PREEMPTED, ContainerState
from galaxy.model.resources import NOTHING, Resources
from galaxy.model.stored.agent import AgentRecord
from galaxy.model.stored.container import Container, Group
from galaxy.model.stored.table import Table
from galaxy.testing.simulation.checkers.violation import Violation
from galaxy.testing.simulation.leader import LeaderProcess

_HOLDS = (ContainerState.ALLOCATING, ContainerState.READY)


class PreemptionChecker:
    """Looks at every container that ResMan preempts in a step, with the tables after that step."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        """By slot, the incarnation that was preempted last."""

    def check(self, resman: LeaderProcess) -> None:
        """Check what the last step of a leading ResMan has preempted.

        Raises:
            Violation: a victim is not less important, or the room is not enough without it.
        """
        rows: Table[Container] | None = resman.table("containers")
        groups: Table[Group] | None = resman.table("groups")
        agents: Table[AgentRecord] | None = resman.table("agents")
        if rows is None or groups is None or agents is None:
            return
        made: dict[tuple[str, str], None] = {}
        for key, row in rows.items():
            reason = row.reason
            if reason is None or reason.code != PREEMPTED or self._seen.get(key) == row.incarnation:
                continue
            self._seen[key] = row.incarnation
            words = reason.message.partition("; ")[0].split()
            winner, agent = words[-3], words[-1]
            if winner not in rows:
                continue
            mine, theirs = groups[row.group].order, groups[rows[winner].group].order
            if mine.priority <= theirs.priority:
                raise Violation(f"{key} ({mine.priority}) made room for {winner} ({theirs.priority})")
            made[winner, agent] = None
        for winner, agent in made:
            held = [rows[key] for key in rows.where("agent", agent)]
            self._check_room(groups, agents[agent], rows[winner], held)

    def _check_room(
        self, groups: Table[Group], agent: AgentRecord, winner: Container, held: list[Container]
    ) -> None:
        taken = NOTHING
        for row in held:
            if row.state in _HOLDS:
                taken += groups[row.group].order.demand.resources
        free: Resources = agent.info.resources - taken
        wanted = groups[winner.group].order.demand.resources
        if winner.state is ContainerState.PENDING and not wanted.fits(free):
            raise Violation(f"{winner.container} still does not fit on {agent.agent} after a preemption")
