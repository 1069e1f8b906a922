"""Container groups and containers as ResMan stores them."""

from __future__ import annotations

from galaxy.model.base import Struct
from galaxy.model.messages.container import ContainerState, Demand, GroupOrder, Leave, Reason
from galaxy.model.resources import NOTHING, Resources


class GroupSize(Struct, frozen=True, kw_only=True):
    """What the containers of an earlier size demand."""

    size: int
    demand: Demand


class Group(Struct, frozen=True, kw_only=True):
    """A container group as ResMan keeps it: the last order applied, and earlier ``sizes``, oldest first."""

    group: str
    order: GroupOrder
    created_s: float = 0.0
    sizes: tuple[GroupSize, ...] = ()

    def demand_of(self, size: int) -> Demand:
        """Return what a container of ``size`` demands; one of an unknown size demands what the order says."""
        if size != self.order.size:
            for earlier in self.sizes:
                if earlier.size == size:
                    return earlier.demand
        return self.order.demand

    def has_size(self, size: int) -> bool:
        """Return whether it is known what a container of ``size`` demands."""
        return size == self.order.size or any(earlier.size == size for earlier in self.sizes)


class EndedGroup(Struct, frozen=True, kw_only=True):
    """A group that was removed; an order not newer than this one does not create it again."""

    group: str
    epoch: int
    serial: int
    at_s: float
    user: str = ""
    """Its owner, in whose account the last of its use is counted."""


class Container(Struct, frozen=True, kw_only=True):
    """A container slot as ResMan keeps it.

    ``incarnation`` counts placements and never decreases; ``agent`` is empty while pending.
    After ``failures`` in a row it waits until ``retry_s``, Unix seconds. ``avoid`` names agents
    on which it failed recently. ``claimed`` means that it waits for its next place and still counts
    against its owner's quota.

    An earlier incarnation that its agent must still destroy is a row of its own, with the
    ``resources`` that it takes. Any other row takes what its group demands of a container of ``size``.

    While ``sized``, which its agent has reported, differs from ``size``, it is being resized: it takes
    ``resources`` as well where they are larger, because it may still have them.
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
    leave: Leave | None = None
    """Set while the slot is to leave its agent."""
    size: int = 0
    sized: int = 0
    resize: Reason | None = None
    """Why it does not have the size of its group's order."""
