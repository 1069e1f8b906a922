"""Operations on agents."""

from __future__ import annotations

from typing import ClassVar

from galaxy.model.api.body import Page, PagedBody
from galaxy.model.api.views import AgentView
from galaxy.model.messages.container import Reason
from galaxy.model.stored.agent import Registration


class AgentList(Page, frozen=True, kw_only=True):
    """Agents by name."""

    agents: tuple[AgentView, ...]
    refused: tuple[Reason, ...] = ()
    """The last agents that send heartbeats and are refused, with the reason."""
    registered: tuple[Registration, ...] = ()
    """Agents that an operator has registered and that have not joined yet."""


class ListAgents(PagedBody[AgentList], frozen=True, kw_only=True):
    """List every agent, or only ``agent``."""

    op: ClassVar[str] = "galaxy.agent.list"
    agent: str = ""
