"""Container groups and containers as ResMan stores them."""

from __future__ import annotations

from galaxy.model.base import Struct
from galaxy.model.messages.container import ContainerState, GroupOrder, Reason
from galaxy.model.resources import NOTHING, Resources


class Group(Struct, frozen=True, kw_only=True):
    """A container group as ResMan keeps it: the last order obeyed."""

    group: str
    order: GroupOrder
    created_s: float = 0.0


class EndedGroup(Struct, frozen=True, kw_only=True):
    """A group that was removed: an order not newer than this does not bring it back."""

    group: str
    epoch: int
    serial: int
    at_s: float


class Container(Struct, frozen=True, kw_only=True):
    """A container slot as ResMan keeps it.

    ``incarnation`` counts placements and never goes back; ``agent`` is empty while pending.
    ``failures`` in a row and ``retry_s`` (Unix seconds) hold it back after agents could not
    make it; ``avoid`` names agents that failed it lately. An earlier life that its agent has
    still to destroy is a row of its own, which says itself what it takes (``cpu_milli``,
    ``memory_bytes``, ``disk_bytes``); any other takes what its group demands. ``claimed``: it
    waits for its next place and counts against its owner's quota still, as when it had one.
    """

    container: str
    group: str
    slot: int
    incarnation: int
    state: ContainerState
    agent: str = ""
    ports: dict[str, int] = {}
    reason: Reason | None = None
    since_s: float = 0.0
    failures: int = 0
    retry_s: float = 0.0
    avoid: tuple[str, ...] = ()
    resources: Resources = NOTHING
    claimed: bool = False
