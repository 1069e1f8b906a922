"""Safety of ResMan's own view: what it believes to be free is never below zero."""

from __future__ import annotations

from galaxy.model.resources import RESOURCES
from galaxy.resman.logic.state.state import ResManState
from galaxy.testing.simulation.checkers.violation import Violation
from galaxy.testing.simulation.leader import LeaderProcess


class SchedulerView:
    """After every tick of a leading ResMan, no agent is charged more than it has."""

    def __init__(self) -> None:
        self._ticks: dict[str, int] = {}

    def check(self, leader: LeaderProcess) -> None:
        """Check the view of ``leader``, unless it has not stepped since the last check."""
        if leader.logic is None or self._ticks.get(leader.name) == leader.ticks:
            return
        self._ticks[leader.name] = leader.ticks
        check_view(leader.logic.state)  # type: ignore[attr-defined]


def check_view(state: ResManState) -> None:
    """Check free resources, dynamic ports and static ports of every agent.

    An agent may give a dynamic port again before ResMan reads the report that its container is gone, so
    only static ports outside that range are checked for a single owner.

    Raises:
        Violation: a host is charged too much.
    """
    view = state.view
    for row, name in enumerate(view.names):
        for resource, free in zip(RESOURCES, view.free, strict=True):
            if free[row] < 0:
                raise Violation(f"ResMan charges {name} {-int(free[row])} {resource.name} too much")
        if view.ports[row] < 0:
            raise Violation(f"ResMan charges {name} {-int(view.ports[row])} dynamic ports too many")
    for port, charged in view.port_rows.items():
        for row, count in charged.items():
            agent = state.agents[view.names[row]].info
            if count > 1 and not agent.ports_low <= port <= agent.ports_high:
                raise Violation(f"ResMan charges port {port} of {agent.agent} {count} times")
