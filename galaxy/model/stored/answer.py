"""First answers to idempotency keys, as leaders keep them."""

from __future__ import annotations

import msgspec

from galaxy.model.api.answers import Problem
from galaxy.model.base import Struct


class AnswerRecord(Struct, frozen=True, kw_only=True):
    """The first answer to ``key``: ``result`` is the JSON of what ``op`` returns, or ``problem`` is set."""

    key: str
    op: str
    at_s: float
    user: str = ""
    result: msgspec.Raw = msgspec.Raw(b"")
    problem: Problem | None = None
