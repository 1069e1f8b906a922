"""Message queues and mailboxes that lose, duplicate, delay and reorder messages and reports."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from galaxy.agent.logic.reports import DueReport
from galaxy.model.base import Struct, decode, encode
from galaxy.model.step import Send
from galaxy.nexus.in_memory import MemoryNexus
from galaxy.testing.simulation.world import World

WAITING_MAX: Final = 10_000
"""Limit on the messages that wait in one queue without a consumer; beyond it the oldest are dropped."""
REPORT: Final = "report"
"""Stands for a task in the ``Send`` of a report, which is not a Celery message."""
CLOCK_SKEW_S: Final = 300.0
"""How far hosts' clocks may differ, in seconds: a message is kept that long beyond its expiry."""

POST_TIMEOUT_S: Final = 5.0
"""How long an agent waits for the answer to a post. The post may still arrive, after later ones."""

Consumer = Callable[[Struct], None]
Answered = Callable[[bool | None], None]
"""Takes the answer to a post: whether the report was posted, None if that is not known."""


def _ignore(_: object) -> None:
    pass


class Bus:
    """Celery's queues as Galaxy relies on them: no order, and any number of deliveries."""

    def __init__(self, world: World, nexus: MemoryNexus) -> None:
        self.sent = 0
        self.delivered = 0
        self.on_send: Callable[[Send], None] = _ignore
        """Called with every message that is sent, before it may get lost."""
        self.loses: Callable[[Send], bool] | None = None
        """Whether this message is lost, apart from the messages that the faults lose."""
        self.on_posted: dict[str, Callable[[], None]] = {}
        """By role, what its leader does when a report waits for it."""
        self._world = world
        self._nexus = nexus
        self._consumers: dict[str, Consumer] = {}
        self._waiting: dict[str, deque[tuple[float, bytes, type[Any]]]] = {}

    def consume(self, queue: str, consumer: Consumer) -> None:
        """Deliver messages of ``queue`` to ``consumer`` from now on, waiting ones first."""
        self._consumers[queue] = consumer
        self._world.after(0.0, lambda: self._drain(queue))

    def cancel(self, queue: str, consumer: Consumer) -> None:
        """Stop delivering to ``consumer``, unless another consumer has replaced it already."""
        if self._consumers.get(queue) == consumer:
            del self._consumers[queue]

    def send(self, send: Send) -> None:
        """Send a message. It is encoded and decoded as in production."""
        faults = self._world.faults
        self.sent += 1
        self.on_send(send)
        if self._world.strikes("lose") or (self.loses is not None and self.loses(send)):
            self._world.record(f"bus loses {send.task} to {send.queue}")
            return
        copies = 2 if self._world.strikes("double") else 1
        packed = encode(send.body)
        expires_s = self._world.now_s + send.expires_s + CLOCK_SKEW_S
        for _ in range(copies):
            delay_s = self._world.between(0.002, 0.006)
            if self._world.strikes("late"):
                delay_s += self._world.between(0.0, faults.late_s)
            self._world.after(delay_s, lambda: self._arrive(send.queue, expires_s, packed, type(send.body)))

    def post(self, due: DueReport, answer: Answered) -> None:
        """Post an agent's report to its mailbox with Nexus, then call ``answer``."""
        world = self._world
        role, report = due.role, due.report
        self.sent += 1
        send = Send(queue=role, task=REPORT, body=report, id=f"report:{role}:{report.agent}:{report.serial}")
        self.on_send(send)
        delay_s = world.between(0.001, 0.003)
        if world.strikes("lose") or (self.loses is not None and self.loses(send)):
            world.record(f"bus loses a report of {report.agent} to {role}")
            world.after(delay_s, lambda: answer(True))  # Redis had it, and failed over before a replica had.
            return

        def arrive(answer: Answered) -> None:
            posted = self._nexus.post_report(role, report, replaces=due.replaces)
            if notify := self.on_posted.get(role):
                world.after(delay_s, notify)
            answer(posted)

        late_s = world.between(0.0, world.faults.late_s) if world.strikes("late") else 0.0
        if world.strikes("double"):
            world.after(delay_s + late_s, lambda: arrive(_ignore))
            if world.chance(0.5):  # The agent does not learn that it arrives, and posts it again.
                world.after(delay_s, lambda: answer(None))
                return
            late_s = 0.0
        if late_s > POST_TIMEOUT_S:
            world.after(late_s, lambda: arrive(_ignore))
            world.after(POST_TIMEOUT_S, lambda: answer(None))
        else:
            world.after(delay_s + late_s, lambda: arrive(answer))

    def _arrive(self, queue: str, expires_s: float, packed: bytes, kind: type[Any]) -> None:
        waiting = self._waiting.setdefault(queue, deque(maxlen=WAITING_MAX))
        waiting.append((expires_s, packed, kind))
        self._drain(queue)

    def _drain(self, queue: str) -> None:
        waiting = self._waiting.get(queue)
        while waiting and (consumer := self._consumers.get(queue)) is not None:
            expires_s, packed, kind = waiting.popleft()
            if expires_s >= self._world.now_s:
                self.delivered += 1
                consumer(decode(packed, kind))
