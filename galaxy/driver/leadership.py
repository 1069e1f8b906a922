"""One leadership, tick by tick, without threads or a clock: the same in production and simulated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from galaxy.driver.interfaces import Grant, Store
from galaxy.driver.stored_format import (
    FORMAT_KEY,
    STORED_FORMAT,
    StoredFormat,
    check_format,
    different_settings,
    format_table,
)
from galaxy.driver.trace_lines import log_trace
from galaxy.driver.warm_tables import WarmTables
from galaxy.errors import NotLeader, Unreachable
from galaxy.model.api.answers import Reply
from galaxy.model.api.request import Request
from galaxy.model.base import Struct
from galaxy.model.messages.agent import AgentReport
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.step import Logic, Send, Step
from galaxy.model.stored.table import TableChange
from galaxy.statemachine.backoff import Backoff

FAILURES_MAX: Final = 5
"""Consecutive steps without events that may fail before this process gives up the lead."""
FAILURE_WAIT_S: Final = 1.0
FAILURE_WAIT_S_MAX: Final = 5.0
"""After a step without events that raised, the next one comes after this wait, which doubles each time.

Events are stepped all the same, so a timer that makes every other step raise does not stop the leader."""
FAILURE_FORGOTTEN_S: Final = 60.0
"""After this long without such a step, the wait is the shortest again."""
POISONOUS_MAX: Final = 3
"""Events of one sender and kind that may make a step raise in one tick.

