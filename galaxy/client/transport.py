"""Requests to leaders: a Celery task message in the leader's queue, the answer in a separate list.

The message is the one that Celery would send (protocol 2, JSON, Redis transport), but built by
hand, because importing Celery takes longer than a whole request. A request without an answer is
sent again under the same idempotency key. So a lost message or a new leader costs a second, and
no change is made twice.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar, cast

import msgspec
import redis

from galaxy.errors import BadMessage, GalaxyError, Unreachable, UsageError
from galaxy.model.api.answers import Answer, error_of
from galaxy.model.api.body import Body
from galaxy.model.api.request import KEY_CHARS_MAX, Request
from galaxy.model.api.signing import proof_of, split_token
from galaxy.model.base import MESSAGE_BYTES_MAX, Struct, decode, encode, from_plain, to_plain
from galaxy.model.messages.names import PARTS
from galaxy.model.raw_text import shown
from galaxy.model.step import Send
from galaxy.nexus import Nexus, keys
from galaxy.nexus.connection import BLOCK_S, reaching
from galaxy.nexus.envelope import celery_message, utc_now
from galaxy.nexus.session import Session
from galaxy.nexus.url import parse
from galaxy.statemachine.backoff import Backoff
from galaxy.units import format_bytes, format_duration

R = TypeVar("R", bound=Struct)
T = TypeVar("T")

RESEND_S: Final = 1.0
"""Wait before a request is sent again the first time; the wait doubles up to ``RESEND_S_MAX``."""
RESEND_S_MAX: Final = 4.0
DEAD_S: Final = 2.0
"""A Redis that refuses the first connection for this long is reported as unreachable. With Sentinels
the wait is as long as for an answer, because they may be promoting another server."""
AWAY_S: Final = 0.1
"""Wait before the next try while Redis is away; it doubles up to ``AWAY_S_MAX``."""
AWAY_S_MAX: Final = 1.0


class RequestTransport:
    """A connection to one cluster; threads may share it."""

    def __init__(self, url: str, *, user: str, timeout_s: float, token: str = "") -> None:
        """Connect. Requests are signed with ``token`` (``USER:SECRET``) where there is one.

        Raises:
            UsageError: ``token`` is malformed. Refused: wrong password.
            Unreachable: no answer within ``timeout_s``.
        """
        self._user, self._secret = split_token(token) if token else (user, "")
        self._name = f"client@{socket.gethostname()}/{os.getpid()}"
        retry_s = timeout_s if parse(url).master else min(timeout_s, DEAD_S)
        self.nexus = retry_while_away(
            lambda: Nexus.connect(url, name=self._name, timeout_s=timeout_s), retry_s
        )
        self.address = self.nexus.address

    def close(self) -> None:
        """Close every connection."""
        self.nexus.close()

    def ask(self, body: Body[R], *, key: str, timeout_s: float) -> R:
        """Return the leader's answer to ``body``; ``key`` makes repetitions harmless.

        If Redis is away for less than ``timeout_s``, during a restart for example, it waits for Redis.

        Raises:
            GalaxyError: the leader's answer is an error.
            Unreachable: no answer within ``timeout_s``; the details say whether the request may still be
                carried out.
        """
        if len(key) > KEY_CHARS_MAX:
            raise UsageError(
                f"the idempotency key is too long: {len(key):,} characters; {KEY_CHARS_MAX} are allowed"
            )
        body = as_read(body)
        end_s = time.monotonic() + timeout_s
        reply = secrets.token_hex(12)
        sent: list[bytes] = []
        resend, away = Backoff(RESEND_S, RESEND_S_MAX), Backoff(AWAY_S, AWAY_S_MAX)
        resend_s = resend.next_s()
        trouble: Unreachable | None = None
        while (left_s := end_s - time.monotonic()) > 0:
            try:
                answer = self._attempt(body, key, reply, sent, left_s, resend_s)
            except Unreachable as error:
                trouble, left_s = error, end_s - time.monotonic()
                if left_s <= 0:
                    break
                time.sleep(min(away.next_s(), left_s))  # There is no event to wait for while Redis is away.
                continue
            trouble = None
            if answer is not None:
                # Copies of the request that are still in the queue need no answer.
                if len(sent) > 1:
                    self._withdraw(body.answered_by, sent[1:])
                return self._result(decode(answer, Answer), body)
            resend_s = resend.next_s()
            away.reset()
        if trouble is not None:
            # This error is closer to the cause than a missing answer.
            raise _maybe_carried_out(trouble, body.op) if sent else trouble
        raise self._no_answer(body, sent, timeout_s)

    def _attempt(
        self, body: Body[Any], key: str, reply: str, sent: list[bytes], left_s: float, wait_s: float
    ) -> bytes | None:
        """Send the request again, append it to ``sent``, and wait ``wait_s`` for an answer to any copy."""
        payload = self._message(body, key, reply, left_s)
        sent.append(payload)
        with reaching(self.address):
            try:
                self.nexus.client.lpush(body.answered_by, payload)
            except redis.ResponseError:
                sent.remove(payload)  # Redis refused the message, so it is not in the queue.
                raise
        return self.nexus.await_reply(reply, min(wait_s, left_s))

    def session(self, session_id: str) -> Session:
        """Return the client's end of a session."""
        return self.nexus.session(session_id)

    def newest_event(self, job: str) -> str:
        """Return the id of the newest trace event about ``job``, to wait for later ones."""
        with reaching(self.address):
            found: Any = self.nexus.client.xrevrange(keys.trace_of(job), count=1)
        return found[0][0].decode() if found else "0"

    def await_event(self, job: str, mark: str, timeout_s: float) -> str:
        """Wait for an event about ``job`` after id ``mark``; return its id, or ``mark`` on a timeout."""
        block_ms = max(1, int(min(timeout_s, BLOCK_S) * 1000))
        with reaching(self.address):
            found: Any = self.nexus.client.xread({keys.trace_of(job): mark}, block=block_ms)
        return found[0][1][-1][0].decode() if found else mark

    def _message(self, body: Body[Any], key: str, reply: str, left_s: float) -> bytes:
        with reaching(self.address):
            seconds, microseconds = self.nexus.client.time()
        deadline_s = seconds + microseconds / 1e6 + left_s
        request = Request(
            op=body.op, key=key, reply=reply, deadline_s=deadline_s, user=self._user, body=body,
            at_s=deadline_s - left_s, nonce=secrets.token_hex(12),
        )  # fmt: skip
        if self._secret:
            request = msgspec.structs.replace(request, proof=proof_of(request, self._secret))
        send = Send(
            queue=body.answered_by, task=body.op, body=request, id=f"{body.op}:{key}", expires_s=left_s
        )
        _, payload = celery_message(send, now=utc_now(), origin=self._name)
        if len(payload) > MESSAGE_BYTES_MAX:
            raise _too_long(body, len(payload))
        return payload

    def _result(self, answer: Answer, body: Body[R]) -> R:
        problem = answer.problem
        if problem is not None:
            raise error_of(problem)
        result: type[R] = body.result
        return from_plain(answer.result, result)

    def _withdraw(self, queue: str, sent: list[bytes]) -> int:
        """Remove the messages of ``sent`` that are still in ``queue``; return how many there were."""
        count = 0
        with contextlib.suppress(GalaxyError), reaching(self.address):
            for payload in sent:
                count += self.nexus.client.lrem(queue, 1, cast(Any, payload))
        return count

    def _no_answer(self, body: Body[Any], sent: list[bytes], timeout_s: float) -> Unreachable:
        waited = format_duration(timeout_s)
        untouched = self._withdraw(body.answered_by, sent) == len(sent)
        done = "nothing was done" if untouched else "the request may still be carried out"
        leader = PARTS[body.answered_by]
        if self.nexus.leader(body.answered_by) is None:
            return Unreachable(
                f"no {leader} leads the cluster at {self.address}",
                details=[f"waited {waited} for {body.op}; {done}"],
                hint=f"galaxy status, and the log of the {body.answered_by} process",
            )
        return Unreachable(
            f"no answer from {leader} within {waited}", details=[f"{body.op}: {done}"], hint="galaxy status"
        )


