"""One leadership, tick by tick, without threads or clock: the same in production and simulated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from galaxy.driver.interfaces import Grant, Store
from galaxy.errors import GalaxyError, NotLeader, Unreachable
from galaxy.model.api.answers import Reply
from galaxy.model.api.request import Request
from galaxy.model.base import Struct
from galaxy.model.messages.agent import AgentReport
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.step import Logic, Send, Step
from galaxy.model.stored.table import Table, TableChange

FAILURES_MAX: Final = 5
"""Steps in a row that may fail without any event; then somebody else shall try."""
FAILURE_WAIT_S: Final = 1.0
POISONED_MAX: Final = 3
"""Events of one tick that may make a step raise. Each has the logic recover, which costs as much as
beginning a leadership; so of whoever sent these, the rest of their kinds in that tick is dropped, as
if lost."""
POISONED_BY_MANY_MAX: Final = 8
"""Such events in all, for there may be many senders: beyond it the rest of their kinds is dropped,
whoever sent it. Five senders do not get there together, however much they send."""

log = logging.getLogger(__name__)


STORED_FORMAT: Final = 2
"""Of a role's tables, as we write them. As with messages (``galaxy.model.base``), new fields are no
new format; one that older leaders would misread is."""
STORED_READABLE: Final = range(2, 3)
FORMAT_KEY: Final = "tables"


class StoredFormat(Struct, frozen=True, kw_only=True):
    """What format a role's tables have: a table of its own, with one row."""

    format: int


class CommittedStep(Struct, frozen=True, kw_only=True):
    """What a committed step owes the world; ``wake_s`` is Unix seconds or None."""

    sends: tuple[Send, ...] = ()
    replies: tuple[Reply, ...] = ()
    wake_s: float | None = None


