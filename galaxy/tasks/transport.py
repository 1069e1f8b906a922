"""kombu's Redis transport, except that rubbish in a queue cannot break the worker.

Anybody who may write to a queue can put anything there. kombu lets what is not JSON, and what
is JSON but no message, escape into the worker's event loop; a message that fails after it was
counted would hold a prefetch slot for ever. Here both are counted, logged and dropped.
"""

from __future__ import annotations

import logging
from collections import Counter
from queue import Empty
from typing import Any, Final

from celery.exceptions import WorkerShutdown, WorkerTerminate
from kombu.transport import redis as kombu_redis

from galaxy.model.base import MESSAGE_BYTES_MAX
from galaxy.model.messages.names import is_wrong_queue
from galaxy.nexus import sentinel_transport

BODY_MAX: Final = MESSAGE_BYTES_MAX * 3 // 2
"""Longest body, in characters: base64 makes four of three."""

log = logging.getLogger(__name__)


class Dropped:
    """Counts what was thrown away, by cause."""

    def __init__(self) -> None:
        self.causes: Counter[str] = Counter()

    def __json__(self) -> dict[str, int]:
        """Return the counts; Celery shows them in ``inspect stats`` among the transport's options."""
        return dict(self.causes)

    def count(self, cause: str, **facts: object) -> None:
        """Count one, and log it with ``facts``, cut short."""
        self.causes[cause] += 1
        text = " ".join(f"{name}={str(value)[:120]!r}" for name, value in facts.items())
        log.warning("event=message.dropped cause=%s count=%d %s", cause, self.causes[cause], text)


class QoS(kombu_redis.QoS):
    """Leaves unacknowledged messages where they are when the connection is lost.

    kombu tries to push them back, or to acknowledge what was handled meanwhile, over a connection
    that is already dismantled, and the ``AttributeError`` of that ends the worker. They are in Redis
    and come again by themselves.
    """

    def restore_unacked_once(self, stderr: Any = None) -> None:
        if not self._dismantled:
            super().restore_unacked_once(stderr)
            return
        self._on_collect.cancel()
        self._delivered.clear()
        self._delivered.restored = True

    def ack(self, delivery_tag: str) -> None:
        if not self._dismantled:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if not self._dismantled:
            super().reject(delivery_tag, requeue)

    @property
    def _dismantled(self) -> bool:
        transport = self.channel.connection
        return transport is None or transport.client is None


class GuardedChannel(sentinel_transport.SentinelChannel):
    """Drops what cannot be read as JSON."""

    QoS = QoS

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (ValueError, RecursionError, MemoryError) as error:
            # ValueError is what broken JSON, UTF-8 and base64 have in common.
            if isinstance(error, self.connection_errors):
                raise
            self.connection.dropped.count("not-json", error=error)
            return True


class GuardedTransport(sentinel_transport.SentinelTransport):
    """Drops what is not a message, and whatever else the worker fails on."""

    Channel = GuardedChannel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._queues: tuple[str, ...] = self.client.transport_options.get("queues") or ()
        self.dropped: Dropped = self.client.transport_options.get("dropped") or Dropped()

    def _deliver(self, message: Any, queue: str) -> None:
        flaw = flaw_of(message)
        if flaw:
            self.dropped.count("not-a-message", queue=queue, flaw=flaw)
            return
        if queue in self._queues:
            task = message.get("headers", {}).get("task", "")
            if is_wrong_queue(task, queue):
                self.dropped.count("wrong-queue", queue=queue, task=task)
                return
            # What is put back goes where *it* says it came from, with our rights: not by its word.
            message["properties"]["delivery_info"] = {"exchange": "", "routing_key": queue}
        try:
            super()._deliver(message, queue)
        except (Empty, WorkerShutdown, WorkerTerminate):
            raise
        except Exception as error:
            if isinstance(error, self.connection_errors + self.channel_errors):
                raise
            self.dropped.count("undeliverable", queue=queue, error=f"{type(error).__name__}: {error}")
            self._settle(message["properties"]["delivery_tag"])

    def _settle(self, tag: str) -> None:
        """Acknowledge what was counted as delivered, so that it neither comes again nor holds a slot."""
        for channel in self.channels:
            if tag in channel.qos._delivered:
                channel.basic_ack(tag)


def flaw_of(message: Any) -> str:
    """Return what keeps ``message`` from being one of kombu's, or nothing."""
    if not isinstance(message, dict):
        return "not an object"
    properties = message.get("properties")
    if not isinstance(properties, dict) or not isinstance(properties.get("delivery_info"), dict):
        return "no properties"
    if not isinstance(properties.get("delivery_tag"), str) or not properties["delivery_tag"]:
        return "no delivery tag"
    if not isinstance(message.get("headers", {}), dict):
        return "headers are not an object"
    if "task" in message.get("headers", {}) and not isinstance(message["headers"]["task"], str):
        return "the task's name is not text"
    body = message.get("body")
    if not isinstance(body, str):
        return "the body is not text"
    if len(body) > BODY_MAX:
        return f"a body of {len(body)} characters"
    return ""
