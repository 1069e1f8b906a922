"""The law of a container slot, and what each event does to it.

What is *commanded* is not here: a slot that is ``allocating`` owes its agent a create, one that
is ``destroying`` owes it a destroy, for as long as it is so.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from galaxy.lifecycle.law import Law
from galaxy.model.base import Noun
from galaxy.model.container import Container, ContainerState, Reason
from galaxy.resman.logic.config import ResManConfig

AVOID_MAX: Final = 5


class Event(Noun, frozen=True, kw_only=True):
    """Something that happened to one life of a slot."""

    incarnation: int


class Placed(Event, frozen=True, kw_only=True):
    """The scheduler found an agent; ``incarnation`` is that of the life that begins."""

    agent: str


class Started(Event, frozen=True, kw_only=True):
    """The agent has made it."""

    ports: dict[str, int]


class Adopted(Event, frozen=True, kw_only=True):
    """It was thought lost, waits for a place, and was found alive."""

    agent: str
    ports: dict[str, int]


class Ended(Event, frozen=True, kw_only=True):
    """It could not be made, or PID 1 died, or it is not there any more."""

    reason: Reason


class AgentLost(Event, frozen=True, kw_only=True):
    """Its agent is dead."""

    reason: Reason


class Released(Event, frozen=True, kw_only=True):
    """Nobody wants it any more."""


class Wanted(Event, frozen=True, kw_only=True):
    """Somebody wants it again."""


class Destroyed(Event, frozen=True, kw_only=True):
    """The agent has destroyed it."""


_S = ContainerState

LAW: Final[Law[ContainerState]] = Law(
    {
        (_S.PENDING, Placed): _S.ALLOCATING,
        (_S.PENDING, Adopted): _S.READY,
        (_S.PENDING, Released): _S.GONE,
        (_S.ALLOCATING, Started): _S.READY,
        (_S.ALLOCATING, Ended): _S.PENDING,
        (_S.ALLOCATING, AgentLost): _S.PENDING,
        (_S.ALLOCATING, Released): _S.DESTROYING,
        (_S.READY, Started): _S.READY,
        (_S.READY, Ended): _S.PENDING,
        (_S.READY, AgentLost): _S.PENDING,
        (_S.READY, Released): _S.DESTROYING,
        (_S.DESTROYING, Destroyed): _S.GONE,
        (_S.DESTROYING, AgentLost): _S.GONE,
        (_S.DESTROYING, Wanted): _S.PENDING,
        (_S.GONE, Wanted): _S.PENDING,
    }
)


def after(container: Container, event: Event, now_s: float, config: ResManConfig) -> Container:
    """Return the slot after ``event``; itself when the event is stale or not legal."""
    if event.incarnation < container.incarnation:
        return container  # An echo of an earlier life.
    state = LAW.after(container.state, type(event))
    if state is None:
        return container
    match event:
        case Placed(agent=agent, incarnation=incarnation):
            return replace(
                container,
                state=state,
                agent=agent,
                incarnation=incarnation,
                ports={},
                reason=container.reason if container.failures else None,
                since_s=now_s,
            )
        case Started(ports=ports) if container.state is state:
            return replace(container, ports=ports)  # Said again: only ports may be news.
        case Started(ports=ports):
            return replace(container, state=state, ports=ports, reason=None, since_s=now_s)
        case Adopted(agent=agent, ports=ports, incarnation=incarnation):
            return replace(
                container,
                state=state,
                agent=agent,
                incarnation=incarnation,
                ports=ports,
                reason=None,
                since_s=now_s,
            )
        case Ended(reason=reason):
            return _failed(_homeless(container, state, now_s), container, reason, now_s, config)
        case AgentLost(reason=reason):
            return replace(_homeless(container, state, now_s), reason=reason)
        case Wanted():
            fresh = replace(container, failures=0, retry_s=0.0, avoid=(), reason=None)
            return _homeless(fresh, state, now_s)
        case Released() if state is ContainerState.DESTROYING:
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
    delay_s = min(config.backoff_s_max, config.backoff_s * 2 ** min(failures - 1, 30))
    return replace(
        homeless,
        reason=reason,
        failures=failures,
        retry_s=now_s + delay_s,
        avoid=avoid[:AVOID_MAX],
    )
