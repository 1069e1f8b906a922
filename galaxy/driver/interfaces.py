"""The interfaces that the driver needs: an election, a fenced store, heartbeats, and a publisher."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from galaxy.model.api.answers import Reply
from galaxy.model.base import Struct
from galaxy.model.messages.agent import AgentReport, AgentUsage, HeartbeatsRead, MeterSample
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.step import Send
from galaxy.model.stored.table import Table, TableChange


class Grant(Struct, frozen=True, kw_only=True):
    """A won election. ``epoch`` is higher than any before it; the store checks it on every commit."""

    role: str
    owner: str
    epoch: int
    ttl_s: float


class LockHeld(Struct, frozen=True, kw_only=True):
    """Another owner leads: its lease ends in ``remaining_s``, unless it renews or releases it."""

    role: str
    owner: str
    remaining_s: float


class RefusedReport(Struct, frozen=True, kw_only=True):
    """The content of an agent's mailbox was refused, because it is not a report of this agent; ``why``."""

    agent: str
    why: str


class TakenReports(Struct, frozen=True, kw_only=True):
    """Reports that a leader has taken out of mailboxes."""

    reports: tuple[AgentReport, ...] = ()
    refused: tuple[RefusedReport, ...] = ()


class Elections(Protocol):
    """Leader election by role. Every call raises ``Unreachable`` when its outcome is not known."""

    def campaign(self, role: str, owner: str, *, ttl_s: float, address: str) -> Grant | LockHeld:
        """Take the lock if it is free. An owner that already leads gets a new epoch."""

    def renew(self, grant: Grant) -> bool:
        """Extend the lease to ``ttl_s`` from now, or return False when the lead is lost."""

    def release(self, grant: Grant) -> None:
        """Release the lock and wake a standby; has no effect when the lead is already lost."""

    def await_release(self, role: str, timeout_s: float) -> None:
        """Return when a leader released the lock, or after ``timeout_s``."""


class Store(Protocol):
    """Storage of tables. Only the holder of a grant can write."""

    def load(self, role: str, tables: Iterable[Table[Any]]) -> None:
        """Fill ``tables`` with what is stored; call it after the grant."""

    def commit(
        self, grant: Grant, serial: int, changes: Sequence[TableChange], trace: Sequence[TraceEvent]
    ) -> None:
        """Write all of it or nothing. Committing the same serial twice has the effect of once.

        Raises:
            NotLeader: the grant is over; nothing was written.
            Unreachable: it is not known whether it was written; commit the same serial again.
        """


class FeedPosition(Struct, frozen=True, kw_only=True):
    """A reader's position in a role's change feed: the last entry read, and the commit that wrote it.

    ``ahead`` are later commits that the reader's rows may include already, because a row is read after
    the entry that names it. If the server loses one of them, the reader must reload.
    """

    entry: str
    commit: str
    ahead: tuple[str, ...] = ()


class RowChange(Struct, frozen=True, kw_only=True):
    """A row that was committed. ``value`` is its current JSON; None when it is gone."""

    table: str
    key: str
    value: bytes | None


class FeedRead(Struct, frozen=True, kw_only=True):
    """The answer to a reader: rows that changed, or ``reload``; continue from ``position``.

    ``current``: when this was read, the reader's rows were exactly those of the last commit.
    """

    position: FeedPosition
    changes: tuple[RowChange, ...] = ()
    reload: bool = False
    current: bool = False


class Feed(Protocol):
    """Reads what any leader commits, so that a copy of its tables stays current."""

    def read_changes(self, role: str, after: FeedPosition | None, timeout_s: float) -> FeedRead:
        """Return what was committed after ``after``, waiting up to ``timeout_s`` for it.

        None as ``after`` asks for a position to begin from: the answer says to reload.
        """

    def read_rows(self, role: str, table: str, accept: Callable[[Sequence[tuple[str, bytes]]], None]) -> str:
        """Pass all rows of a table to ``accept`` in pieces; return the last commit that they may include."""


class LeaderNexus(Elections, Store, Feed, Protocol):
    """Everything that a leader's shell needs from Nexus."""

    def heartbeats(self, role: str = "") -> HeartbeatsRead:
        """Return the last heartbeat of every agent, and which of them have unread reports for ``role``."""

    def take_reports(self, grant: Grant, wait_s: float) -> TakenReports:
        """Return some of the unread reports, waiting up to ``wait_s`` for the first one.

        Raises:
            NotLeader: the grant is over; nothing was taken.
        """

    def usages(self) -> dict[str, AgentUsage]:
        """Return the last usage sample of every agent."""

    def forget_agents(self, agents: Sequence[str]) -> None:
        """Delete the heartbeats, mailboxes and queues of agents that are not known any more."""

    def meters(self) -> dict[str, MeterSample]:
        """Return the last meters of every agent."""

    def reply(self, replies: Sequence[Reply]) -> None:
        """Deliver answers to waiting clients; a client may have stopped waiting."""


class Publish(Protocol):
    """Sends messages, all or as many as it can; raises ``Unreachable`` when it cannot send all."""

    def __call__(self, sends: Sequence[Send]) -> None: ...
