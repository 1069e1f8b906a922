"""The one shape of every Celery message of ours: ``v``, and a noun as JSON text.

The noun travels as *text* inside the message's JSON: Celery's decoder, which gives meaning to
keys like ``__type__``, never looks inside, and ours is strict and typed. What a task is called
says which noun it carries.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from galaxy.model.api.request import Request
from galaxy.model.base import WIRE_VERSION, Struct, check_wire, decode, encode, from_plain
from galaxy.model.step import Send

N = TypeVar("N", bound=Struct)

CONTENT_TYPE: Final = "application/json"
CONTENT_ENCODING: Final = "utf-8"


def envelope(send: Send, *, now: datetime, origin: str) -> tuple[dict[str, Any], dict[str, str], bytes]:
    """Return headers, properties and body of ``send`` as a task message of Celery's protocol 2.

    ``argsrepr`` is a word about the size: payloads hold users' environments, and what is in
    ``argsrepr`` is seen by everybody who sees Flower.
    """
    text = encode(send.body).decode()
    body = encode([[], {"v": WIRE_VERSION, "body": text}, _EMBED])
    headers: dict[str, Any] = {
        "lang": "py",
        "task": send.task,
        "id": send.id,
        "shadow": None,
        "eta": None,
        "expires": (now + timedelta(seconds=send.expires_s)).isoformat(),
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": send.id,
        "parent_id": None,
        "argsrepr": "()",
        "kwargsrepr": f"<{type(send.body).__name__}, {len(text)} bytes>",
        "origin": origin,
        "ignore_result": not isinstance(send.body, Request),
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
    reply_to = send.body.reply if isinstance(send.body, Request) else ""
    return headers, {"correlation_id": send.id, "reply_to": reply_to}, body


def read(v: Any, body: Any, kind: type[N]) -> N:
    """Return the noun of a message; ``body`` is JSON text, or plain values sent by hand.

    Raises:
        BadMessage: another version, or not a ``kind``.
    """
    check_wire(v)
    if isinstance(body, str):
        return decode(body, kind)
    return from_plain(body, kind)


def utc_now() -> datetime:
    """Return the time as headers carry it."""
    return datetime.now(UTC)


_EMBED: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
