"""Redis: election, the fenced store and its change feed, heartbeats, trace, answers, sessions."""

from galaxy.nexus.nexus import Nexus

__all__ = ["Nexus"]