def as_read(body: Body[R]) -> Body[R]:
    """Return ``body`` as a leader reads it, with 1.0 where a float field was given 1: this is what is signed.

    Raises:
        UsageError: a leader cannot read it, so it would drop it, and no answer would come; names the field.
    """
    try:
        data = encode(body)
        read = msgspec.json.decode(data, type=type(body))
        if b"\\n" in data:
            from galaxy.model.api.strict import (
                refuse_newlines,
            )  # It takes longer to import than most requests.

            refuse_newlines(to_plain(body), type(body))
        return read
    except UnicodeEncodeError as error:
        raise UsageError(f'"{shown(error.object[:200])}" is not text in UTF-8') from error
    except BadMessage as error:
        raise UsageError(error.message) from error
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        choices = re.search(r"regex '\^\(([a-z|-]+)\)\$'", what)
        what = f"is one of {choices[1].replace('|', ', ')}" if choices else what
        raise UsageError(f"`{where.removesuffix('`')}` of {body.op}: {what}") from error


def _too_long(body: Body[Any], size: int) -> UsageError:
    sizes = {name: len(encode(getattr(body, name))) for name in body.__struct_fields__}
    longest = max(sizes, key=lambda name: sizes[name], default="")
    return UsageError(
        f"{body.op} is too long to send: {format_bytes(size)}, {format_bytes(MESSAGE_BYTES_MAX)} are allowed",
        details=[f"its longest field is `{longest}`, with {format_bytes(sizes[longest])}"] if longest else [],
    )


def _maybe_carried_out(trouble: Unreachable, op: str) -> Unreachable:
    doubt = f"{op}: the request may still be carried out"
    return Unreachable(trouble.message, details=[*trouble.details, doubt], hint=trouble.hint)


def retry_while_away(ask: Callable[[], T], timeout_s: float) -> T:
    """Return what ``ask`` returns; call it again with back-off while Redis is away.

    Raises:
        Unreachable: it was away for ``timeout_s``.
    """
    end_s = time.monotonic() + timeout_s
    away = Backoff(AWAY_S, AWAY_S_MAX)
    while True:
        try:
            return ask()
        except Unreachable:
            if (left_s := end_s - time.monotonic()) <= 0:
                raise
            time.sleep(min(away.next_s(), left_s))  # There is no event to wait for while Redis is away.


def seconds_left(end_s: float | None) -> Iterator[float]:
    """Yield the seconds left until ``end_s`` (monotonic clock; None means no end) until none are left."""
    while True:
        left_s = float("inf") if end_s is None else end_s - time.monotonic()
        if left_s <= 0:
            return
        yield left_s
