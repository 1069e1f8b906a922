"""The envelope of a request to a leader."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from galaxy.model.base import Struct, encode_sorted

KEY_CHARS_MAX: Final = 256


class Request(Struct, frozen=True, kw_only=True):
    """One call of an operation; ``body`` is of the ``Body`` class that the catalog has for ``op``.

    ``key`` is the idempotency key: the same request under it gets the first answer again, and another
    request is a conflict. ``reply`` is the id of the client's own short-lived Redis list. The client stops
    waiting at ``deadline_s``. ``proof`` is the signature of ``user`` over every other field, made at
    ``at_s`` with a ``nonce`` that is used once; see ``galaxy.model.api.signing``. Times are Redis' clock,
    Unix seconds.
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


def content_digest(key: str, body: Any) -> str:
    """Return a digest of what a request asks for: equal for a repetition, different for anything else.

    The key is part of it, so that equal secrets do not have equal digests.
    """
    content = encode_sorted((body.op, key, body))
    return hashlib.blake2b(content, digest_size=16).hexdigest()
