"""A gate through which a worker consumes its queues only while its process is the leader."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any

from celery import bootsteps


class Gate:
    """Can be opened and closed from any thread; the worker's own loop applies it at once.

    ``closed`` is set while no queue is consumed.

    The loop may sleep in ``epoll`` for a second, so an eventfd wakes it. When the worker reconnects,
    the gate is applied to the new connection.
    """

    def __init__(self, *queues: str) -> None:
        self.queues = queues
        self.closed = threading.Event()
        self.closed.set()
        self._is_open = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def open(self) -> None:
        self._is_open = True
        self._notify()

    def close(self) -> None:
        self._is_open = False
        self._notify()

    def attach(self, consumer: Any, hub: Any) -> None:
        """Control ``consumer`` from now on; called in its loop's thread after every connect."""
        hub.add_reader(self._wake, self._apply, consumer)
        self._apply(consumer)

    def prepare(self, app: Any) -> None:
        """Make a worker of ``app`` start without consuming the queues."""
        app.amqp.queues.select(self.queues)
        app.amqp.queues.deselect(self.queues)

    def _notify(self) -> None:
        os.eventfd_write(self._wake, 1)

    def _apply(self, consumer: Any) -> None:
        with contextlib.suppress(BlockingIOError):  # No wake-up: the call came from ``attach``.
            os.eventfd_read(self._wake)
        for queue in self.queues:
            consuming = consumer.task_consumer.consuming_from(queue)
            if self._is_open and not consuming:
                self.closed.clear()
                consumer.add_task_queue(queue)
            elif consuming and not self._is_open:
                consumer.cancel_task_queue(queue)
        if not self._is_open:
            self.closed.set()


class GateStep(bootsteps.StartStopStep):
    """Attaches ``app.galaxy_gate``, if the app has one, to every new connection of the worker."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        gate = getattr(consumer.app, "galaxy_gate", None)
        if gate is not None:
            gate.attach(consumer, hub)