class Leadership:
    """The logic of a role under one grant.

    ``held`` tells whether the lease can be trusted; ``again`` is called before each commit, and what
    it returns is asked after each try of unknown outcome whether to try the same once more.
    """

    def __init__(
        self,
        logic: Logic,
        store: Store,
        grant: Grant,
        *,
        held: Callable[[], bool] = lambda: True,
        again: Callable[[], Callable[[Unreachable], bool]] = lambda: lambda _: False,
    ) -> None:
        self.grant = grant
        self.ticks = 0
        self.commits = 0
        self.poisoned = 0
        self.dropped = 0
        self._logic = logic
        self._store = store
        self._held = held
        self._again = again
        self._now_s = 0.0
        self._failures = 0
        self._torn = False
        self._format: Table[StoredFormat] = Table("format", StoredFormat)

    def begin(self, now_s: float) -> None:
        """Load the state that the last leader left, and hand it to the logic.

        Raises:
            Unreachable: try again later. BadMessage: a stored row cannot be read.
            GalaxyError: a release that is too far from ours wrote the tables.
        """
        self._now_s = now_s
        self._store.load(self.grant.role, [self._format])
        stored = self._format.get(FORMAT_KEY)
        if stored is not None and stored.format not in STORED_READABLE:
            raise GalaxyError(
                f"cannot lead {self.grant.role}: its state in Redis has format {stored.format}, "
                f"and this release reads only {_formats()}",
                details=["no container is touched, and nothing is written"],
                hint="run the release that wrote the state; or end its jobs with that release (galaxy down),"
                " and start this one with an empty Redis database; see Upgrading in docs/operations.md",
            )
        self._format.put(FORMAT_KEY, StoredFormat(format=STORED_FORMAT))
        self._store.load(self.grant.role, self._logic.tables.values())
        self._logic.lead(self.grant.epoch, now_s)

    def advance(self, now_s: float, events: Sequence[Any]) -> list[CommittedStep]:
        """Step, commit, and return what may be sent now; usually one outcome.

        An event that makes the logic raise is found by stepping one event at a time, logged,
        counted and dropped; the logic is as if it had never come.

        Raises:
            NotLeader: the lead is lost, or the logic fails for ever; tables are as last committed.
        """
        self._now_s = max(self._now_s, now_s)  # Clocks are set back; a logic's time is not.
        self.ticks += 1
        step = self._try(events)
        if step is not None:
            self._failures = 0
            return [self._commit(step)]
        if not events:
            return [self._failed()]
        if len(events) == 1:
            return [self._poison(events[0])]
        return self._one_by_one(events)

    def _one_by_one(self, events: Sequence[Any]) -> list[CommittedStep]:
        outcomes: list[CommittedStep] = []
        poisonous: list[tuple[type[Any], str]] = []
        dropped = 0
        for event in events:
            if _suspicious(event, poisonous):
                dropped += 1
                continue
            step = self._try((event,))
            if step is None:
                poisonous.append(_source(event))
                outcomes.append(self._poison(event))
            else:
                outcomes.append(self._commit(step))
        if dropped:
            self.dropped += dropped
            log.error(
                "event=event.dropped role=%s events=%d cause=%r",
                self.grant.role, dropped, f"{len(poisonous)} others like them were poison",
            )  # fmt: skip
        return outcomes

    def _try(self, events: Sequence[Any]) -> tuple[Step, list[TableChange], tuple[TraceEvent, ...]] | None:
        if self._torn:
            self._recover()
        try:
            step = self._logic.step(self._now_s, events)
            changes = [change for table in self._logic.tables.values() for change in table.changes()]
            return step, changes, tuple(self._dated(event) for event in step.trace)
        except Exception:
            log.exception("event=step.raised role=%s events=%d", self.grant.role, len(events))
            self._discard()
            self._torn = True
            return None

    def _recover(self) -> None:
        try:
            self._logic.recover(self._now_s)
        except Exception as error:
            log.exception("event=recover.raised role=%s", self.grant.role)
            self._discard()
            raise NotLeader(
                f"the logic of {self.grant.role} cannot recover from a step that raised"
            ) from error
        self._torn = False

    def _commit(self, stepped: tuple[Step, list[TableChange], tuple[TraceEvent, ...]]) -> CommittedStep:
        step, changes, trace = stepped
        if not self._held():
            self._discard()
            raise NotLeader(f"the lease of epoch {self.grant.epoch} on {self.grant.role} is over")
        if changes or trace:
            self._write(changes, trace)
        for table in self._logic.tables.values():
            table.accept()
        return CommittedStep(sends=step.sends, replies=step.replies, wake_s=step.wake_s)

    def _write(self, own: Sequence[TableChange], trace: Sequence[TraceEvent]) -> None:
        self.commits += 1
        changes = [*self._format.changes(), *own]
        again = self._again()
        while True:
            try:
                self._store.commit(self.grant, self.commits, changes, trace)
                self._format.accept()
                return
            except Unreachable as error:
                if not again(error):
                    self._discard()
                    raise NotLeader(f"{self.grant.role} cannot commit: {error.message}") from error
            except BaseException:
                self._discard()
                raise

    def _poison(self, event: Any) -> CommittedStep:
        self.poisoned += 1
        log.error("event=event.poison role=%s kind=%s", self.grant.role, type(event).__name__)
        return CommittedStep(wake_s=self._now_s)

    def _failed(self) -> CommittedStep:
        self._failures += 1
        if self._failures >= FAILURES_MAX:
            raise NotLeader(f"the logic of {self.grant.role} failed {self._failures} times in a row")
        return CommittedStep(wake_s=self._now_s + FAILURE_WAIT_S)

    def _discard(self) -> None:
        for table in self._logic.tables.values():
            table.discard()

    def _dated(self, event: TraceEvent) -> TraceEvent:
        if event.at_s:
            return event
        return msgspec.structs.replace(event, at_s=self._now_s)


def _formats() -> str:
    low, high = STORED_READABLE[0], STORED_READABLE[-1]
    return f"format {low}" if low == high else f"formats {low} to {high}"


def _source(event: Any) -> tuple[type[Any], str]:
    """Return what kind an event is and who says to have sent it, if anybody in particular does."""
    match event:
        case Request(user=sender) | AgentReport(agent=sender):
            return type(event), sender
        case _:
            return type(event), ""


def _suspicious(event: Any, poisonous: Sequence[tuple[type[Any], str]]) -> bool:
    """Tell whether to drop an event unseen, by the sources of those of its tick that were poison."""
    if len(poisonous) >= POISONED_BY_MANY_MAX:
        return any(type(event) is kind for kind, _ in poisonous)
    return len(poisonous) >= POISONED_MAX and _source(event) in poisonous
