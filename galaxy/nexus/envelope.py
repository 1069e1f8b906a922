"""The format of every Celery message that Galaxy sends: writing one, and reading its call.

A message is one item of a Redis list. It is JSON in the layout of kombu's Redis transport and of
Celery's protocol 2, with the struct as plain JSON inside:

    {"body": [[], {"v": 3, "body": STRUCT}, {}], "content-type": "application/json",
     "headers": {"task": ..., "id": ..., "expires": ...}, "properties": {"delivery_tag": ..., ...}}

Celery's own clients put the body there as JSON text in base64; that is read too (``tasks.incoming``).
The task name determines which struct it carries.

Invariant: kombu's decoder, which interprets keys like ``__type__``, never decodes a body. The
worker's transport reads items with msgspec, and bodies have a content type of their own
(``CALL_TYPE``), whose decoder is ``decode_call``.

``bench/messages.py``, Redis 7.0, CPU per message, before with base64 and kombu's producer and decoder:
an order of 499 bytes is a message of 953 bytes (before: 1631), publishing it takes 13 us (43), receiving
it 590 us (670), nearly all of that kombu's round trips.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec

from galaxy.errors import BadMessage
from galaxy.model.api.request import Request
from galaxy.model.base import WIRE_VERSION, Struct, check_wire, decode, encode
from galaxy.model.messages.names import queue_of
from galaxy.model.step import Send

N = TypeVar("N", bound=Struct)

CONTENT_TYPE: Final = "application/json"
CONTENT_ENCODING: Final = "utf-8"
CALL_TYPE: Final = "application/x-galaxy-call"
"""Content type that a worker gives to the body of a message, so that only ``decode_call`` reads it."""


def celery_message(send: Send, *, now: datetime, origin: str) -> tuple[str, bytes]:
    """Return the Redis list that ``send`` goes to, and the item to push to it.

    ``kwargsrepr`` has only the name and size of the struct: payloads hold users' environments, and Flower
    shows ``kwargsrepr`` to all its users.

    Raises:
        TypeError, ValueError: the struct cannot be encoded.
    """
    body = encode(send.body)
    queue = queue_of(send.task, send.queue)
    is_request = isinstance(send.body, Request)
    item = {
        "body": ((), {"v": WIRE_VERSION, "body": msgspec.Raw(body)}, {}),
        "content-type": CONTENT_TYPE,
        "content-encoding": CONTENT_ENCODING,
        "headers": {
            "lang": "py",
            "task": send.task,
            "id": send.id,
            "expires": (now + timedelta(seconds=send.expires_s)).isoformat(),
            "kwargsrepr": f"<{type(send.body).__name__}, {len(body)} bytes>",
            "origin": origin,
            "ignore_result": not is_request,
        },
        "properties": {
            "correlation_id": send.id,
            "reply_to": send.body.reply if is_request else "",
            "delivery_tag": secrets.token_hex(16),
            "delivery_info": {"exchange": "", "routing_key": queue},
        },
    }
    return queue, encode(item)


class Payload:
    """The JSON of a struct inside a call. Celery's remote control shows its size, never its text."""

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"<{len(self.text)} bytes>"

    def __json__(self) -> str:
        """Return what kombu's encoder writes in its place, for ``inspect active`` and Flower."""
        return repr(self)


Call = tuple[list[Any], dict[str, Any], dict[str, Any]]
"""Positional arguments, named arguments and embedded signatures of a Celery message."""


def decode_call(data: bytes | str) -> Call:
    """Read a message's body, leaving the argument ``body`` as a ``Payload``.

    Raises:
        msgspec.DecodeError, RecursionError: it is not a call.
    """
    positional, named, embedded = msgspec.json.decode(data, type=_RawCall)
    arguments: dict[str, Any] = {
        name: msgspec.json.decode(raw) for name, raw in named.items() if name != "body"
    }
    if "body" in named:
        arguments["body"] = Payload(bytes(named["body"]))
    return positional, arguments, embedded or {}


def read(v: Any, body: Any, kind: type[N]) -> N:
    """Return the struct of a message from the arguments of its call.

    Raises:
        BadMessage: another version, no ``Payload``, or not the JSON of a ``kind``.
    """
    check_wire(v)
    if not isinstance(body, Payload):
        raise BadMessage(f"no {kind.__name__}: the call has no body")
    return decode(body.text, kind)


def utc_now() -> datetime:
    """Return the time as headers carry it."""
    return datetime.now(UTC)


_RawCall = tuple[list[Any], dict[str, msgspec.Raw], dict[str, Any] | None]
