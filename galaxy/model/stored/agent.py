"""Agents as ResMan stores them."""

from __future__ import annotations

from galaxy.model.base import Struct
from galaxy.model.messages.agent import AgentInfo, AgentState


class AgentRecord(Struct, frozen=True, kw_only=True):
    """An agent as ResMan keeps it; ``since_s`` is when it came into ``state``, Unix seconds."""

    agent: str
    info: AgentInfo
    state: AgentState = AgentState.ALIVE
    since_s: float = 0.0
