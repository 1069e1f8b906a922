"""Tells Flower how requests end: a refused one is a task that failed, with the reason as its exception.

A handler returns as soon as a request is in the leader's inbox. The Celery task has not ended then: it
succeeds or fails when the leader answers. So the worker sends no event for the return of such a handler,
and an event for the answer instead.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from celery import bootsteps
from celery.worker.request import Request as CeleryRequest

from galaxy.model.api.answers import Problem, Reply

AWAITED_MAX: Final = 10_000
"""Requests whose answer is awaited. When there are more, the oldest stay ``STARTED`` in Flower."""
EVENTS_MAX: Final = 10_000
"""Events that wait to be sent. When there are more, they are dropped."""
REASON_MAX: Final = 400

SendEvent = Callable[..., object]
"""Celery's ``EventDispatcher.send``: type of the event, then its fields."""

log = logging.getLogger(__name__)


class Outcomes:
    """The requests that a worker has taken, until they are answered. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._awaited: OrderedDict[str, tuple[str, float]] = OrderedDict()
        """By the id of the client's list: the task, and when it was taken."""
        self._deferred: OrderedDict[str, int] = OrderedDict()
        """By task, how many of its handlers have not returned; a client may repeat a request."""
        self._problems: dict[str, Problem] = {}
        """Tasks that their handler has answered with a problem, until it has returned."""
        self._events: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue(EVENTS_MAX)
        self._send: SendEvent | None = None
        self._thread: threading.Thread | None = None

    def attach(self, send: SendEvent) -> None:
        """Send events with ``send`` from now on; called after every connect of the worker."""
        self._send = send
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="request-events", daemon=True)
            self._thread.start()

    def await_answer(self, task_id: str, reply: str) -> None:
        """Expect the leader's answer to a request; call it before the leader gets the request."""
        with self._lock:
            self._awaited[reply] = task_id, time.monotonic()
            self._deferred[task_id] = self._deferred.get(task_id, 0) + 1
            while len(self._awaited) > AWAITED_MAX:
                self._awaited.popitem(last=False)
            while len(self._deferred) > AWAITED_MAX:
                self._deferred.popitem(last=False)

    def returned(self, task_id: str, reply: str, problem: Problem | None) -> None:
        """Note that the handler of a request answers it itself."""
        with self._lock:
            self._awaited.pop(reply, None)
            self._end_handler(task_id)
            if problem is not None:
                self._problems[task_id] = problem

    def answered(self, replies: Sequence[Reply]) -> None:
        """Send an event for each request that the leader has answered."""
        for reply in replies:
            with self._lock:
                task_id, since_s = self._awaited.pop(reply.reply, ("", 0.0))
            if task_id:
                kind, fields = _event(reply.answer.problem)
                self._put(kind, {"uuid": task_id, "runtime": time.monotonic() - since_s, **fields})

    def on_return(self, task_id: str) -> tuple[str, dict[str, Any]] | None:
        """Return the event for the return of a handler, or None while the answer is awaited."""
        with self._lock:
            if self._end_handler(task_id):
                return None
            return _event(self._problems.pop(task_id, None))

    def _end_handler(self, task_id: str) -> bool:
        """Count a handler as returned; return whether it had left its answer to the leader."""
        count = self._deferred.pop(task_id, 0)
        if count > 1:
            self._deferred[task_id] = count - 1
        return count > 0

    def _put(self, kind: str, fields: dict[str, Any]) -> None:
        try:
            self._events.put_nowait((kind, fields))
        except queue.Full:
            log.warning("event=outcome.dropped type=%s", kind)

    def _run(self) -> None:
        while True:
            kind, fields = self._events.get()
            try:
                if self._send is not None:
                    self._send(kind, **fields)
            except Exception as error:  # noqa: BLE001 - whatever the broker raises, the next one may be sent
                log.warning("event=outcome.unsent type=%s cause=%r", kind, str(error))


class OutcomesStep(bootsteps.StartStopStep):
    """Attaches ``app.galaxy_outcomes`` to the events of every new connection of the worker."""

    requires = ("celery.worker.consumer.events:Events",)

    def start(self, consumer: Any) -> None:
        consumer.app.galaxy_outcomes.attach(consumer.event_dispatcher.send)


class OutcomeRequest(CeleryRequest):
    """Celery's record of a task that is being handled; its end is announced as ``Outcomes`` says."""

    def send_event(self, type: str, **fields: Any) -> None:
        if type == "task-succeeded":
            event = self.task.app.galaxy_outcomes.on_return(self.id)
            if event is None:
                return
            type, fields = event[0], {"runtime": fields.get("runtime"), **event[1]}
        super().send_event(type, **fields)


def _event(problem: Problem | None) -> tuple[str, dict[str, Any]]:
    if problem is None:
        return "task-succeeded", {"result": "'done'"}
    reason = f"{problem.kind}: {problem.message}"[:REASON_MAX]
    return "task-failed", {"exception": reason, "traceback": ""}
