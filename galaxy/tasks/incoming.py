"""Validates the items of a worker's queues: only what Galaxy itself sends becomes a message.

Every login that may write to a queue can put anything there. A Celery message can ask for more than its
task: to run later, to send other messages when it succeeds or fails, to be killed after a time limit.
Galaxy uses none of these, so an item that does is foreign or a mistake, and is dropped. Items that would
fail later, in kombu's event loop or in Celery's pool, are dropped here too, before they count as delivered.

A message is built from the fields named here only. So no other header reaches kombu's decoder when an
unacknowledged message is restored.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Any, Final

import msgspec

from galaxy.model.base import MESSAGE_BYTES_MAX
from galaxy.model.messages.names import is_wrong_queue
from galaxy.nexus.envelope import CALL_TYPE, CONTENT_ENCODING, CONTENT_TYPE, Payload, decode_call, utc_now
from galaxy.tasks.subjects import subjects_of

ITEM_BYTES_MAX: Final = MESSAGE_BYTES_MAX * 3 // 2
"""Longest item; base64 encodes three bytes as four."""
ID_CHARS_MAX: Final = 400
CLOCK_SKEW_S: Final = 300.0
"""An item is expired only if it is this late, because hosts' clocks differ. A late order does no harm."""


class UnacceptableItem(Exception):
    """An item that is dropped; ``cause`` is a short code for counters, ``facts`` go to the log."""

    def __init__(self, cause: str, why: object, **facts: object) -> None:
        super().__init__(f"{cause}: {why}")
        self.cause = cause
        self.facts = {**facts, "why": why}


def parse_item(data: bytes, queue: str) -> dict[str, Any]:
    """Return an item of the list ``queue`` as the message that kombu's transport delivers.

    Its body is JSON text of type ``CALL_TYPE``. ``delivery_info`` names the queue that it came from, not
    the one in the item: a message is put back there with the rights of this process.

    Raises:
        UnacceptableItem: it is malformed, foreign, too long or expired.
    """
    if len(data) > ITEM_BYTES_MAX:
        raise UnacceptableItem("not-a-message", f"{len(data)} bytes", queue=queue)
    try:
        item = msgspec.json.decode(data, type=_Item)
    except msgspec.ValidationError as error:
        raise UnacceptableItem("not-a-message", error, queue=queue) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UnacceptableItem("not-json", error, queue=queue) from error
    headers = item.headers
    facts = {"queue": queue, "task": headers.task, "id": headers.id}
    if is_wrong_queue(headers.task, queue):
        raise UnacceptableItem("wrong-queue", "this task comes by another queue", **facts)
    if not 0 < len(headers.id) <= ID_CHARS_MAX or not item.properties.delivery_tag:
        raise UnacceptableItem("malformed", "no id or no delivery tag", **facts)
    if item.content_type not in (CONTENT_TYPE, CALL_TYPE) or item.content_encoding != CONTENT_ENCODING:
        raise UnacceptableItem("foreign", f"{item.content_type}, {item.content_encoding}", **facts)
    for name in ("eta", "group", "shadow", "compression"):
        if getattr(headers, name):
            raise UnacceptableItem("foreign", f"asks for {name}", **facts)
    if late := _lateness(headers.expires):
        raise UnacceptableItem("expired", late, **facts)
    text, subjects = _body(item, facts)
    return {
        "body": text,
        "content-type": CALL_TYPE,
        "content-encoding": CONTENT_ENCODING,
        "headers": {
            "lang": "py",
            "task": headers.task,
            "id": headers.id,
            "root_id": headers.id,
            "parent_id": None,
            "retries": 0,
            "timelimit": [None, None],
            "argsrepr": subjects,
            "kwargsrepr": headers.kwargsrepr[:100],
            "origin": headers.origin[:100],
            "ignore_result": headers.ignore_result,
        },
        "properties": {
            "correlation_id": headers.id,
            "reply_to": item.properties.reply_to or "",
            "delivery_tag": item.properties.delivery_tag,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
        },
    }


class _Headers(msgspec.Struct):
    task: str
    id: str
    expires: str | None = None
    eta: Any = None
    group: Any = None
    shadow: Any = None
    compression: Any = None
    kwargsrepr: str = ""
    origin: str = ""
    ignore_result: bool = True


class _Properties(msgspec.Struct):
    delivery_tag: str
    reply_to: str | None = None
    body_encoding: str | None = None


class _Item(msgspec.Struct):
    body: msgspec.Raw
    headers: _Headers
    properties: _Properties
    content_type: str = msgspec.field(name="content-type")
    content_encoding: str = msgspec.field(name="content-encoding")


def _body(item: _Item, facts: dict[str, Any]) -> tuple[str, str]:
    """Return the body's text, a call that asks for nothing but its task, and the names in it for Flower."""
    try:
        raw = bytes(item.body)
        text = raw.decode()
        if raw.startswith(b'"'):
            text = msgspec.json.decode(raw, type=str)
            if item.properties.body_encoding == "base64":
                text = base64.b64decode(text).decode()
        positional, named, embedded = decode_call(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError, binascii.Error, ValueError) as error:
        # Not the error's repr: it may quote the whole body.
        raise UnacceptableItem("malformed", f"{type(error).__name__}: {error}", **facts) from error
    if any(embedded.values()):
        raise UnacceptableItem("foreign", "asks for callbacks or a chain", **facts)
    if positional or named.keys() - {"v", "body"}:
        raise UnacceptableItem("foreign", "has arguments other than v and body", **facts)
    payload = named.get("body")
    return text, subjects_of(item.headers.task, payload.text) if isinstance(payload, Payload) else "()"


def _lateness(expires: str | None) -> str:
    if expires is None:
        return ""
    try:
        late_s = (utc_now() - datetime.fromisoformat(expires)).total_seconds()
    except (TypeError, ValueError):
        return f"expires {expires[:60]!r} is not a time with a zone"
    return f"{late_s:.1f} s late by this host's clock" if late_s > CLOCK_SKEW_S else ""
