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
        if leader.logic is None or leader.must_recover or self._ticks.get(leader.name) == leader.ticks:
            return
        self._ticks[leader.name] = leader.ticks
        check_view(leader.logic.state)  # type: ignore[attr-defined]


def check_view(state: ResManState) -> None:
    """Check free resources, dynamic ports and static ports of every agent.

    Two exceptions. An agent may give a dynamic port again before ResMan reads the report that its container
    is gone. And a new leader may believe a late report, and charge an incarnation that is gone until its
    agent says so; agents with a row of an earlier incarnation are skipped, ``Capacity`` checks what they run.
    Agents that were removed are skipped as well.

    Raises:
        Violation: an agent is charged too much.
    """
    view, rows = state.view, state.containers
    checked = {
        at: state.agents[name].info
        for at, name in enumerate(view.names)
        if name in state.agents and all(rows[key].container == key for key in rows.where("agent", name))
    }
    for at, info in checked.items():
        for resource, free in zip(RESOURCES, view.free, strict=True):
            if free[at] < 0:
                raise Violation(f"ResMan charges {info.agent} {-int(free[at])} {resource.name} too much")
        if view.ports[at] < 0:
            raise Violation(f"ResMan charges {info.agent} {-int(view.ports[at])} dynamic ports too many")
    for port, charged in view.port_rows.items():
        for at, count in charged.items():
            if count > 1 and at in checked and not checked[at].ports_low <= port <= checked[at].ports_high:
                raise Violation(f"ResMan charges port {port} of {checked[at].agent} {count} times")
