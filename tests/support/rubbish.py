"""What strangers may push into a queue: none of it may reach a handler or break a worker."""

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


def message(call: Any, *, queue: str, headers: Any = None, raw: bytes | None = None, **over: Any) -> bytes:
    """Return a kombu message, well-formed but for what is passed."""
    data = json.dumps(call).encode() if raw is None else raw
    whole = {
        "body": base64.b64encode(data).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            "correlation_id": "x",
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    whole.update(over)
    return json.dumps(whole).encode()


def heads(task: Any, **over: Any) -> dict[str, Any]:
    return {"lang": "py", "task": task, "id": "rubbish", "retries": 0, "timelimit": [None, None], **over}


def rubbish(queue: str, task: str) -> Iterator[tuple[str, bytes]]:
    """Yield (what it is, the bytes) for every kind of rubbish."""
    call: list[Any] = [[], {"v": WIRE_VERSION, "body": "{}"}, EMBED]
    far = (datetime.now(UTC) + timedelta(days=365)).isoformat()
    past = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    yield "not JSON", b"\x00garbage"
    yield "not UTF-8", b"\xff\xfe\xfd"
    yield "nothing", b""
    yield "a number", b"42"
    yield "null", b"null"
    yield "a list", b"[1,2,3]"
    yield "an empty object", b"{}"
    yield "deep nesting", b"[" * 200_000
    yield "no headers", message(call, queue=queue)
    yield "headers that are a list", message(call, queue=queue, headers=[1])
    yield "properties that are text", message(call, queue=queue, headers=heads(task), properties="x")
    yield "no delivery tag", message(call, queue=queue, headers=heads(task), properties={"delivery_info": {}})
    yield "a body that is a number", message(call, queue=queue, headers=heads(task), body=5)
    yield "a body that is not base64", message(call, queue=queue, headers=heads(task), body="%%%é")
    yield "a task's name that is a list", message(call, queue=queue, headers=heads(["x"]))
    yield "a task's name that is an object", message(call, queue=queue, headers=heads({"a": 1}))
    yield "an unknown task", message(call, queue=queue, headers=heads("os.system"))
    yield "an unknown task without id", message(call, queue=queue, headers={"task": "os.system"})
    yield (
        "a task of protocol 1",
        message({"task": task, "id": "1", "args": [], "kwargs": {}}, queue=queue, headers={}),
    )
    yield "an unknown task of protocol 1", message({"task": "no.such", "id": "1"}, queue=queue, headers={})
    yield (
        "protocol 1 in headers of protocol 2",
        message({"args": [], "kwargs": {}}, queue=queue, headers=heads(task)),
    )
    yield "no id", message(call, queue=queue, headers={"task": task})
    yield "an id that is a number", message(call, queue=queue, headers=heads(task, id=7))
    yield "a long id", message(call, queue=queue, headers=heads(task, id="x" * 10_000))
    yield "a body that is null", message(None, queue=queue, headers=heads(task))
    yield "a body that is a list too short", message([[], {}], queue=queue, headers=heads(task))
    yield "a body of wrong parts", message([1, 2, 3], queue=queue, headers=heads(task))
    yield "no arguments", message([[], {}, EMBED], queue=queue, headers=heads(task))
    yield "strange arguments", message([[1, 2], {"x": 1, "self": 2}, EMBED], queue=queue, headers=heads(task))
    yield (
        "another version",
        message([[], {"v": WIRE_VERSION + 1, "body": "{}"}, EMBED], queue=queue, headers=heads(task)),
    )
    yield (
        "a version that is true",
        message([[], {"v": True, "body": "{}"}, EMBED], queue=queue, headers=heads(task)),
    )
    yield (
        "a noun that is not JSON",
        message([[], {"v": WIRE_VERSION, "body": "{"}, EMBED], queue=queue, headers=heads(task)),
    )
    yield (
        "an unknown field",
        message([[], {"v": WIRE_VERSION, "body": '{"nmae":1}'}, EMBED], queue=queue, headers=heads(task)),
    )
    yield (
        "a noun that is deep",
        message([[], {"v": WIRE_VERSION, "body": "[" * 100_000}, EMBED], queue=queue, headers=heads(task)),
    )
    yield "a body that is deep", message(None, raw=b"[" * 100_000, queue=queue, headers=heads(task))
    yield (
        "a noun of 17 MB",
        message([[], {"v": WIRE_VERSION, "body": " " * 17_000_000}, EMBED], queue=queue, headers=heads(task)),
    )
    yield "a body of 20 MB", message(None, raw=b"x" * 20_000_000, queue=queue, headers=heads(task))
    pickled = pickle.dumps(call)
    yield (
        "pickle",
        message(
            None,
            raw=pickled,
            queue=queue,
            headers=heads(task),
            **{"content-type": "application/x-python-serialize"},
        ),
    )
    yield (
        "YAML",
        message(
            None, raw=b"a: 1", queue=queue, headers=heads(task), **{"content-type": "application/x-yaml"}
        ),
    )
    yield (
        "a strange encoding",
        message(call, queue=queue, headers=heads(task), **{"content-encoding": "klingon"}),
    )
    yield "an eta", message(call, queue=queue, headers=heads(task, eta=far))
    yield "an eta that is none", message(call, queue=queue, headers=heads(task, eta="tomorrow"))
    yield "expired", message(call, queue=queue, headers=heads(task, expires=past))
    yield "an expiry that is none", message(call, queue=queue, headers=heads(task, expires="soon"))
    yield (
        "callbacks",
        message([[], {}, {**EMBED, "callbacks": [{"task": task}]}], queue=queue, headers=heads(task)),
    )
    yield "a chain", message([[], {}, {**EMBED, "chain": [{"task": task}]}], queue=queue, headers=heads(task))
    yield (
        "a foreign type",
        message([[], {"v": {"__type__": "evil", "__value__": 1}}, EMBED], queue=queue, headers=heads(task)),
    )
    yield "a strange time limit", message([[], {}, EMBED], queue=queue, headers=heads(task, timelimit="x"))
    yield "a compression", message(call, queue=queue, headers=heads(task, compression="application/x-gzip"))
