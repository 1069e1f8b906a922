"""From a request to its answer: authenticated, authorised, carried out once, audited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from galaxy.errors import GalaxyError, KeyConflict, Unreachable, UsageError
from galaxy.model.api.answers import Answer, Reply, problem_of
from galaxy.model.api.request import Request, content_digest
from galaxy.model.base import decode, encode
from galaxy.model.redaction import without_credentials
from galaxy.model.stored.answer import AnswerRecord
from galaxy.model.stored.user import AuditRecord
from galaxy.operations.authn import Users, authenticate
from galaxy.operations.authz import is_operator
from galaxy.operations.declaration import Caller, Change, Operation
from galaxy.operations.records import RequestRecords

S = TypeVar("S")

KEY_SHOWN_MAX: Final = 80
TARGET_MAX: Final = 200
"""Longest key in a message, and longest target that is kept with an answer, in characters."""
MESSAGE_MAX: Final = 400
"""Longest message of an error in the audit trail, in characters."""
_FULL: Final = Unreachable(
    "the leader cannot keep more answers: it made too many changes within the last minutes",
    hint="try again in a while",
)


def handle(
    operations: Mapping[str, Operation[S]],
    state: S,
    request: Request,
    *,
    records: RequestRecords,
    users: Users,
    required: bool,
    now_s: float,
) -> None:
    """Carry out ``request`` on ``state`` and leave the answer in ``records.replies``.

    A change whose idempotency key is known is not made again: it gets its first answer if it is the same
    request, and a KeyConflict if it is another one. A request whose nonce was used before gets no answer: it
    is a copy of a request that was answered. ``users`` and ``required`` are as in ``authenticate``.
    """
    operation = operations.get(request.op)
    if operation is None or not isinstance(request.body, operation.body):
        problem = UsageError(f'this leader has no operation "{request.op}" with such a body')
        records.reply(request, problem=problem)
        return
    try:
        ttl_s = records.config.signature_ttl_s
        user = authenticate(users, request, required=required, now_s=now_s, ttl_s=ttl_s)
        if user is not None and not records.nonces.is_new(user.user, request.nonce, now_s):
            return
        caller = Caller(name=request.user, user=user, key=request.key, nonce=request.nonce)
        if not isinstance(operation, Change):
            records.reply(request, result=authorised(operation, state, request.body, caller))
            return
    except GalaxyError as error:
        records.reply(request, problem=error)
        return
    _change_once(operations, operation, state, request, caller, records=records, users=users, now_s=now_s)


def authorised(operation: Operation[S], state: S, body: Any, caller: Caller) -> Any:
    """Return the result of ``operation`` for a caller who may call it.

    Raises:
        Refused: the caller may not call it. GalaxyError: from the operation.
    """
    if not is_operator(caller.user):
        operation.authority.require(state, body, caller)
    return operation.run(state, body, caller)


def _change_once(
    operations: Mapping[str, Operation[S]],
    operation: Change[S, Any],
    state: S,
    request: Request,
    caller: Caller,
    *,
    records: RequestRecords,
    users: Users,
    now_s: float,
) -> None:
    user = caller.user
    target = operation.target(request.body, caller)[:TARGET_MAX]
    digest = content_digest(request.key, request.body)
    first = records.answers.get(request.key)
    if first is not None:
        if user is not None and first.user != user.user:
            records.reply(request, problem=KeyConflict("this idempotency key is another user's"))
        elif first.digest != digest:
            taken_by, asked = _named(first.op, first.target), _named(request.op, target)
            records.reply(request, problem=key_conflict(request.key, taken_by, asked))
        else:
            _repeat(operations, request, first, records)
        return
    if now_s > request.deadline_s + records.config.request_late_s_max:
        return  # The client has stopped waiting, and the first answer to this key may have been dropped.
    if user is not None and records.is_full(now_s):
        records.reply(request, problem=_FULL)
        return
    answer = AnswerRecord(
        key=request.key, op=request.op, at_s=now_s, user=request.user, target=target, digest=digest
    )
    problem: GalaxyError | None = None
    result = None
    try:
        result = authorised(operation, state, request.body, caller)
        answer = msgspec.structs.replace(answer, result=msgspec.Raw(encode(result)))
    except GalaxyError as error:
        problem = error
        answer = msgspec.structs.replace(answer, problem=problem_of(error))
    if user is not None:  # Without users nothing proves who sent a request, so there is nothing to audit.
        records.record(
            AuditRecord(
                serial=0,
                at_s=now_s,
                user=user.user,
                op=request.op,
                target=without_credentials(target),
                result="ok" if problem is None else problem.kind,
                message="" if answer.problem is None else answer.problem.message[:MESSAGE_MAX],
            )
        )
        if users.get(user.user) is None:
            # A user who removed themselves: a later user of that name must not get this answer.
            answer = msgspec.structs.replace(answer, user="")
    records.put_answer(answer, now_s=now_s, signed=user is not None)
    records.reply(request, result=result, problem=problem)


def key_conflict(key: str, first: str, asked: str) -> KeyConflict:
    """Return the error for an idempotency key that an earlier request, ``first``, has used already."""
    other = "the same with other content" if first == asked else asked
    return KeyConflict(
        f'idempotency key "{key[:KEY_SHOWN_MAX]}" belongs to another request',
        details=[f"it was used for {first}; this request is {other}, and nothing was done"],
        hint="repeat the first request unchanged, or choose another key",
    )


def _named(op: str, target: str) -> str:
    """Return a request as people call it: ``job.submit of "web"``."""
    return f'{op.removeprefix("galaxy.")} of "{target}"'


def _repeat(
    operations: Mapping[str, Operation[S]], request: Request, first: AnswerRecord, records: RequestRecords
) -> None:
    """Give ``request`` the first answer to its key."""
    result: Any = None
    if first.problem is None:
        operation = operations.get(first.op)
        result = decode(bytes(first.result), operation.body.result) if operation else first.result
    records.replies.append(
        Reply(reply=request.reply, answer=Answer(key=request.key, result=result, problem=first.problem))
    )
