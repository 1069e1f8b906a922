"""Redis: election and fencing, the fenced store, heartbeats, the event trace, answers, sessions."""

from galaxy.nexus.nexus import Nexus

__all__ = ["Nexus"]
