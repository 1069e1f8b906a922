"""Every Redis key of Galaxy. Celery has others: queues, ``_kombu.*``, ``unacked*``.

A role's keys start with the role, so that one access rule per role is enough.
"""

from __future__ import annotations

import contextlib
from typing import Final

from galaxy.ids import split_pod
from galaxy.model.messages import names

PREFIX: Final = "galaxy:"

HEARTBEATS: Final = f"{PREFIX}heartbeats"
"""Sorted set: agents by the time of their last heartbeat, Unix seconds of Redis' clock."""
HEARTBEAT_FACTS: Final = f"{PREFIX}heartbeat-facts"
"""Hash: agent to its ``Heartbeat`` (boot and digests)."""
USAGES: Final = f"{PREFIX}usages"
"""Hash: agent to its last ``AgentUsage``."""
METERS: Final = f"{PREFIX}meters"
"""Hash: agent to its last ``MeterSample``."""
TRACE: Final = f"{PREFIX}trace"
"""Stream: the newest events of everything."""


def lock(role: str) -> str:
    """String: ``owner:epoch``, expires with the lease."""
    return f"{PREFIX}{role}:lock"


def epoch(role: str) -> str:
    """String: the highest epoch ever assigned."""
    return f"{PREFIX}{role}:epoch"


def leader(role: str) -> str:
    """Hash: owner, address, epoch and since_s of the last leader."""
    return f"{PREFIX}{role}:leader"


def released(role: str) -> str:
    """List: one item wakes one standby after a leader released the lock."""
    return f"{PREFIX}{role}:released"


def committed(role: str) -> str:
    """String: ``epoch:serial`` of the last commit, so that a repeated commit takes effect once."""
    return f"{PREFIX}{role}:committed"


def staging(role: str) -> str:
    """List: the operations of a commit too long for one script call."""
    return f"{PREFIX}{role}:staging"


def changes(role: str) -> str:
    """Stream: which rows each of a role's last commits wrote (``nexus.change_feed``)."""
    return f"{PREFIX}{role}:changes"


def table(role: str, name: str) -> str:
    """Hash: the rows of one table of a role, JSON by key."""
    return f"{PREFIX}{role}:table:{name}"


def package(package_id: str) -> str:
    """Hash: the chunks of a stored package by number. AppMaster makes it from an upload; agents read it."""
    return f"{PREFIX}appmaster:package:{package_id}"


def upload(upload_id: str) -> str:
    """Hash: the chunks that a client has sent of a package, by number; it expires."""
    return f"{PREFIX}upload:{upload_id}"


def trace_of(subject: str) -> str:
    """Stream: events about one job with its pods and containers, or about one agent."""
    with contextlib.suppress(ValueError):  # Not a pod: the subject is a job or an agent itself.
        subject, _ = split_pod(subject)
    return f"{PREFIX}trace:{subject}"


def report(role: str, agent: str) -> str:
    """String: the newest report of an agent that the leader of ``role`` has not taken."""
    return f"{PREFIX}{role}:report:{agent}"


def reporting(role: str) -> str:
    """Sorted set: agents whose report the leader of ``role`` has not taken, by when they posted it."""
    return f"{PREFIX}{role}:reporting"


def of_agent(agent: str) -> tuple[str, ...]:
    """Return the keys that are an agent's alone: its queues, what it took from them, its mailboxes."""
    node = f"agent@{agent}"
    mailboxes = (report(role, agent) for role in names.PARTS)
    queues = (names.agent_queue(agent), names.appworker_queue(agent))
    return (*queues, f"{node}.unacked", f"{node}.unacked_index", *mailboxes)


def reply(reply_id: str) -> str:
    """List: one client waits here for one answer."""
    return f"{PREFIX}reply:{reply_id}"


def session(session_id: str, direction: str) -> str:
    """List: frames of one direction of a session."""
    return f"{PREFIX}session:{session_id}:{direction}"


def session_room(session_id: str, direction: str) -> str:
    """List: an item means that the reader made room for the waiting writer."""
    return f"{PREFIX}session:{session_id}:{direction}:room"


def session_wait(session_id: str, direction: str) -> str:
    """String: exists while a writer waits for room."""
    return f"{PREFIX}session:{session_id}:{direction}:wait"


def session_seen(session_id: str, direction: str) -> str:
    """String: exists while a reader reads, or has just read."""
    return f"{PREFIX}session:{session_id}:{direction}:seen"


def session_count(session_id: str, direction: str) -> str:
    """Hash: how many items were ``written``, by which ``writer``, and how many were ``taken``."""
    return f"{PREFIX}session:{session_id}:{direction}:count"


def session_client(session_id: str) -> str:
    """String and channel: the client's lease, and what it subscribes to while it is there."""
    return f"{PREFIX}session:{session_id}:client"


def session_agent(session_id: str) -> str:
    """String: the agent's lease."""
    return f"{PREFIX}session:{session_id}:agent"


def session_closed(session_id: str, direction: str) -> str:
    """String: exists once either side has closed this direction."""
    return f"{PREFIX}session:{session_id}:{direction}:closed"
