"""After how much silence an agent is dead: ResMan decides it, and AppMaster's orders expire before that."""

from __future__ import annotations

from typing import Final

from galaxy.model.base import Struct

ORDER_TTL_SHARE: Final = 5 / 6
"""Lifetime of an order, as a share of the silence after which its agent is dead."""


class LivenessTerms(Struct, frozen=True, kw_only=True):
    """ResMan to AppMaster, which echoes it: an agent is dead ``dead_s`` after its last heartbeat.

    ``epoch`` is ResMan's. AppMaster follows the terms of the highest epoch.
    """

    epoch: int
    dead_s: float


def order_ttl_s(dead_s: float) -> float:
    """Return how long after an agent's last heartbeat an order to it expires.

    It must expire before the agent is dead: otherwise a host that returns could start programs that were
    moved to other hosts.
    """
    return ORDER_TTL_SHARE * dead_s
