"""What the driver needs of the world: an election, a fenced store, heartbeats, a way out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from galaxy.model.api.answers import Reply
from galaxy.model.base import Struct
from galaxy.model.messages.agent import AgentUsage, HeartbeatsRead
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.step import Send
from galaxy.model.stored.table import Table, TableChange


class Grant(Struct, frozen=True, kw_only=True):
    """A leadership: ``epoch`` is higher than any before it. Proof of it is the store's to check."""

    role: str
    owner: str
    epoch: int
    ttl_s: float


class LockHeld(Struct, frozen=True, kw_only=True):
    """Somebody else leads, for ``remaining_s`` at least unless he lets go."""

    role: str
    owner: str
    remaining_s: float


class Elections(Protocol):
    """Who leads. Every call raises ``Unreachable`` when the outcome is not known."""

    def campaign(self, role: str, owner: str, *, ttl_s: float, address: str) -> Grant | LockHeld:
        """Take the lead if nobody has it; an owner that has it already gets a new epoch."""

    def renew(self, grant: Grant) -> bool:
        """Hold on for another ``ttl_s``; False when the lead is lost."""

    def release(self, grant: Grant) -> None:
        """Let go and wake a standby; without effect when the lead is lost already."""

    def await_release(self, role: str, timeout_s: float) -> None:
        """Return when a leader let go, or after ``timeout_s``."""


class Store(Protocol):
    """Where tables live. Only the holder of a grant writes."""

    def load(self, role: str, tables: Iterable[Table[Any]]) -> None:
        """Fill ``tables`` with what is stored; call it after the grant."""

    def commit(
        self, grant: Grant, serial: int, changes: Sequence[TableChange], trace: Sequence[TraceEvent]
    ) -> None:
        """Write all of it or nothing. The same serial twice is once.

        Raises:
            NotLeader: the grant is over; nothing was written.
            Unreachable: whether it was written is not known; commit the same again.
        """


class LeaderNexus(Elections, Store, Protocol):
    """Everything that a leader's shell asks of Nexus."""

    def beats(self) -> HeartbeatsRead:
        """Return every heartbeat."""

    def usages(self) -> dict[str, AgentUsage]:
        """Return the last usage sample of every agent."""

    def reply(self, replies: Sequence[Reply]) -> None:
        """Deliver answers to those who wait; nobody may be waiting any more."""


class Publish(Protocol):
    """Sends messages, all or as many as it can; raises ``Unreachable`` when it cannot."""

    def __call__(self, sends: Sequence[Send]) -> None: ...
