"""Agents as ResMan stores them."""

from __future__ import annotations

from galaxy.model.base import Struct
from galaxy.model.messages.agent import AgentInfo, AgentState


class AgentRecord(Struct, frozen=True, kw_only=True):
    """An agent as ResMan keeps it; it entered ``state`` at ``since_s``, Unix seconds.

    ``pool``, ``tags``, ``labels`` and ``cordoned`` are ResMan's own. The flags that an agent is
    started with are only their first values: see ``first_record``.
    """

    agent: str
    info: AgentInfo
    state: AgentState = AgentState.ALIVE
    since_s: float = 0.0
    pool: str = "main"
    tags: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    cordoned: bool = False
    """Nothing new is placed on it."""
    left: int = 0
    """Containers that were replaced elsewhere after its death, and may still run on it until it returns."""


def first_record(info: AgentInfo, now_s: float = 0.0) -> AgentRecord:
    """Return the record of an agent that joins, with the pool and tags of its own flags."""
    return AgentRecord(agent=info.agent, info=info, since_s=now_s, pool=info.pool, tags=info.tags)
