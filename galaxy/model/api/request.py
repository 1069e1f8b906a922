"""The envelope of a request to a leader."""

from __future__ import annotations

from typing import Any

from galaxy.model.base import Struct


class Request(Struct, frozen=True, kw_only=True):
    """One call of an operation; ``body`` is the ``Body`` that the catalog names for ``op``.

    ``key`` is the idempotency key: a repeated key gets the first answer again. ``reply`` names the
    client's own short-lived Redis list. After ``deadline_s`` (Unix seconds) the client does not wait
    any more. ``proof`` is the signature of ``user`` over every other field, made at ``at_s``
    (Unix seconds) with a ``nonce`` that is used once; see ``galaxy.model.api.signing``.
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
