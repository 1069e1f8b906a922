"""Operations that empty machines: drain, offline, online. ResMan answers them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from msgspec import Meta

from galaxy.errors import UsageError
from galaxy.model.api.body import Body
from galaxy.model.api.machines import AgentsView, Hosts, ReasonText
from galaxy.model.base import Struct
from galaxy.model.messages.agent import AgentState
from galaxy.model.messages.container import ContainerState, Reason
from galaxy.model.messages.names import RESMAN
from galaxy.model.stored.agent import Drain

DEADLINE_S_MAX: Final = 30 * 86400.0
LEFT_MAX: Final = 200
"""Containers of one agent that a view lists."""


class DrainAgents(Body[AgentsView], frozen=True, kw_only=True):
    """Have every container leave ``agents``, on which nothing new is placed; see ``Drain``.

    What is left after ``deadline_s`` seconds (0: no deadline) is evicted.
    """

    op: ClassVar[str] = "galaxy.agent.drain"
    answered_by: ClassVar[str] = RESMAN
    agents: Hosts
    deadline_s: Annotated[float, Meta(ge=0, le=DEADLINE_S_MAX)] = 0.0
    force: bool = False
    offline: bool = False
    reason: ReasonText = ""


class OnlineAgents(Body[AgentsView], frozen=True, kw_only=True):
    """End the drain of ``agents``: what is still there stays, and containers are placed there again."""

    op: ClassVar[str] = "galaxy.agent.online"
    answered_by: ClassVar[str] = RESMAN
    agents: Hosts


class LeavingView(Struct, frozen=True, kw_only=True):
    """A container on a drained agent. ``to`` is where room is kept for it; else ``reason`` says why not.

    ``evicted``: it leaves without regard for its job's pace. A container that is ``destroying`` has a
    successor elsewhere already, or needs none.
    """

    container: str
    job: str
    state: ContainerState
    to: str = ""
    reason: Reason | None = None
    evicted: bool = False


class DrainView(Struct, frozen=True, kw_only=True):
    """What is left on an agent. ``drain`` is None when it is not drained (any more).

    ``containers`` is their number, of which ``left`` lists the first ``LEFT_MAX``.
    """

    agent: str
    state: AgentState
    drain: Drain | None = None
    containers: int = 0
    left: tuple[LeavingView, ...] = ()


class DrainList(Struct, frozen=True, kw_only=True):
    """Drains by agent. ``safe_mode`` is why no container leaves at present, if it is on."""

    drains: tuple[DrainView, ...]
    safe_mode: Reason | None = None


class ShowDrains(Body[DrainList], frozen=True, kw_only=True):
    """Show what is left on ``agents``."""

    op: ClassVar[str] = "galaxy.agent.drains"
    answered_by: ClassVar[str] = RESMAN
    agents: Hosts


class PlannedMove(Struct, frozen=True, kw_only=True):
    """Where a container would go; ``to`` empty: nowhere, or it stays until it ends (``reason``)."""

    container: str
    job: str
    agent: str
    to: str = ""
    reason: Reason | None = None


class ShortJob(Struct, frozen=True, kw_only=True):
    """A job of which ``count`` of ``replica`` containers have no place elsewhere, and why."""

    job: str
    count: int
    replica: int
    reason: Reason


class DrainPlan(Struct, frozen=True, kw_only=True):
    """What a drain would do now. ``safe_mode`` is why no container would leave at present, if it is on."""

    moves: tuple[PlannedMove, ...] = ()
    short: tuple[ShortJob, ...] = ()
    safe_mode: Reason | None = None


class PlanDrain(Body[DrainPlan], frozen=True, kw_only=True):
    """Say what a drain of ``agents`` would do, and change nothing. ``evict``: at its deadline."""

    op: ClassVar[str] = "galaxy.agent.plan-drain"
    answered_by: ClassVar[str] = RESMAN
    agents: Hosts
    evict: bool = False


def check_deadline(seconds: float) -> float:
    """Return ``seconds``.

    Raises:
        UsageError: it is negative or too long.
    """
    if not 0 <= seconds <= DEADLINE_S_MAX:
        raise UsageError(
            f"the deadline cannot be {seconds:g} s", details=[f"0 to {DEADLINE_S_MAX:g}; 0 is no deadline"]
        )
    return seconds
