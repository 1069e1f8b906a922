"""Message queues that lose, duplicate, delay and reorder messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from galaxy.model.base import Struct, decode, encode
from galaxy.model.step import Send
from galaxy.testing.simulation.world import World

WAITING_MAX: Final = 10_000
"""Limit on the messages that wait in one queue without a consumer; beyond it the oldest are dropped."""
CLOCK_SKEW_S: Final = 300.0
"""How far hosts' clocks may differ, in seconds: a message is kept that long beyond its expiry."""

Consumer = Callable[[Struct], None]


def _ignore(_: Send) -> None:
    pass


class Bus:
    """Celery's queues as Galaxy relies on them: no order, and any number of deliveries."""

    def __init__(self, world: World) -> None:
        self.sent = 0
        self.delivered = 0
        self.on_send: Callable[[Send], None] = _ignore
        """Called with every message that is sent, before it may get lost."""
        self.loses: Callable[[Send], bool] | None = None
        """Whether this message is lost, apart from the messages that the faults lose."""
        self._world = world
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
