"""Agents whose heartbeats our release does not read, for people to see."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from galaxy.errors import BadMessage
from galaxy.ids import HOST
from galaxy.model.base import check_wire
from galaxy.model.messages.agent import HeartbeatsRead
from galaxy.model.messages.container import Reason

REFUSED_MAX: Final = 20
REFUSED_RECENT_S: Final = 60.0


def refused_agents(seen: HeartbeatsRead, known: Set[str] = frozenset()) -> tuple[Reason, ...]:
    """Return the agents whose heartbeats our release refuses, the most recent first.

    An agent's login can send heartbeats under any name. So agents that are ``known`` to ResMan come first,
    and the others are counted beyond a limit: false names cannot hide a real agent.
    """
    refused: list[str] = []
    more = unnamed = 0
    for heartbeat in sorted(
        seen.heartbeats,
        key=lambda heartbeat: (heartbeat.agent not in known, -heartbeat.at_s, heartbeat.agent),
    ):
        if seen.now_s - heartbeat.at_s > REFUSED_RECENT_S:
            continue
        try:
            check_wire(heartbeat.wire)
        except BadMessage as error:
            if not HOST.fullmatch(heartbeat.agent):
                unnamed += 1
            elif len(refused) == REFUSED_MAX:
                more += 1
            else:
                refused.append(f"{heartbeat.agent}: {error.message}; {error.hint}")
    if more:
        refused.append(f"{more} more that are not listed")
    if unnamed:
        refused.append(f"{unnamed} under names that no host can have; check who has the login of an agent")
    return tuple(Reason(code="agent-refused", message=message) for message in refused)