After each of them the logic recovers, which costs as much as beginning a leadership. So further events
of that sender and kind in that tick are dropped, as if they were lost."""
POISONOUS_OF_ALL_MAX: Final = 8
"""The same for all senders together. Beyond it, further events of these kinds are dropped from all
senders, because there may be many senders."""

RetryPolicy = Callable[[Unreachable], bool]
"""Returns whether to retry a commit of unknown outcome; it may sleep before it returns."""

log = logging.getLogger(__name__)


class CommittedStep(Struct, frozen=True, kw_only=True):
    """What to send after a commit. ``wake_s`` is the time of the next step in Unix seconds, or None."""

    sends: tuple[Send, ...] = ()
    replies: tuple[Reply, ...] = ()
    forget: tuple[str, ...] = ()
    wake_s: float | None = None


def _no_retry(_: Unreachable) -> bool:
    return False


class Leadership:
    """The logic of a role under one grant.

    ``lease_is_held`` returns whether the lease can still be trusted. ``retry_policy`` is called before
    each commit and returns the policy for that commit. ``warm`` are the tables of ``logic``, if they have
    followed the change feed. ``settings`` should be the same in all processes of the role; a leader
    logs those in which it differs from the last one.
    """

    def __init__(
        self,
        logic: Logic,
        store: Store,
        grant: Grant,
        *,
        lease_is_held: Callable[[], bool] = lambda: True,
        retry_policy: Callable[[], RetryPolicy] = lambda: _no_retry,
        warm: WarmTables | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.grant = grant
        self.ticks = 0
        self.commits = 0
        self.was_warm = False
        """Whether this leadership began without loading its tables."""
        self.poisonous = 0
        """Events that made a step raise."""
        self.dropped = 0
        """Events that were dropped without a step because others like them made steps raise."""
        self._logic = logic
        self._store = store
        self._lease_is_held = lease_is_held
        self._retry_policy = retry_policy
        self._warm = warm
        self._settings = dict(settings or {})
        self._now_s = 0.0
        self._failures = 0
        self._failure_wait = Backoff(FAILURE_WAIT_S, FAILURE_WAIT_S_MAX)
        self._failed_s = 0.0
        self._no_timers_until_s = 0.0
        self._must_recover = False
        self._format = format_table()

    @property
    def must_recover(self) -> bool:
        """Whether a step raised: what the logic derives from its tables is stale until it recovers."""
        return self._must_recover

    def begin(self, now_s: float) -> None:
        """Bring the tables to what the last leader committed, and start the logic with them.

        Raises:
            Unreachable: try again later. BadMessage: a stored row cannot be read.
            GalaxyError: a release with another format wrote the tables.
        """
        self._now_s = now_s
        role = self.grant.role
        self._store.load(role, [self._format])
        check_format(role, self._format)
        self._write_format()
        self.was_warm = self._warm is not None and self._warm.catch_up()
        if not self.was_warm:
            self._store.load(role, self._logic.tables.values())
        if self._warm is not None:
            self._warm.release()
        self._logic.lead(self.grant.epoch, now_s)

    def _write_format(self) -> None:
        for name, before, now in different_settings(self._format.get(FORMAT_KEY), self._settings):
            log.warning(
                "event=leader.setting-differs role=%s setting=%s last_leader=%s own=%s",
                self.grant.role, name, before, now,
            )  # fmt: skip
        self._format.put(FORMAT_KEY, StoredFormat(format=STORED_FORMAT, settings=self._settings))

    def advance(self, now_s: float, events: Sequence[Any]) -> list[CommittedStep]:
        """Step, commit, and return what may be sent now: usually one committed step.

        An event that makes the logic raise is found by stepping one event at a time, then logged,
        counted and dropped. The logic's state is then as if the event had never arrived.

        Raises:
            NotLeader: the lead is lost, or the logic keeps failing; tables are as last committed.
        """
        self._now_s = max(
            self._now_s, now_s
        )  # The host's clock may be set back; the logic's time never decreases.
        self.ticks += 1
        committed = self._step(events)
        wake_s = committed[-1].wake_s
        if wake_s is not None and wake_s < self._no_timers_until_s:
            committed[-1] = msgspec.structs.replace(committed[-1], wake_s=self._no_timers_until_s)
        return committed

    def _step(self, events: Sequence[Any]) -> list[CommittedStep]:
        step = self._try(events)
        if step is not None:
            self._failures = 0
            return [self._commit(step)]
        if not events:
            return [self._count_failure()]
        if len(events) == 1:
            return [self._drop_poisonous(events[0])]
        return self._one_by_one(events)

    def _one_by_one(self, events: Sequence[Any]) -> list[CommittedStep]:
        committed: list[CommittedStep] = []
        poisonous: list[tuple[type[Any], str]] = []
        dropped = 0
        for event in events:
            if _is_suspect(event, poisonous):
                dropped += 1
                continue
            step = self._try((event,))
            if step is None:
                poisonous.append(_source(event))
                committed.append(self._drop_poisonous(event))
            else:
                committed.append(self._commit(step))
        if dropped:
            self.dropped += dropped
            log.error(
                "event=event.dropped role=%s events=%d cause=%r",
                self.grant.role, dropped, f"{len(poisonous)} others like them made steps raise",
            )  # fmt: skip
        return committed

    def _try(self, events: Sequence[Any]) -> tuple[Step, list[TableChange], tuple[TraceEvent, ...]] | None:
        if self._must_recover:
            self._recover()
        try:
            step = self._logic.step(self._now_s, events)
            changes = [change for table in self._logic.tables.values() for change in table.changes()]
            return step, changes, tuple(self._with_time(event) for event in step.trace)
        except Exception:
            log.exception("event=step.raised role=%s events=%d", self.grant.role, len(events))
            self._discard()
            self._must_recover = True
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
        self._must_recover = False

    def _commit(self, stepped: tuple[Step, list[TableChange], tuple[TraceEvent, ...]]) -> CommittedStep:
        step, changes, trace = stepped
        if not self._lease_is_held():
            self._discard()
            raise NotLeader(f"the lease of epoch {self.grant.epoch} on {self.grant.role} is over")
        if changes or trace:
            self._write(changes, trace)
            log_trace(log, trace)
        for table in self._logic.tables.values():
            table.accept()
        return CommittedStep(sends=step.sends, replies=step.replies, forget=step.forget, wake_s=step.wake_s)

    def _write(self, own: Sequence[TableChange], trace: Sequence[TraceEvent]) -> None:
        self.commits += 1
        changes = [*self._format.changes(), *own]
        try_again = self._retry_policy()
        while True:
            try:
                self._store.commit(self.grant, self.commits, changes, trace)
                self._format.accept()
                return
            except Unreachable as error:
                if not try_again(error):
                    self._discard()
                    raise NotLeader(f"{self.grant.role} cannot commit: {error.message}") from error
            except BaseException:
                self._discard()
                raise

    def _drop_poisonous(self, event: Any) -> CommittedStep:
        self.poisonous += 1
        log.error("event=event.poison role=%s kind=%s", self.grant.role, type(event).__name__)
        return CommittedStep(wake_s=self._now_s)

    def _count_failure(self) -> CommittedStep:
        self._failures += 1
        if self._failures >= FAILURES_MAX:
            raise NotLeader(f"the logic of {self.grant.role} failed {self._failures} times in a row")
        if self._now_s - self._failed_s > FAILURE_FORGOTTEN_S:
            self._failure_wait.reset()
        self._failed_s = self._now_s
        self._no_timers_until_s = self._now_s + self._failure_wait.next_s()
        return CommittedStep(wake_s=self._no_timers_until_s)

    def _discard(self) -> None:
        for table in self._logic.tables.values():
            table.discard()

    def _with_time(self, event: TraceEvent) -> TraceEvent:
        if event.at_s:
            return event
        return msgspec.structs.replace(event, at_s=self._now_s)


def _source(event: Any) -> tuple[type[Any], str]:
    """Return an event's kind and its stated sender; the sender is empty where events name none."""
    match event:
        case Request(user=sender) | AgentReport(agent=sender):
            return type(event), sender
        case _:
            return type(event), ""


def _is_suspect(event: Any, poisonous: Sequence[tuple[type[Any], str]]) -> bool:
    """Return whether to drop an event without a step, given the sources of this tick's poisonous events."""
    if len(poisonous) >= POISONOUS_OF_ALL_MAX:
        return any(type(event) is kind for kind, _ in poisonous)
    return len(poisonous) >= POISONOUS_MAX and _source(event) in poisonous
