"""Events that are kept for people, each with an id and the id of what caused it.

Ids are deterministic: the same inputs give the same ids. They reveal no secret.
"""

from __future__ import annotations

from galaxy.model.base import Struct, stable_hash


class TraceEvent(Struct, frozen=True, kw_only=True):
    """An event. ``kind`` is a word like ``pod.failed``, ``at_s`` is in Unix seconds.

    ``subject`` is the id of a job, pod, container or agent. ``id`` is unique among all events of all
    leaderships; ``cause`` is the id of the request, message or event that led to this one. Both are
    empty where they are not known.
    """

    kind: str
    subject: str
    text: str = ""
    at_s: float = 0.0
    id: str = ""
    cause: str = ""


def event_id(role: str, epoch: int, number: int) -> str:
    """Return the id of the ``number``-th event of a leadership of ``role``."""
    return f"event:{role}:{epoch}.{number}"


def request_cause(key: str) -> str:
    """Return the cause id of a request with idempotency key ``key``.

    It is a hash, because the key itself would reveal the ids of the sessions that the request opened.
    """
    return f"request:{stable_hash(key):015x}"


def report_cause(agent: str, serial: int) -> str:
    """Return the cause id of a report of an agent."""
    return f"report:{agent}:{serial}"


def agent_cause(agent: str) -> str:
    """Return the cause id of what happened to an agent itself, for example that it was lost."""
    return f"agent:{agent}"


def group_status_cause(group: str, epoch: int, version: int) -> str:
    """Return the cause id of a ``GroupStatus`` of ResMan."""
    return f"status:{group}:{epoch}.{version}"


def timer_cause(kind: str) -> str:
    """Return the cause id of a timer that came due."""
    return f"timer:{kind}"
