"""The interface of a leader's logic, and the output of one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from galaxy.model.api.answers import Reply
from galaxy.model.base import Struct
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.stored.table import Table


class Send(Struct, frozen=True, kw_only=True):
    """One Celery message: ``task`` with ``body`` to ``queue``; published after the commit.

    ``id`` is the Celery task id. ``expires_s`` counts from publishing: commands are sent again, so
    an old one is not needed. ``body`` is a struct of ``galaxy.model``.
    """

    queue: str
    task: str
    body: Any
    id: str
    expires_s: float = 60.0


class Step(Struct, frozen=True, kw_only=True):
    """The output of one step, in addition to the changes in the logic's tables."""

    sends: tuple[Send, ...] = ()
    replies: tuple[Reply, ...] = ()
    trace: tuple[TraceEvent, ...] = ()
    forget: tuple[str, ...] = ()
    """Agents whose heartbeats, mailboxes and queues are deleted from Nexus, after the commit."""
    wake_s: float | None = None
    """Unix seconds at which the logic needs its next step even if nothing arrives."""


class Logic(Protocol):
    """The pure part of a leader, the same in production and in the simulator."""

    @property
    def tables(self) -> Mapping[str, Table[Any]]:
        """Every table by name. The driver loads, commits, accepts and discards them."""

    def lead(self, epoch: int, now_s: float) -> None:
        """Begin a leadership: tables have just been loaded; volatile state is derived from them."""

    def recover(self, now_s: float) -> None:
        """Continue after a step that raised or was refused.

        Tables are as before that step; other state may be in any condition and is derived again.
        Numbers that were given out in this leadership (ids, versions) are not given out again.
        """

    def step(self, now_s: float, events: Sequence[Any]) -> Step:
        """Apply ``events`` in order of arrival and work on the difference of desired and observed.

        ``now_s`` is Unix seconds and never decreases within one leadership. No event that could be
        decoded may make it raise: an invalid one is answered, counted or ignored.
        """
