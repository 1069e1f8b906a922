"""Queue items that no part of Galaxy sends. None may reach a handler or stop a worker."""

from __future__ import annotations

import base64
import json
import pickle
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from galaxy.model.base import WIRE_VERSION

EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def celery_item(
    call: Any, *, queue: str, headers: Any = None, raw: bytes | None = None, **replaced: Any
) -> bytes:
    """Return an item as Celery's own clients push it: the body is text in base64."""
    data = json.dumps(call).encode() if raw is None else raw
    return galaxy_item(
        None,
        queue=queue,
        headers=headers,
        **{"body": base64.b64encode(data).decode(), "properties": _properties(queue, "base64"), **replaced},
    )


def galaxy_item(call: Any, *, queue: str, headers: Any = None, **replaced: Any) -> bytes:
    """Return an item as Galaxy pushes it: the body is JSON; ``replaced`` overrides parts of it."""
    item = {
        "body": call,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": _properties(queue, None),
    }
    return json.dumps(item | replaced).encode()


def celery_headers(task: Any, **replaced: Any) -> dict[str, Any]:
    return {
        "lang": "py",
        "task": task,
        "id": "malformed",
        "retries": 0,
        "timelimit": [None, None],
        **replaced,
    }


def call_of(body: Any, version: Any = WIRE_VERSION) -> list[Any]:
    """Return a call whose arguments are ``version`` and ``body``."""
    return [[], {"v": version, "body": body}, EMBED]


def malformed_items(queue: str, task: str) -> Iterator[tuple[str, bytes]]:
    """Yield (what it is, the bytes) for every kind of item that a worker drops.

    ``task`` takes a struct that has at least one required field.
    """
    yield from _broken_items(queue, task)
    for shape in (celery_item, galaxy_item):
        for what, call, headers in _broken_calls(task):
            yield f"{what}, as {shape.__name__}", shape(call, queue=queue, headers=headers)
    yield from _broken_base64(queue, task)


def _broken_items(queue: str, task: str) -> Iterator[tuple[str, bytes]]:
    call, headers = call_of({}), celery_headers(task)
    yield "not JSON", b"\x00garbage"
    yield "not UTF-8", b"\xff\xfe\xfd"
    yield "nothing", b""
    yield "a number", b"42"
    yield "null", b"null"
    yield "a list", b"[1,2,3]"
    yield "an empty object", b"{}"
    yield "deep nesting", b"[" * 200_000
    yield "no headers", celery_item(call, queue=queue)
    yield "headers that are a list", celery_item(call, queue=queue, headers=[1])
    yield "properties that are text", celery_item(call, queue=queue, headers=headers, properties="x")
    yield "no delivery tag", celery_item(call, queue=queue, headers=headers, properties={"delivery_info": {}})
    yield "a body that is a number", galaxy_item(5, queue=queue, headers=headers)
    yield "a body that is plain text", galaxy_item("a body", queue=queue, headers=headers)
    yield "an item of 26 MB", galaxy_item(call_of(" " * 26_000_000), queue=queue, headers=headers)
    deep = galaxy_item("DEEP", queue=queue, headers=headers)
    yield "a body that is deep", deep.replace(b'"DEEP"', b"[" * 100_000 + b"]" * 100_000)
    deep = galaxy_item(call_of("DEEP"), queue=queue, headers=headers)
    yield "a struct that is deep", deep.replace(b'"DEEP"', b"[" * 100_000 + b"]" * 100_000)
    yield (
        "a strange encoding",
        celery_item(call, queue=queue, headers=headers, **{"content-encoding": "klingon"}),
    )


def _broken_calls(task: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield (what it is, the call, the headers)."""
    headers = celery_headers(task)
    far = (datetime.now(UTC) + timedelta(days=365)).isoformat()
    past = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    yield "a task's name that is a list", call_of({}), celery_headers(["x"])
    yield "a task's name that is an object", call_of({}), celery_headers({"a": 1})
    yield "an unknown task", call_of({}), celery_headers("os.system")
    yield "an unknown task without id", call_of({}), {"task": "os.system"}
    yield "a task of protocol 1", {"task": task, "id": "1", "args": [], "kwargs": {}}, {}
    yield "an unknown task of protocol 1", {"task": "no.such", "id": "1"}, {}
    yield "protocol 1 in headers of protocol 2", {"args": [], "kwargs": {}}, headers
    yield "no id", call_of({}), {"task": task}
    yield "an id that is a number", call_of({}), celery_headers(task, id=7)
    yield "a long id", call_of({}), celery_headers(task, id="x" * 10_000)
    yield "a header of a foreign type", call_of({}), celery_headers(task, origin=_foreign_type())
    yield "a body that is null", None, headers
    yield "a body that is a list too short", [[], {}], headers
    yield "a body of wrong parts", [1, 2, 3], headers
    yield "no arguments", [[], {}, EMBED], headers
    yield "strange arguments", [[1, 2], {"x": 1, "self": 2}, EMBED], headers
    yield "another version", call_of({}, WIRE_VERSION + 1), headers
    yield "the version before", call_of({}, WIRE_VERSION - 1), headers
    yield "a version that is true", call_of({}, True), headers
    yield "a version of a foreign type", call_of({}, _foreign_type()), headers
    yield "a struct that is a number", call_of(1), headers
    yield "a struct that is text", call_of("{"), headers
    yield "a struct of a foreign type", call_of(_foreign_type()), headers
    yield "an unknown field", call_of({"nmae": 1}), headers
    yield "a struct of 17 MB", call_of(" " * 17_000_000), headers
    yield "an eta", call_of({}), celery_headers(task, eta=far)
    yield "an eta that is no time", call_of({}), celery_headers(task, eta="tomorrow")
    yield "expired", call_of({}), celery_headers(task, expires=past)
    yield "an expiry that is no time", call_of({}), celery_headers(task, expires="soon")
    yield "callbacks", [[], {}, {**EMBED, "callbacks": [{"task": task}]}], headers
    yield "a chain", [[], {}, {**EMBED, "chain": [{"task": task}]}], headers
    yield "a strange time limit", [[], {}, EMBED], celery_headers(task, timelimit="x")
    yield "a compression", call_of({}), celery_headers(task, compression="application/x-gzip")


def _broken_base64(queue: str, task: str) -> Iterator[tuple[str, bytes]]:
    headers = celery_headers(task)
    yield "a body that is not base64", celery_item(None, queue=queue, headers=headers, body="%%%é")
    yield "a deep body in base64", celery_item(None, raw=b"[" * 100_000, queue=queue, headers=headers)
    yield "a body of 20 MB", celery_item(None, raw=b"x" * 20_000_000, queue=queue, headers=headers)
    yield "text that is not UTF-8", celery_item(None, raw=b"\xff\xfe", queue=queue, headers=headers)
    for what, raw, kind in (
        ("pickle", pickle.dumps(call_of({})), "application/x-python-serialize"),
        ("YAML", b"a: 1", "application/x-yaml"),
    ):
        yield what, celery_item(None, raw=raw, queue=queue, headers=headers, **{"content-type": kind})


def _foreign_type() -> dict[str, Any]:
    """Return JSON that kombu's decoder would turn into an object, or fail on."""
    return {"__type__": "evil", "__value__": 1}


def _properties(queue: str, encoding: str | None) -> dict[str, Any]:
    return {
        "correlation_id": "x",
        "reply_to": "",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": queue},
        "priority": 0,
        "body_encoding": encoding,
        "delivery_tag": str(uuid.uuid4()),
    }
