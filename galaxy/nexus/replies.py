"""Answers to clients: each on a short-lived list that the client chose and blocks on."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, Final

import redis

from galaxy.model.api.answers import Answer, Problem, Reply
from galaxy.model.base import encode
from galaxy.nexus import keys
from galaxy.nexus.connection import BLOCK_S, reaching

TTL_S: Final = 120
"""How long an answer is kept for a client that does not fetch it."""
ID_MAX: Final = 200
"""Longest reply id, in characters; a request with a longer one is not answered."""

log = logging.getLogger(__name__)


class Replies:
    """Sends any number of answers in one round trip; waits for one answer."""

    def __init__(self, client: redis.Redis, address: str) -> None:
        self._client = client
        self._address = address

    def push(self, replies: Sequence[Reply]) -> None:
        """Deliver every answer, which wakes the client that waits on its list.

        An answer that cannot be encoded is replaced by one that says so, and keeps no other from leaving.
        """
        with reaching(self._address):
            pipe = self._client.pipeline(transaction=False)
            for reply in replies:
                if 0 < len(reply.reply) <= ID_MAX:
                    key = keys.reply(reply.reply)
                    pipe.rpush(key, _packed(reply.answer))
                    pipe.expire(key, TTL_S)
            pipe.execute()

    def wait(self, reply_id: str, timeout_s: float) -> bytes | None:
        """Return the next answer on ``reply_id`` as JSON, or None after ``timeout_s``."""
        end_s = time.monotonic() + timeout_s
        while (left_s := end_s - time.monotonic()) > 0:
            with reaching(self._address):
                found: Any = self._client.blpop(
                    [keys.reply(reply_id)], timeout=max(0.01, min(left_s, BLOCK_S))
                )
            if found is not None:
                return bytes(found[1])
        return None


def _packed(answer: Answer) -> bytes:
    try:
        return encode(answer)
    except (TypeError, ValueError) as error:
        log.exception("event=answer.unencodable key=%r", answer.key[:80])
        problem = Problem(kind="failed", message=f"the answer cannot be encoded: {type(error).__name__}")
        return encode(Answer(key="", problem=problem))
