"""First answers to idempotency keys, as leaders keep them."""

from __future__ import annotations

import msgspec

from galaxy.model.api.answers import Problem
from galaxy.model.base import Struct


class AnswerRecord(Struct, frozen=True, kw_only=True):
    """The first answer to ``key``: ``result`` is the JSON of what ``op`` returns, or ``problem`` is set.

    ``target`` is what the request concerned, as in the audit trail. ``digest`` is that of the request
    (``galaxy.model.api.request.content_digest``).
    """

    key: str
    op: str
    at_s: float
    user: str = ""
    target: str = ""
    digest: str
    result: msgspec.Raw = msgspec.Raw(b"")
    problem: Problem | None = None
