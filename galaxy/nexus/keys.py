"""Every Redis key that Galaxy itself uses. Celery's are its own: queues, ``_kombu.*``, ``unacked*``.

A role's keys start with the role, so that one access rule a role is enough.
"""

from __future__ import annotations

import contextlib
from typing import Final

from galaxy.ids import split_pod

PREFIX: Final = "galaxy:"

BEATS: Final = f"{PREFIX}beats"
"""Sorted set: agent by Redis' clock of its last heartbeat, Unix seconds."""
BEAT_FACTS: Final = f"{PREFIX}beat-facts"
"""Hash: agent to its ``Heartbeat`` (boot and digests)."""
USAGES: Final = f"{PREFIX}usages"
"""Hash: agent to its last ``AgentUsage``."""
TRACE: Final = f"{PREFIX}trace"
"""Stream: the newest events of everything."""


def lock(role: str) -> str:
    """String ``owner:epoch`` that expires with the lease."""
    return f"{PREFIX}{role}:lock"


def epoch(role: str) -> str:
    """String: the highest epoch that was ever given out."""
    return f"{PREFIX}{role}:epoch"


def leader(role: str) -> str:
    """Hash: owner, address, epoch and since_s of the last leader."""
    return f"{PREFIX}{role}:leader"


def released(role: str) -> str:
    """List: one item wakes one standby after a leader left of its own accord."""
    return f"{PREFIX}{role}:released"


def committed(role: str) -> str:
    """String ``epoch:serial`` of the last commit, so that a repeated one is done once."""
    return f"{PREFIX}{role}:committed"


def staging(role: str) -> str:
    """List: the operations of a commit that is too long for one script call."""
    return f"{PREFIX}{role}:staging"


def changes(role: str) -> str:
    """Stream: which rows each of a role's last commits wrote (``nexus.change_feed``)."""
    return f"{PREFIX}{role}:changes"


def table(role: str, name: str) -> str:
    """Hash: the rows of one table of a role, JSON by key."""
    return f"{PREFIX}{role}:table:{name}"


def trace_of(subject: str) -> str:
    """Stream: events of one job with its pods and containers, or of one agent."""
    with contextlib.suppress(ValueError):  # Not a pod: the subject is the thing itself.
        subject, _ = split_pod(subject)
    return f"{PREFIX}trace:{subject}"


def reply(reply_id: str) -> str:
    """List: where one client waits for one answer."""
    return f"{PREFIX}reply:{reply_id}"


def session(session_id: str, direction: str) -> str:
    """List: frames of one direction of a session."""
    return f"{PREFIX}session:{session_id}:{direction}"


def session_room(session_id: str, direction: str) -> str:
    """List: an item tells the writer that the reader made room."""
    return f"{PREFIX}session:{session_id}:{direction}:room"


def session_wait(session_id: str, direction: str) -> str:
    """String: there while a writer waits for room."""
    return f"{PREFIX}session:{session_id}:{direction}:wait"


def session_seen(session_id: str, direction: str) -> str:
    """String: there while a reader reads, or has just read."""
    return f"{PREFIX}session:{session_id}:{direction}:seen"


def session_closed(session_id: str, direction: str) -> str:
    """String: there once either side closed this direction."""
    return f"{PREFIX}session:{session_id}:{direction}:closed"
