"""Nexus in memory: the same contract without Redis, for the simulator and for tests.

The clock is a parameter, so that leases expire by simulated time. Nothing blocks: ``await_release``
returns at once, because the simulator calls again later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Any, TypeVar

from galaxy.driver.interfaces import FeedPosition, FeedRead, Grant, LockHeld, RowChange, TakenReports
from galaxy.errors import NotLeader
from galaxy.model.api.answers import Reply
from galaxy.model.api.views import LeaderView
from galaxy.model.base import WIRE_VERSION, Struct, decode, encode
from galaxy.model.messages.agent import AgentReport, AgentUsage, Heartbeat, HeartbeatsRead, MeterSample
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.stored.table import Table, TableChange
from galaxy.nexus.change_feed import (
    AHEAD_MAX,
    EMPTY,
    ENTRIES_MAX,
    READ_MAX,
    FeedEntry,
    RowNames,
    after_entries,
    begin_at,
    entries_of,
    is_current,
    rows_named,
    take_chain,
)
from galaxy.nexus.mailboxes import TAKEN_MAX, pack_report, read_taken
from galaxy.nexus.trace import ALL_MAX, matches

N = TypeVar("N", bound=Struct)


class MemoryNexus:
    """Everything that leaders and agents need of ``Nexus``, stored in dicts; ``now_s`` is its clock."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._locks: dict[str, tuple[str, int, float]] = {}
        self._epochs: dict[str, int] = {}
        self._leaders: dict[str, LeaderView] = {}
        self._committed: dict[str, tuple[int, int]] = {}
        self._tables: dict[tuple[str, str], dict[str, bytes]] = {}
        self._feeds: dict[str, deque[FeedEntry]] = {}
        self._trace: deque[TraceEvent] = deque(maxlen=ALL_MAX)
        self._heartbeats: dict[str, Heartbeat] = {}
        self._usages: dict[str, AgentUsage] = {}
        self._meters: dict[str, MeterSample] = {}
        self._mailboxes: dict[str, dict[str, bytes]] = {}
        self._replies: dict[str, deque[bytes]] = {}
        self.on_commit: Callable[[str, Sequence[TableChange]], None] = lambda _role, _changes: None
        """Called with the role and the changes of every commit that is stored."""

    def campaign(self, role: str, owner: str, *, ttl_s: float, address: str) -> Grant | LockHeld:
        now_s = self._now_s()
        held = self._lock_of(role)
        if held is not None and held[0] != owner:
            return LockHeld(role=role, owner=held[0], remaining_s=held[2] - now_s)
        epoch = max(self._epochs.get(role, 0) + 1, int(now_s * 1000))
        self._epochs[role] = epoch
        self._locks[role] = (owner, epoch, now_s + ttl_s)
        self._leaders[role] = LeaderView(role=role, address=address, epoch=epoch, since_s=now_s)
        return Grant(role=role, owner=owner, epoch=epoch, ttl_s=ttl_s)

    def renew(self, grant: Grant) -> bool:
        if not self._leads(grant):
            return False
        self._locks[grant.role] = (grant.owner, grant.epoch, self._now_s() + grant.ttl_s)
        return True

    def release(self, grant: Grant) -> None:
        if self._leads(grant):
            del self._locks[grant.role]

    def await_release(self, role: str, timeout_s: float) -> None:
        """Return at once."""

    def leader(self, role: str) -> LeaderView | None:
        return None if self._lock_of(role) is None else self._leaders[role]

    def load(self, role: str, tables: Iterable[Table[Any]]) -> None:
        for table in tables:
            table.load(self._tables.get((role, table.name), {}).items())

    def commit(
        self, grant: Grant, serial: int, changes: Sequence[TableChange], trace: Sequence[TraceEvent]
    ) -> None:
        if not self._leads(grant):
            raise NotLeader(f"{grant.owner} does not lead {grant.role} in epoch {grant.epoch} any more")
        if self._committed.get(grant.role) == (grant.epoch, serial):
            return
        for change in changes:
            rows = self._tables.setdefault((grant.role, change.table), {})
            if change.value is None:
                rows.pop(change.key, None)
            else:
                rows[change.key] = change.value
        self._append(grant, serial, changes)
        self._trace.extend(trace)
        self._committed[grant.role] = (grant.epoch, serial)
        self.on_commit(grant.role, changes)

    def read_table(self, role: str, table: str, kind: type[N]) -> dict[str, N]:
        rows = self._tables.get((role, table), {})
        return {key: decode(rows[key], kind) for key in sorted(rows)}

    def read_some(self, role: str, table: str, names: Sequence[str], kind: type[N]) -> dict[str, N]:
        rows = self._tables.get((role, table), {})
        return {name: decode(rows[name], kind) for name in names if name in rows}

    def read_names(self, role: str, table: str) -> list[str]:
        return sorted(self._tables.get((role, table), {}))

    def read_changes(
        self,
        role: str,
        after: FeedPosition | None,
        timeout_s: float,  # noqa: ARG002
    ) -> FeedRead:
        """Return at once what ``ChangeFeed.read`` returns."""
        feed, committed = self._feeds.get(role, ()), self._last_commit(role)
        newest = feed[-1].id if feed else EMPTY
        if after is None:
            return begin_at(newest, committed)
        seen = _number(after.entry)
        newer = takewhile(lambda entry: _number(entry.id) > seen, reversed(feed))
        found = list(newer)[::-1][:READ_MAX]
        if not found:
            if is_current(after, committed):
                return FeedRead(position=after, current=True)
            return begin_at(newest, committed)
        entries = take_chain(after, found)
        if entries is None:
            return begin_at(newest, committed)
        position = after_entries(after, entries, committed)
        if len(position.ahead) > AHEAD_MAX:
            return begin_at(newest, committed)
        changes = [
            RowChange(table=table, key=key, value=self._tables.get((role, table), {}).get(key))
            for table, names in rows_named(entries).items()
            for key in names
        ]
        return FeedRead(position=position, changes=tuple(changes))

    def read_rows(self, role: str, table: str, accept: Callable[[Sequence[tuple[str, bytes]]], None]) -> str:
        accept(list(self._tables.get((role, table), {}).items()))
        return self._last_commit(role)

    def trim_feed(self, role: str, entries_max: int) -> None:
        """Drop the oldest entries of a role's feed, as Redis does when there are too many."""
        feed = self._feeds.get(role, deque())
        while len(feed) > entries_max:
            feed.popleft()

    def _append(self, grant: Grant, serial: int, changes: Sequence[TableChange]) -> None:
        """Append the entries of a commit to the feed of its role."""
        feed = self._feeds.setdefault(grant.role, deque(maxlen=ENTRIES_MAX))
        after, commit = self._last_commit(grant.role), f"{grant.epoch}:{serial}"
        for part in entries_of(changes):
            number = _number(feed[-1].id) + 1 if feed else 1
            named = decode(part, RowNames)
            feed.append(FeedEntry(id=f"{number}-0", commit=commit, after=after, named=named))
            after = commit

    def _last_commit(self, role: str) -> str:
        return "{}:{}".format(*self._committed[role]) if role in self._committed else ""

    def trace(self, subjects: Sequence[str] = (), limit: int = 100) -> list[TraceEvent]:
        found = [event for event in self._trace if matches(event, subjects)]
        return found[-limit:] if limit > 0 else []

    def send_heartbeat(
        self,
        agent: str,
        *,
        boot: str,
        containers: int = 0,
        pods: int = 0,
        usage: AgentUsage | None = None,
        meters: MeterSample | None = None,
        trouble: str = "",
        leaving: bool = False,
        wire: int = WIRE_VERSION,
    ) -> float:
        """Store a heartbeat and return the clock; ``wire`` lets tests speak another version."""
        self._heartbeats[agent] = Heartbeat(
            agent=agent,
            at_s=self._now_s(),
            boot=boot,
            containers=containers,
            pods=pods,
            wire=wire,
            trouble=trouble,
            leaving=leaving,
        )
        if usage is not None:
            self._usages[agent] = usage
        if meters is not None:
            self._meters[agent] = meters
        return self._now_s()

    def heartbeats(self, role: str = "") -> HeartbeatsRead:
        return HeartbeatsRead(
            now_s=self._now_s(),
            heartbeats=tuple(self._heartbeats[agent] for agent in sorted(self._heartbeats)),
            unread=frozenset(self._mailboxes.get(role, ())),
        )

    def post_report(self, role: str, report: AgentReport, *, replaces: bool = False) -> bool:
        mailboxes = self._mailboxes.setdefault(role, {})
        if report.agent in mailboxes and not replaces:
            return False
        mailboxes[report.agent] = pack_report(report)
        return True

    def take_reports(self, grant: Grant, wait_s: float = 0.0) -> TakenReports:  # noqa: ARG002
        """Return at once what ``Mailboxes.take`` returns."""
        if not self._leads(grant):
            raise NotLeader(f"{grant.owner} does not lead {grant.role} in epoch {grant.epoch} any more")
        mailboxes = self._mailboxes.get(grant.role, {})
        agents = list(mailboxes)[:TAKEN_MAX]
        return read_taken([(agent.encode(), mailboxes.pop(agent)) for agent in agents])

    def usages(self) -> dict[str, AgentUsage]:
        return {agent: self._usages[agent] for agent in sorted(self._usages)}

    def meters(self) -> dict[str, MeterSample]:
        return {agent: self._meters[agent] for agent in sorted(self._meters)}

    def heartbeats_of(self, agents: Sequence[str]) -> HeartbeatsRead:
        named = (self._heartbeats.get(agent) for agent in sorted(set(agents)))
        return HeartbeatsRead(now_s=self._now_s(), heartbeats=tuple(beat for beat in named if beat))

    def usages_of(self, agents: Sequence[str]) -> dict[str, AgentUsage]:
        return {agent: self._usages[agent] for agent in sorted(set(agents)) if agent in self._usages}

    def forget_agents(self, agents: Sequence[str]) -> None:
        for agent in agents:
            for rows in (self._heartbeats, self._usages, self._meters, *self._mailboxes.values()):
                rows.pop(agent, None)  # type: ignore[attr-defined]

    def reply(self, replies: Sequence[Reply]) -> None:
        for reply in replies:
            self._replies.setdefault(reply.reply, deque(maxlen=100)).append(encode(reply.answer))

    def await_reply(self, reply_id: str, timeout_s: float) -> bytes | None:  # noqa: ARG002
        """Return an answer that is there already, or None at once."""
        waiting = self._replies.get(reply_id)
        if not waiting:
            return None
        answer = waiting.popleft()
        if not waiting:
            del self._replies[reply_id]
        return answer

    def _lock_of(self, role: str) -> tuple[str, int, float] | None:
        held = self._locks.get(role)
        return held if held is not None and held[2] > self._now_s() else None

    def _leads(self, grant: Grant) -> bool:
        held = self._lock_of(grant.role)
        return held is not None and held[:2] == (grant.owner, grant.epoch)


def _number(entry: str) -> int:
    return int(entry.partition("-")[0])
