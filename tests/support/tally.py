"""The smallest logic of a leader: it counts by name, sends the totals, and raises on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from galaxy.model.api.answers import Answer, Problem, Reply
from galaxy.model.api.request import Request
from galaxy.model.base import Struct
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.step import Send, Step
from galaxy.model.stored.table import Table


class Add(Struct, frozen=True, kw_only=True):
    """Add ``by`` to ``name``; a negative total makes the step raise."""

    name: str
    by: int = 1
    reply: str = ""


class Count(Struct, frozen=True, kw_only=True):
    name: str
    total: int


class Tally:
    """Counts; every new total is sent to queue ``out``, and to the client that asked."""

    def __init__(self, wake_every_s: float | None = None) -> None:
        self.counts: Table[Count] = Table("counts", Count)
        self.led: list[tuple[int, float]] = []
        self.recovered = 0
        self.steps: list[tuple[float, int]] = []
        self.broken = False
        self._wake_every_s = wake_every_s

    @property
    def tables(self) -> Mapping[str, Table[Any]]:
        return {"counts": self.counts}

    def lead(self, epoch: int, now_s: float) -> None:
        self.led.append((epoch, now_s))

    def recover(self, now_s: float) -> None:
        self.recovered += 1

    def step(self, now_s: float, events: Sequence[Any]) -> Step:
        self.steps.append((now_s, len(events)))
        if self.broken:
            raise RuntimeError("broken")
        sends: list[Send] = []
        replies: list[Reply] = []
        trace: list[TraceEvent] = []
        for event in events:
            if isinstance(event, Request):
                problem = Problem(kind="refused", message="not you") if event.user == "mallory" else None
                answer = Answer(key=event.key, result=event.body, problem=problem)
                replies.append(Reply(reply=event.reply, answer=answer))
            if not isinstance(event, Add):
                continue
            old = self.counts.get(event.name)
            total = (old.total if old else 0) + event.by
            self.counts.put(event.name, Count(name=event.name, total=total))
            if total < 0:
                raise ValueError(f"{event.name} went below zero")
            row = self.counts[event.name]
            sends.append(Send(queue="out", task="tally.count", body=row, id=f"count:{event.name}:{total}"))
            trace.append(TraceEvent(kind="tally.counted", subject=event.name, text=str(total)))
            if event.reply:
                replies.append(Reply(reply=event.reply, answer=Answer(key=event.name, result=total)))
        wake_s = None if self._wake_every_s is None else now_s + self._wake_every_s
        return Step(sends=tuple(sends), replies=tuple(replies), trace=tuple(trace), wake_s=wake_s)
