"""Celery handlers: decode a message, pass it on, return. No decision is made here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

import msgspec
from celery.exceptions import Reject

from galaxy.driver.shell import LeaderShell
from galaxy.errors import BadMessage, GalaxyError, Unreachable
from galaxy.model.api.answers import Answer, problem_of
from galaxy.model.api.catalog import BODIES, bodies_of
from galaxy.model.api.request import Request
from galaxy.model.api.sessions import ExecSession, LogSession
from galaxy.model.api.strict import refuse_newlines, refuse_unknown
from galaxy.model.base import Struct, from_plain
from galaxy.model.messages import names
from galaxy.model.messages.container import ContainerOrders, GroupOrders, GroupStatuses
from galaxy.model.messages.pod import PodOrders
from galaxy.nexus.envelope import read
from galaxy.tasks.gate import Gate

N = TypeVar("N", bound=Struct)

YIELD_S: Final = 0.1
"""How long a handler waits for the gate to close when its process does not lead any more."""

log = logging.getLogger(__name__)


class RequestAnswerer(Protocol):
    """Answers requests from stored state, outside the leader's loop."""

    def answer(self, request: Request) -> Answer | None:
        """Return an answer, or None when the leader's loop answers the request."""


class OrderHandler(Protocol):
    """Takes the orders to an agent. Each method queues its order and returns."""

    def container_orders(self, orders: ContainerOrders) -> None: ...
    def pod_orders(self, orders: PodOrders) -> None: ...
    def log_session(self, session: LogSession) -> None: ...
    def exec_session(self, session: ExecSession) -> None: ...


def add_leader_handlers(app: Any, shell: LeaderShell, gate: Gate, kinds: dict[str, type[Struct]]) -> None:
    """Register a task for each of ``kinds`` that leaves its struct in the leader's inbox."""
    for name, kind in kinds.items():
        _add(app, name, kind, lambda event: _offer(shell, gate, event))


def add_request_handlers(
    app: Any, shell: LeaderShell, gate: Gate, answers: RequestAnswerer | None = None, *, role: str = ""
) -> None:
    """Register a task for every operation that leaders of ``role`` answer, by default the shell's role."""
    for op in bodies_of(role or shell.role):
        _add_request(app, op, shell, gate, answers)


def add_agent_handlers(app: Any, service: OrderHandler) -> None:
    """Register the tasks of an agent and of its AppWorkers."""
    _add(app, names.CONTAINER_APPLY, ContainerOrders, service.container_orders)
    _add(app, names.POD_DEPLOY, PodOrders, service.pod_orders)
    _add(app, names.LOG_SESSION, LogSession, service.log_session)
    _add(app, names.EXEC_SESSION, ExecSession, service.exec_session)


RESMAN_KINDS: Final[dict[str, type[Struct]]] = {
    names.GROUP_APPLY: GroupOrders,
}
APPMASTER_KINDS: Final[dict[str, type[Struct]]] = {
    names.GROUP_STATUS: GroupStatuses,
}


def _add(app: Any, name: str, kind: type[N], receive: Callable[[N], object]) -> None:
    def handle(*_: Any, v: Any = None, body: Any = None, **__: Any) -> None:
        try:
            struct = read(v, body, kind)
        except BadMessage as error:
            app.galaxy_dropped.count("bad-message", task=name, why=error.message)
            return
        receive(struct)

    app.task(handle, name=name)


def _add_request(app: Any, op: str, shell: LeaderShell, gate: Gate, answers: RequestAnswerer | None) -> None:
    def handle(task: Any, *_: Any, v: Any = None, body: Any = None, **__: Any) -> Answer | None:
        task_id, outcomes = str(task.request.id), app.galaxy_outcomes
        try:
            request = read_request(op, v, body)
        except BadMessage as error:
            app.galaxy_dropped.count("bad-message", task=op, why=error.message)
            outcomes.returned(task_id, "", problem_of(error))
            return Answer(key=task_id, problem=problem_of(error))
        outcomes.await_answer(task_id, request.reply)
        try:
            answer = _answer(shell, gate, request, answers)
        except BaseException:
            outcomes.returned(task_id, request.reply, None)
            raise
        if answer is not None:
            outcomes.returned(task_id, request.reply, answer.problem)
        return answer

    app.task(handle, name=op, bind=True, ignore_result=False)


def _answer(
    shell: LeaderShell, gate: Gate, request: Request, answers: RequestAnswerer | None
) -> Answer | None:
    """Return an answer, or None once the request is in the leader's inbox."""
    try:
        answer = answers.answer(request) if answers is not None and shell.leading else None
    except GalaxyError as error:
        return Answer(key=request.key, problem=problem_of(error))
    if answer is None and not _offer(shell, gate, request):
        return Answer(key=request.key, problem=problem_of(_BUSY))
    return answer


def read_request(op: str, v: Any, body: Any) -> Request:
    """Return the request with its body as the struct of ``op``.

    Raises:
        BadMessage: another version, another operation, or not what ``op`` takes.
    """
    request = read(v, body, Request)
    if request.op != op:
        raise BadMessage(f"a request for {request.op[:80]!r} came as task {op!r}")
    kind = BODIES[op]
    plain = {} if request.body is None else request.body
    struct = from_plain(plain, kind)
    refuse_unknown(plain, kind)
    refuse_newlines(plain, kind)
    return msgspec.structs.replace(request, body=struct)


def _offer(shell: LeaderShell, gate: Gate, event: Struct) -> bool:
    """Put ``event`` into the leader's inbox; return False when that is full.

    Raises:
        Reject: with requeue: this process does not lead, and is about to stop consuming the queue.
    """
    if shell.offer(event):
        return True
    if shell.leading:
        log.warning("event=inbox.full role=%s dropped=%d", shell.role, shell.inbox.dropped)
        return False
    gate.closed.wait(YIELD_S)
    raise Reject("not leading", requeue=True)


_BUSY: Final = Unreachable("the leader's inbox is full", hint="try again in a while")
