"""What a leader's logic gives back from one step, and the shape that every logic has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from galaxy.model.api.answers import Reply
from galaxy.model.base import Struct
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.stored.table import Table


class Send(Struct, frozen=True, kw_only=True):
    """One Celery message: ``task`` with ``body`` to ``queue``; published after the commit.

    ``id`` is the Celery task id; ``expires_s`` counts from publishing (commands are re-sent, so
    none needs to be old). ``body`` is a Noun of ``galaxy.model``.
    """

    queue: str
    task: str
    body: Any
    id: str
    expires_s: float = 60.0


class Step(Struct, frozen=True, kw_only=True):
    """What one step owes the world, beside the changes in its tables."""

    sends: tuple[Send, ...] = ()
    replies: tuple[Reply, ...] = ()
    trace: tuple[TraceEvent, ...] = ()
    wake_s: float | None = None
    """Unix seconds at which the logic wants its next step even if nothing arrives."""


class Logic(Protocol):
    """A leader's pure half; the same in production and in the simulator."""

    @property
    def tables(self) -> Mapping[str, Table[Any]]:
        """Every table by name; the driver loads, commits, accepts and discards them."""

    def lead(self, epoch: int, now_s: float) -> None:
        """Begin a leadership: tables have just been loaded, volatile state starts afresh."""

    def recover(self, now_s: float) -> None:
        """Go on after a step that raised or was refused: tables are as before it, the rest may be anything.

        What is derived from tables is derived anew, as of before that step; what was given to
        others in this leadership (ids, versions) does not come again.
        """

    def step(self, now_s: float, events: Sequence[Any]) -> Step:
        """Take in ``events`` in order of arrival and bring wanted and found together.

        ``now_s`` is Unix seconds and never goes back within one leadership. Must not raise on
        any event that decoded: what makes no sense is answered, counted or ignored.
        """
