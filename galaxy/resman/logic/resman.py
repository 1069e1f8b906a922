"""ResMan: machines and container groups, wanted against found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from galaxy.model.api.request import Request
from galaxy.model.messages.agent import AgentReport, HeartbeatsRead
from galaxy.model.messages.container import GroupOrders, Reason
from galaxy.model.step import Step
from galaxy.model.stored.table import Table
from galaxy.resman.logic.agents.heartbeats import Replacing, SafeMode, hear
from galaxy.resman.logic.agents.reports import forgive, take_in
from galaxy.resman.logic.api import requests
from galaxy.resman.logic.api.context import ResManContext
from galaxy.resman.logic.config import ResManConfig
from galaxy.resman.logic.groups.dispatch import Dispatch, overdue, present
from galaxy.resman.logic.groups.groups import finish, obey
from galaxy.resman.logic.placement.placement import place_waiting
from galaxy.resman.logic.state.state import ResManState


class ResMan:
    """The resource layer's leader, as a ``galaxy.model.step.Logic``.

    A step costs what changed: agents and containers that nothing happened to are not looked
    at, but for one pass over the heartbeats that a ``HeartbeatsRead`` brings.
    """

    def __init__(self, config: ResManConfig | None = None) -> None:
        self.config = config or ResManConfig()
        self.books = ResManState(self.config)
        self._begin()

    @property
    def tables(self) -> Mapping[str, Table[Any]]:
        """Tables by name; ``cluster`` has a row only in safe mode."""
        books = self.books
        every: tuple[Table[Any], ...] = (
            books.identity, books.groups, books.ended, books.containers, books.agents, books.cluster,
            books.requests.answers, books.requests.audit,
        )  # fmt: skip
        return {table.name: table for table in every}

    @property
    def safe_mode(self) -> Reason | None:
        """Return why ResMan only watches at present, if it does."""
        return self._safe.reason

    def lead(self, epoch: int, now_s: float) -> None:
        """Begin a leadership with the tables as they were loaded."""
        self.books.begin(epoch, now_s)
        self._begin()

    def recover(self, now_s: float) -> None:
        """Go on from the tables as they were before the last step; nothing that was heard is lost."""
        self.books.recover(now_s)
        self._safe.recover()
        self._replacing.recover()

    def step(self, now_s: float, events: Sequence[Any]) -> Step:
        """Take in ``events``, place what waits, and say what is owed to agents and AppMaster."""
        books = self.books
        books.now_s = max(now_s, books.now_s)
        books.keep()
        self._safe.keep()
        self._replacing.keep()
        for event in events:
            self._take_in(event)
        forgive(books)
        more_lost = self._safe.reason is None and self._replacing.step()
        due = overdue(books)
        for key in books.later.pop(books.now_s):
            row = books.containers.get(key)
            if row is not None:
                books.fresh[row.group] = None
        more = place_waiting(books, self._safe.reason)
        due += present(books)
        finish(books)
        sends = self._dispatch.commands(due, safe=self._safe.reason is not None)
        sends += self._dispatch.statuses()
        return Step(
            sends=tuple(sends),
            replies=tuple(books.requests.replies),
            trace=tuple(books.trace),
            wake_s=self._wake_s(more, more_lost),
        )

    def _begin(self) -> None:
        self._safe = SafeMode(self.books)
        self._replacing = Replacing(self.books)
        self._dispatch = Dispatch(self.books)

    def _take_in(self, event: Any) -> None:
        match event:
            case Request():
                requests.handle(ResManContext(state=self.books, safe_mode=self._safe), event)
            case GroupOrders():
                if event.identity is not None:
                    self.books.apply_identity(event.identity)
                for order in event.orders:
                    obey(self.books, order)
            case AgentReport():
                take_in(self.books, event)
            case HeartbeatsRead():
                hear(self.books, self._safe, event)

    def _wake_s(self, more: bool, more_lost: bool) -> float | None:
        books = self.books
        if more:
            return books.now_s
        times = [books.now_s + 0.2] if more_lost else []
        times += [at_s for at_s in (books.owed.next_s(), books.later.next_s()) if at_s is not None]
        return min(times, default=None)
