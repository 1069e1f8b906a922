"""Agents, pools and registrations as ResMan stores them."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.model.base import Struct
from galaxy.model.messages.agent import AgentInfo, AgentState


class Mark(Struct, frozen=True, kw_only=True):
    """What an operator decided: who, when (Unix seconds), and why."""

    by: str
    at_s: float
    reason: str = ""


class Drain(Mark, frozen=True, kw_only=True):
    """An agent is drained: every container on it is to leave, and nothing new is placed on it.

    The containers leave at the pace of their jobs until ``until_s`` (Unix seconds; 0: without end). From
    then on, or at once with ``force``, they are evicted. ``offline``: the agent is out of service.
    """

    until_s: float = 0.0
    force: bool = False
    offline: bool = False
    done_s: float = 0.0
    """When the last container was gone; 0 until then."""

    def evicts(self, now_s: float) -> bool:
        """Return whether containers leave now without regard for the pace of their jobs."""
        return self.force or 0.0 < self.until_s <= now_s


class AgentRecord(Struct, frozen=True, kw_only=True):
    """An agent as ResMan keeps it; it entered ``state`` at ``since_s``, Unix seconds.

    ``pool``, ``tags``, ``labels``, ``cordon`` and ``drain`` are ResMan's own. The flags that an agent is
    started with are only their first values: see ``first_record``.
    """

    agent: str
    info: AgentInfo
    state: AgentState = AgentState.ALIVE
    since_s: float = 0.0
    pool: str = "main"
    tags: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    cordon: Mark | None = None
    """An operator's decision that nothing new is placed on it."""
    drain: Drain | None = None
    left: int = 0
    """Containers that were replaced elsewhere after its death, and may still run on it until it returns."""

    @property
    def is_closed(self) -> bool:
        """Whether nothing new is placed on it."""
        return self.cordon is not None or self.drain is not None

    @property
    def closed(self) -> str:
        """Why nothing new is placed on it: ``offline``, ``drained``, ``draining``, ``cordoned``, or empty."""
        if self.drain is not None:
            return "offline" if self.drain.offline else "drained" if self.drain.done_s else "draining"
        return "cordoned" if self.cordon is not None else ""


class Registration(Struct, frozen=True, kw_only=True):
    """What an agent that has not joined yet starts with; ``pool`` empty means that of its own flags."""

    agent: str
    pool: str = ""
    tags: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    by: str = ""
    at_s: float = 0.0


class PoolRecord(Struct, frozen=True, kw_only=True):
    """A pool that an operator created. A pool also exists while an agent is in it."""

    pool: str
    by: str = ""
    at_s: float = 0.0


def first_record(
    info: AgentInfo, now_s: float = 0.0, registration: Registration | None = None
) -> AgentRecord:
    """Return the record of an agent that joins: as it was registered, else with the values of its flags."""
    record = AgentRecord(agent=info.agent, info=info, since_s=now_s, pool=info.pool, tags=info.tags)
    if registration is None:
        return record
    return replace(
        record,
        pool=registration.pool or info.pool,
        tags=tuple(sorted({*info.tags, *registration.tags})),
        labels=registration.labels,
    )
