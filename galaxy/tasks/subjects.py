"""What Flower shows as the arguments of a message: names of jobs, pods and the like, and no other value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from galaxy.model.api.catalog import BODIES
from galaxy.model.messages import names

SHOWN_MAX: Final = 5
"""Longest list of names; the rest is counted."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
"""The form of the names that are shown. Any other text is left out, whatever its field is called."""


def subjects_of(task: str, body: bytes) -> str:
    """Return the names in the struct of a message: ``('web.0', 'web.1', 98 more)``, ``()`` without any.

    For a malformed struct it is ``()``.
    """
    try:
        found = list(_names_in(task, body))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return "()"
    shown = [repr(name) for name in found[:SHOWN_MAX]]
    if len(found) > SHOWN_MAX:
        shown.append(f"{len(found) - SHOWN_MAX} more")
    return f"({', '.join(shown)})"


def _names_in(task: str, body: bytes) -> Iterator[str]:
    if task in BODIES:
        subject = msgspec.json.decode(body, type=_Request).body
        texts: list[Any] = [
            None if subject.spec is None else subject.spec.name,
            subject.job, subject.pod, subject.target, subject.user, subject.service, subject.agent,
        ]  # fmt: skip
    elif task in (names.CONTAINER_APPLY, names.GROUP_APPLY, names.GROUP_STATUS, names.POD_DEPLOY):
        message = msgspec.json.decode(body, type=_Message)
        lists = (message.create, message.destroy, message.orders, message.statuses)
        texts = [one.container or one.pod or one.group for many in lists for one in many]
    elif task in (names.LOG_SESSION, names.EXEC_SESSION):
        texts = [msgspec.json.decode(body, type=_Subject).pod]
    else:
        texts = []
    for text in texts:
        if isinstance(text, str) and _NAME.match(text):
            yield text


class _Spec(msgspec.Struct):
    name: Any = None


class _Subject(msgspec.Struct):
    spec: _Spec | None = None
    job: Any = None
    pod: Any = None
    target: Any = None
    user: Any = None
    service: Any = None
    agent: Any = None


class _Request(msgspec.Struct):
    body: _Subject = msgspec.field(default_factory=_Subject)


class _Item(msgspec.Struct):
    container: Any = None
    pod: Any = None
    group: Any = None


class _Message(msgspec.Struct):
    create: list[_Item] = []
    destroy: list[_Item] = []
    orders: list[_Item] = []
    statuses: list[_Item] = []
