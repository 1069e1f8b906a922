"""The event trace: one stream of the newest events, and one for each job and agent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import redis

from galaxy.errors import BadMessage
from galaxy.model.base import decode, encode
from galaxy.model.messages.trace import TraceEvent
from galaxy.nexus import keys
from galaxy.nexus.connection import reaching

ALL_MAX: Final = 10_000
"""Events kept in the common stream, approximately."""
ONE_MAX: Final = 500
"""Events kept for one job or agent, approximately."""
ONE_TTL_S: Final = 14 * 86400
"""How long the events of one job or agent are kept after the last of them."""


def trace_writes(trace: Sequence[TraceEvent]) -> Iterator[tuple[str, int, int, bytes]]:
    """Yield (stream, maximum length, seconds to live or 0, data) for every event."""
    for event in trace:
        data = encode(event)
        yield keys.TRACE, ALL_MAX, 0, data
        yield keys.trace_of(event.subject), ONE_MAX, ONE_TTL_S, data


class Trace:
    """Reads the trace; a commit writes it."""

    def __init__(self, client: redis.Redis, address: str) -> None:
        self._client = client
        self._address = address

    def read(self, subjects: Sequence[str] = (), limit: int = 100) -> list[TraceEvent]:
        """Return the newest ``limit`` events, oldest first; see ``matches`` for ``subjects``."""
        if limit <= 0:
            return []
        streams = sorted({keys.trace_of(subject) for subject in subjects}) or [keys.TRACE]
        found: list[tuple[tuple[int, int], TraceEvent]] = []
        with reaching(self._address):
            for stream in streams:
                entries: Any = self._client.xrevrange(stream, count=ALL_MAX if subjects else limit)
                for name, fields in entries:
                    event = _event(fields)
                    if event is not None and matches(event, subjects):
                        milliseconds, _, number = name.decode().partition("-")
                        found.append(((int(milliseconds), int(number)), event))
        found.sort(key=lambda pair: pair[0])
        return [event for _, event in found[-limit:]]


def matches(event: TraceEvent, subjects: Sequence[str]) -> bool:
    """Return whether ``event`` is about one of ``subjects`` or a pod of one; without subjects, True."""
    return not subjects or any(
        event.subject == subject or event.subject.startswith(f"{subject}.") for subject in subjects
    )


def _event(fields: dict[bytes, bytes]) -> TraceEvent | None:
    try:
        return decode(fields.get(b"event", b""), TraceEvent)
    except BadMessage:
        return None  # Foreign, or of another version: the other events are still useful.
