"""What a request is answered."""

from __future__ import annotations

from typing import Any

from galaxy.model.base import Struct


class Problem(Struct, frozen=True, kw_only=True):
    """An error in an answer; ``kind`` as in ``galaxy.errors``."""

    kind: str
    message: str
    details: tuple[str, ...] = ()
    hint: str = ""


class Answer(Struct, frozen=True, kw_only=True):
    """``result`` is the noun that ``OPERATIONS`` names for the op; ``problem`` excludes it."""

    key: str
    result: Any = None
    problem: Problem | None = None


class Reply(Struct, frozen=True, kw_only=True):
    """An answer on its way to the short-lived list that a client waits on."""

    reply: str
    answer: Answer
