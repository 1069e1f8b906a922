"""Queues that lose, double, delay and reorder what is put into them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from galaxy.model.base import Struct, decode, encode
from galaxy.model.step import Send
from galaxy.testing.simulation.world import World

WAITING_MAX: Final = 10_000
"""Messages that wait in one queue without a consumer; beyond it the oldest go."""
CLOCKS_S: Final = 300.0
"""How far the clocks of hosts may differ: no message is dropped for its age before that."""

Consumer = Callable[[Struct], None]


class Bus:
    """Celery's queues, as far as Galaxy relies on them: at most hopefully once, in no order."""

    def __init__(self, world: World) -> None:
        self.sent = 0
        self.delivered = 0
        self._world = world
        self._consumers: dict[str, Consumer] = {}
        self._waiting: dict[str, deque[tuple[float, bytes, type[Any]]]] = {}

    def consume(self, queue: str, consumer: Consumer) -> None:
        """Deliver ``queue`` to ``consumer`` from now on, beginning with what waits in it."""
        self._consumers[queue] = consumer
        self._world.after(0.0, lambda: self._drain(queue))

    def cancel(self, queue: str, consumer: Consumer) -> None:
        """Have ``consumer`` get no more, unless another one has taken its place already."""
        if self._consumers.get(queue) == consumer:
            del self._consumers[queue]

    def send(self, send: Send) -> None:
        """Put a message under way: through JSON, as in life."""
        faults = self._world.faults
        self.sent += 1
        if self._world.strikes("lose"):
            self._world.tell(f"bus loses {send.task} to {send.queue}")
            return
        copies = 2 if self._world.strikes("double") else 1
        packed = encode(send.body)
        expires_s = self._world.now_s + send.expires_s + CLOCKS_S
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
