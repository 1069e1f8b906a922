"""The agent's decisions: pure functions of orders, observations and events."""

from __future__ import annotations

from galaxy.agent.logic.agent import AgentLogic

__all__ = ["AgentLogic"]
