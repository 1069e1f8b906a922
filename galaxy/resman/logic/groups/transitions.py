"""The law of a container slot, and what each event does to it.

What is *commanded* is not here: a slot that is ``allocating`` owes its agent a create, one that
is ``destroying`` owes it a destroy, for as long as it is so.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from galaxy.model.base import Struct
from galaxy.model.messages.container import ContainerState, Reason
from galaxy.model.stored.container import Container
from galaxy.resman.logic.config import ResManConfig
from galaxy.statemachine.backoff import delay_after
from galaxy.statemachine.transitions import TransitionTable

AVOID_MAX: Final = 5


class SlotEvent(Struct, frozen=True, kw_only=True):
    """Something that happened to one life of a slot."""

    incarnation: int


class SlotPlaced(SlotEvent, frozen=True, kw_only=True):
    """The scheduler found an agent; ``incarnation`` is that of the life that begins."""

    agent: str


class SlotStarted(SlotEvent, frozen=True, kw_only=True):
    """The agent has made it."""

    ports: dict[str, int]


class SlotAdopted(SlotEvent, frozen=True, kw_only=True):
    """It was thought lost, waits for a place, and was found alive."""

    agent: str
    ports: dict[str, int]


class SlotFailed(SlotEvent, frozen=True, kw_only=True):
    """It could not be made, or PID 1 died, or it is not there any more."""

    reason: Reason


class AgentLost(SlotEvent, frozen=True, kw_only=True):
    """Its agent is dead."""

    reason: Reason


class SlotReleased(SlotEvent, frozen=True, kw_only=True):
    """Nobody wants it any more."""


class SlotRequested(SlotEvent, frozen=True, kw_only=True):
    """Somebody wants it again."""


class SlotDestroyed(SlotEvent, frozen=True, kw_only=True):
    """The agent has destroyed it."""


_S = ContainerState

TRANSITIONS: Final[TransitionTable[ContainerState]] = TransitionTable(
    {
        (_S.PENDING, SlotPlaced): _S.ALLOCATING,
        (_S.PENDING, SlotAdopted): _S.READY,
        (_S.PENDING, SlotReleased): _S.GONE,
        (_S.ALLOCATING, SlotStarted): _S.READY,
        (_S.ALLOCATING, SlotFailed): _S.PENDING,
        (_S.ALLOCATING, AgentLost): _S.PENDING,
        (_S.ALLOCATING, SlotReleased): _S.DESTROYING,
        (_S.READY, SlotStarted): _S.READY,
        (_S.READY, SlotFailed): _S.PENDING,
        (_S.READY, AgentLost): _S.PENDING,
        (_S.READY, SlotReleased): _S.DESTROYING,
        (_S.DESTROYING, SlotDestroyed): _S.GONE,
        (_S.DESTROYING, AgentLost): _S.GONE,
        (_S.DESTROYING, SlotRequested): _S.PENDING,
        (_S.GONE, SlotRequested): _S.PENDING,
    }
)


def after(container: Container, event: SlotEvent, now_s: float, config: ResManConfig) -> Container:
    """Return the slot after ``event``; itself when the event is stale or not legal."""
    if event.incarnation < container.incarnation:
        return container  # An echo of an earlier life.
    state = TRANSITIONS.next_state(container.state, type(event))
    if state is None:
        return container
    match event:
        case SlotPlaced(agent=agent, incarnation=incarnation):
            return replace(
                container,
                state=state,
                agent=agent,
                incarnation=incarnation,
                ports={},
                reason=container.reason if container.failures else None,
                since_s=now_s,
            )
        case SlotStarted(ports=ports) if container.state is state:
            return replace(container, ports=ports)  # Said again: only ports may be news.
        case SlotStarted(ports=ports):
            return replace(container, state=state, ports=ports, reason=None, since_s=now_s)
        case SlotAdopted(agent=agent, ports=ports, incarnation=incarnation):
            return replace(
                container,
                state=state,
                agent=agent,
                incarnation=incarnation,
                ports=ports,
                reason=None,
                since_s=now_s,
            )
        case SlotFailed(reason=reason):
            return _failed(_homeless(container, state, now_s), container, reason, now_s, config)
        case AgentLost(reason=reason):
            return replace(_homeless(container, state, now_s), reason=reason)
        case SlotRequested():
            fresh = replace(container, failures=0, retry_s=0.0, avoid=(), reason=None)
            return _homeless(fresh, state, now_s)
        case SlotReleased() if state is ContainerState.DESTROYING:
            return replace(container, state=state, since_s=now_s)
    return replace(_homeless(container, state, now_s), reason=None)


def _homeless(container: Container, state: ContainerState, now_s: float) -> Container:
    """Take the slot off its agent; one that is to be placed again keeps its claim on a quota."""
    claimed = state is ContainerState.PENDING and container.state in (_S.ALLOCATING, _S.READY)
    return replace(container, state=state, agent="", ports={}, since_s=now_s, claimed=claimed)


def _failed(
    homeless: Container, container: Container, reason: Reason, now_s: float, config: ResManConfig
) -> Container:
    """Hold a slot back for longer with each failure in a row, and away from where it failed."""
    lasted = container.state is ContainerState.READY and now_s - container.since_s >= config.reset_s
    failures = 1 if lasted else container.failures + 1
    avoid = () if lasted else (container.agent, *(a for a in container.avoid if a != container.agent))
    delay_s = delay_after(failures, first_s=config.backoff_s, max_s=config.backoff_s_max)
    return replace(
        homeless,
        reason=reason,
        failures=failures,
        retry_s=now_s + delay_s,
        avoid=avoid[:AVOID_MAX],
    )
