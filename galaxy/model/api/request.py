"""The envelope of a request to a leader."""

from __future__ import annotations

from typing import Any

from galaxy.model.base import Struct


class Request(Struct, frozen=True, kw_only=True):
    """One call of an operation; ``body`` is of the ``Body`` class that the catalog has for ``op``.

    ``key`` is the idempotency key: a repeated key gets the first answer again. ``reply`` is the id of
    the client's own short-lived Redis list. The client stops waiting at ``deadline_s``. ``proof`` is the
    signature of ``user`` over every other field, made at ``at_s`` with a ``nonce`` that is used once; see
    ``galaxy.model.api.signing``. Times are Redis' clock, Unix seconds.
    """

    op: str
    key: str
    reply: str
    deadline_s: float
    user: str = ""
    body: Any = None
    at_s: float = 0.0
    nonce: str = ""
    proof: str = ""
