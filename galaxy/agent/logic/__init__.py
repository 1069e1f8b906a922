"""The agent's decisions: pure functions of what is ordered, what is found, and what happened."""

from __future__ import annotations

from galaxy.agent.logic.agent import AgentLogic

__all__ = ["AgentLogic"]
