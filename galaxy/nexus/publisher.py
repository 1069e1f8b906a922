"""Sends messages: all of a tick in a few round trips, and none twice unless a connection broke."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Final

import redis

from galaxy.errors import Unreachable
from galaxy.model.step import Send
from galaxy.nexus.connection import open_client
from galaxy.nexus.envelope import celery_message, utc_now
from galaxy.nexus.sentinel import Sentinels, code_of
from galaxy.nexus.url import parse

BATCH: Final = 500
"""Messages in one pipeline."""

OF_ONE_QUEUE: Final = ("NOPERM", "WRONGTYPE")
"""Codes of errors that do not concern the messages to other queues."""

_FAILURES: Final = (redis.RedisError, OSError)

log = logging.getLogger(__name__)


class Publisher:
    """One connection for publishing; threads may share it. Nothing is connected before the first use.

    Queues are plain Redis lists behind Celery's default exchange: there is no binding to lose, and
    a message is one LPUSH of what ``celery_message`` makes.
    """

    def __init__(self, url: str, *, name: str, sentinels: Sentinels | None = None) -> None:
        self.address = parse(url).address
        self._client = open_client(url, name=name, sentinels=sentinels)
        self._name = name
        self._lock = threading.Lock()  # One thread at a time, so the pool holds one connection.
        self._connected = False

    def __call__(self, sends: Sequence[Send]) -> None:
        self.publish(sends)

    def open(self) -> None:
        """Connect now, because connecting would delay the first message by many round trips.

        An existing connection is replaced: after hours without traffic, a firewall may have dropped it.
        If Redis does not answer, ``publish`` reports it later.
        """
        with self._lock:
            self._disconnect()
            try:
                self._client.ping()
                self._connected = True
            except _FAILURES as error:
                self._disconnect()
                log.warning("event=publisher.not-open cause=%r", str(self._unreachable(error)))

    def publish(self, sends: Sequence[Send]) -> None:
        """Publish every message; one that cannot be encoded, or that Redis refuses, is logged and left out.

        A broken connection is opened again once, which may send messages twice.

        Raises:
            Unreachable: some or all were not sent.
        """
        items = [item for send in sends if (item := self._item(send)) is not None]
        with self._lock:
            is_new = not self._connected
            try:
                self._push(items)
            except _FAILURES as error:
                self._disconnect()
                if is_new or _timed_out(error):
                    raise self._unreachable(error) from error
                try:
                    self._push(items)
                except _FAILURES as second:
                    self._disconnect()
                    raise self._unreachable(second) from second

    def close(self) -> None:
        """Close the connection; the next ``publish`` opens another."""
        with self._lock:
            self._disconnect()

    def _push(self, items: Sequence[tuple[str, bytes]]) -> None:
        for start in range(0, len(items), BATCH):
            pipe = self._client.pipeline(transaction=False)
            for queue, item in items[start : start + BATCH]:
                pipe.lpush(queue, item)
            for (queue, item), answer in zip(
                items[start : start + BATCH], pipe.execute(raise_on_error=False), strict=True
            ):
                if isinstance(answer, redis.RedisError):
                    if code_of(answer) not in OF_ONE_QUEUE:
                        raise answer
                    log.error("event=send.refused queue=%s bytes=%d cause=%r", queue, len(item), str(answer))
        self._connected = True

    def _item(self, send: Send) -> tuple[str, bytes] | None:
        try:
            return celery_message(send, now=utc_now(), origin=self._name)
        except (TypeError, ValueError):
            log.exception("event=send.unencodable task=%s id=%s", send.task, send.id)
            return None

    def _disconnect(self) -> None:
        self._connected = False
        self._client.connection_pool.disconnect()

    def _unreachable(self, error: Exception) -> Unreachable:
        text = (str(error) or type(error).__name__).splitlines()[0]
        return Unreachable(f"cannot publish to Redis at {self.address}: {text}")


def _timed_out(error: BaseException | None) -> bool:
    """Return whether a time-out caused ``error``: then a second try would only wait again."""
    while error is not None:
        if "imeout" in type(error).__name__:
            return True
        error = error.__cause__
    return False
