"""The lifecycle of a container slot: which events are valid in which state, and what they do.

Commands are not part of it. While a slot is ``allocating``, its agent is sent create commands; while it
is ``destroying``, destroy commands.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from galaxy.model.base import Struct
from galaxy.model.messages.container import ContainerState, Reason
from galaxy.model.resources import NOTHING
from galaxy.model.stored.container import Container
from galaxy.resman.logic.config import ResManConfig
from galaxy.statemachine.backoff import delay_after
from galaxy.statemachine.transitions import TransitionTable

AVOID_MAX: Final = 5
"""Agents that one slot avoids because it failed on them."""


class SlotEvent(Struct, frozen=True, kw_only=True):
    """Something that happened to one incarnation of a slot."""

    incarnation: int


class SlotPlaced(SlotEvent, frozen=True, kw_only=True):
    """The scheduler found an agent; ``incarnation`` is the new one, of the size ``size``."""

    agent: str
    size: int = 0


class SlotStarted(SlotEvent, frozen=True, kw_only=True):
    """The agent has the container, with the limits of ``size``; ``resize`` says why not those ordered."""

    ports: dict[str, int]
    size: int = 0
    resize: Reason | None = None


class SlotAdopted(SlotEvent, frozen=True, kw_only=True):
    """The slot waits for a place, and a container that was considered lost was reported ready."""

    agent: str
    ports: dict[str, int]
    size: int = 0


class SlotFailed(SlotEvent, frozen=True, kw_only=True):
    """The container could not be created, or PID 1 ended, or the agent no longer has it."""

    reason: Reason


class AgentLost(SlotEvent, frozen=True, kw_only=True):
    """The agent of the slot is dead."""

    reason: Reason


class SlotMoved(SlotEvent, frozen=True, kw_only=True):
    """AppMaster leaves the incarnation, because its agent failed it: the next one avoids ``avoid``."""

    avoid: tuple[str, ...]
    reason: Reason | None


class SlotReleased(SlotEvent, frozen=True, kw_only=True):
    """The group's order no longer has the slot."""


class SlotRequested(SlotEvent, frozen=True, kw_only=True):
    """The group's order has the slot again."""


class SlotDestroyed(SlotEvent, frozen=True, kw_only=True):
    """The agent has destroyed the container."""


_S = ContainerState

TRANSITIONS: Final[TransitionTable[ContainerState]] = TransitionTable(
    {
        (_S.PENDING, SlotPlaced): _S.ALLOCATING,
        (_S.PENDING, SlotAdopted): _S.READY,
        (_S.PENDING, SlotReleased): _S.GONE,
        (_S.ALLOCATING, SlotStarted): _S.READY,
        (_S.ALLOCATING, SlotFailed): _S.PENDING,
        (_S.ALLOCATING, AgentLost): _S.PENDING,
        (_S.ALLOCATING, SlotMoved): _S.PENDING,
        (_S.ALLOCATING, SlotReleased): _S.DESTROYING,
        (_S.READY, SlotStarted): _S.READY,
        (_S.READY, SlotFailed): _S.PENDING,
        (_S.READY, AgentLost): _S.PENDING,
        (_S.READY, SlotMoved): _S.PENDING,
        (_S.READY, SlotReleased): _S.DESTROYING,
        (_S.DESTROYING, SlotDestroyed): _S.GONE,
        (_S.DESTROYING, AgentLost): _S.GONE,
        (_S.DESTROYING, SlotRequested): _S.PENDING,
        (_S.GONE, SlotRequested): _S.PENDING,
    }
)


def after(container: Container, event: SlotEvent, now_s: float, config: ResManConfig) -> Container:
    """Return the slot after ``event``; unchanged when the event is stale or not valid."""
    if event.incarnation < container.incarnation:
        return container  # The event is about an earlier incarnation.
    state = TRANSITIONS.next_state(container.state, type(event))
    if state is None:
        return container
    match event:
        case SlotPlaced(agent=agent, incarnation=incarnation, size=size):
            return replace(
                container,
                state=state,
                agent=agent,
                incarnation=incarnation,
                ports={},
                reason=container.reason if container.failures else None,
                since_s=now_s,
                size=size,
                sized=size,
            )
        case SlotStarted(ports=ports) if container.state is state:
            return _sized(replace(container, ports=ports), event)  # Only ports and the size may be new.
        case SlotStarted(ports=ports):
            started = replace(container, state=state, ports=ports, reason=None, since_s=now_s)
            return _sized(started, event)
        case SlotAdopted(agent=agent, ports=ports, incarnation=incarnation, size=size):
            return replace(
                container,
                state=state,
                agent=agent,
                incarnation=incarnation,
                ports=ports,
                reason=None,
                since_s=now_s,
                size=size,
                sized=size,
            )
        case SlotFailed(reason=reason):
            return _failed(_off_agent(container, state, now_s), container, reason, now_s, config)
        case AgentLost(reason=reason):
            return replace(_off_agent(container, state, now_s), reason=reason)
        case SlotMoved(avoid=avoid, reason=reason):
            return replace(
                _off_agent(container, state, now_s), reason=reason, failures=0, retry_s=0.0, avoid=avoid
            )
        case SlotRequested():
            requested = replace(container, failures=0, retry_s=0.0, avoid=(), reason=None)
            return _off_agent(requested, state, now_s)
        case SlotReleased() if state is ContainerState.DESTROYING:
            return replace(container, state=state, since_s=now_s, leave=None)
    return replace(_off_agent(container, state, now_s), reason=None)


def _sized(container: Container, event: SlotStarted) -> Container:
    """Return the slot with the size that its agent reports; it no longer takes what it had before."""
    if event.size == container.size == container.sized:
        return container
    if event.size == container.size:
        return replace(container, sized=event.size, resources=NOTHING, resize=None)
    return replace(container, sized=event.size, resize=event.resize)


def _off_agent(container: Container, state: ContainerState, now_s: float) -> Container:
    """Return the slot without an agent. If it is to be placed again, it keeps its claim on the quota."""
    claimed = state is ContainerState.PENDING and container.state in (_S.ALLOCATING, _S.READY)
    off = replace(container, state=state, agent="", ports={}, since_s=now_s, claimed=claimed, leave=None)
    return replace(off, size=0, sized=0, resources=NOTHING, resize=None)


def _failed(
    off_agent: Container, container: Container, reason: Reason, now_s: float, config: ResManConfig
) -> Container:
    """Return a failed slot: its delay grows with each failure, and it avoids the agents of its failures."""
    lasted = container.state is ContainerState.READY and now_s - container.since_s >= config.reset_s
    failures = 1 if lasted else container.failures + 1
    avoid = () if lasted else (container.agent, *(a for a in container.avoid if a != container.agent))
    delay_s = delay_after(failures, first_s=config.backoff_first_s, max_s=config.backoff_s_max)
    return replace(
        off_agent,
        reason=reason,
        failures=failures,
        retry_s=now_s + delay_s,
        avoid=avoid[:AVOID_MAX],
    )
