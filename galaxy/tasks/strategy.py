"""What stands between a message and the pool: only what Galaxy itself sends gets through.

A Celery message can ask for more than its task: to be held until some time, to send other
messages when it is done or fails, to be killed after a while. Galaxy uses none of these, so
their presence means a stranger or a mistake, and the message is dropped. A message that would
fail inside the pool, where Celery never hears of it again, is dropped here too.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from celery import Task
from celery.utils.log import get_logger
from celery.worker import strategy as celery_strategy

from galaxy.nexus.envelope import CONTENT_TYPE, utc_now

ID_MAX: Final = 400
CLOCKS_S: Final = 300.0
"""How far clocks of hosts may differ before an expiry is believed; a late order does no harm."""

log = get_logger(__name__)


class GalaxyTask(Task):
    """A handler of ours; takes any arguments, so that a foreign one is answered, not raised."""

    Strategy = "galaxy.tasks.strategy:screened"
    typing = False
    resultrepr_maxsize = 200


def screened(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Return Celery's own strategy behind ``screen``."""
    inner = celery_strategy.default(task, app, consumer, **options)

    def on_message(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **kwargs: Any) -> Any:
        cause, text = screen(message)
        if cause:
            app.galaxy_dropped.count(cause, task=task.name, id=message.headers.get("id"), why=text)
            return ack(log, consumer.connection_errors)
        return inner(message, body, ack, reject, callbacks, **kwargs)

    return on_message


def screen(message: Any) -> tuple[str, str]:
    """Return (cause, text) of why ``message`` is dropped, or two empties; headers become ours.

    ``expires`` is looked at here and then removed: Celery would drop every message between hosts
    whose clocks differ by more than it, and not say so.
    """
    headers = message.headers
    task_id = headers.get("id")
    if not isinstance(task_id, str) or not 0 < len(task_id) <= ID_MAX:
        return "malformed", "no id"
    if message.content_type != CONTENT_TYPE:
        return "foreign", f"content type {message.content_type!r}"
    for asked in ("eta", "group", "shadow"):
        if headers.get(asked):
            return "foreign", f"asks for {asked}"
    late = _late(headers.get("expires"))
    if late:
        return "expired", late
    try:
        payload = message.payload
    except Exception as error:  # noqa: BLE001 - whatever a decoder raises on rubbish.
        return "malformed", f"{type(error).__name__}: {error}"  # A repr may quote the whole body.
    if not _is_call(payload):
        return "malformed", "the body is not a call"
    if any(payload[2].values()):
        return "foreign", "asks for callbacks or a chain"
    if payload[0] or payload[1].keys() - {"v", "body"}:
        return "foreign", "has arguments other than v and body"
    message.headers = {
        "lang": "py",
        "task": headers["task"],
        "id": task_id,
        "root_id": task_id,
        "parent_id": None,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": "()",
        "kwargsrepr": str(headers.get("kwargsrepr", ""))[:100],
        "origin": str(headers.get("origin", ""))[:100],
        "ignore_result": bool(headers.get("ignore_result", True)),
    }
    return "", ""


def _is_call(payload: Any) -> bool:
    return (
        isinstance(payload, (list, tuple))
        and len(payload) == 3
        and isinstance(payload[0], (list, tuple))
        and isinstance(payload[1], dict)
        and isinstance(payload[2], dict)
    )


def _late(expires: Any) -> str:
    if expires is None:
        return ""
    try:
        late_s = (utc_now() - datetime.fromisoformat(expires)).total_seconds()
    except (TypeError, ValueError):
        return f"expires {str(expires)[:60]!r} is not a time with a zone"
    return f"{late_s:.1f} s late by this host's clock" if late_s > CLOCKS_S else ""
