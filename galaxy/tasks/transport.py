"""kombu's Redis transport, except that a malformed message in a queue cannot break the worker.

With kombu's own transport, an item that is not JSON or not a message raises in the worker's event loop,
and a message whose delivery fails holds a prefetch slot until the worker restarts. Here both are counted,
logged and dropped.
"""

from __future__ import annotations

import logging
from collections import Counter
from queue import Empty
from typing import Any

from celery.exceptions import WorkerShutdown, WorkerTerminate
from kombu.transport import redis as kombu_redis
from kombu.utils.json import loads

from galaxy.nexus import sentinel_transport
from galaxy.tasks.incoming import UnacceptableItem, parse_item

log = logging.getLogger(__name__)


class Dropped:
    """Counts dropped messages by cause."""

    def __init__(self) -> None:
        self.causes: Counter[str] = Counter()

    def __json__(self) -> dict[str, int]:
        """Return the counts; Celery shows them in ``inspect stats`` among the transport's options."""
        return dict(self.causes)

    def count(self, cause: str, **facts: object) -> None:
        """Count one, and log it with ``facts``, each cut to 120 characters."""
        self.causes[cause] += 1
        text = " ".join(f"{name}={str(value)[:120]!r}" for name, value in facts.items())
        log.warning("event=message.dropped cause=%s count=%d %s", cause, self.causes[cause], text)


class QoS(kombu_redis.QoS):
    """Leaves unacknowledged messages in Redis when the connection is lost.

    kombu tries to push them back, or to acknowledge those that were handled, over a connection that is
    already dismantled, and the resulting ``AttributeError`` ends the worker. Redis still has
    the messages, and they are delivered again after the visibility timeout.
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
    """Reads the items of the worker's own queues with ``parse_item``, and drops what it refuses."""

    QoS = QoS

    def _brpop_read(self, **options: Any) -> bool:
        """Deliver the answer to a BRPOP; kombu's method, with another decoder for our queues."""
        try:
            try:
                answer = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()  # The next iteration connects again.
                raise
            if not answer:
                raise Empty()
            queue = answer[0].decode(errors="replace").rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            self._deliver_item(queue, answer[1])
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _deliver_item(self, queue: str, item: bytes) -> None:
        transport = self.connection
        try:
            # Other queues are those of answers to Celery's remote control, which only Flower reads.
            message = parse_item(item, queue) if queue in transport.own_queues else loads(item)
        except UnacceptableItem as error:
            transport.dropped.count(error.cause, **error.facts)
        except (ValueError, RecursionError, MemoryError) as error:
            # ValueError is the common base of the errors of JSON, UTF-8 and base64.
            transport.dropped.count("not-json", queue=queue, why=error)
        else:
            transport._deliver(message, queue)


class GuardedTransport(sentinel_transport.SentinelTransport):
    """Drops what is not a message, and every message that delivery fails on."""

    Channel = GuardedChannel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.own_queues: tuple[str, ...] = self.client.transport_options.get("queues") or ()
        self.dropped: Dropped = self.client.transport_options.get("dropped") or Dropped()

    def _deliver(self, message: Any, queue: str) -> None:
        if flaw := flaw_of(message):
            self.dropped.count("not-a-message", queue=queue, why=flaw)
            return
        try:
            super()._deliver(message, queue)
        except (Empty, WorkerShutdown, WorkerTerminate):
            raise
        except Exception as error:
            if isinstance(error, self.connection_errors + self.channel_errors):
                raise
            self.dropped.count("undeliverable", queue=queue, why=f"{type(error).__name__}: {error}")
            self._acknowledge(message["properties"]["delivery_tag"])

    def _acknowledge(self, tag: str) -> None:
        """Acknowledge a message, so that it is neither delivered again nor holds a prefetch slot."""
        for channel in self.channels:
            if tag in channel.qos._delivered:
                channel.basic_ack(tag)


def flaw_of(message: Any) -> str:
    """Return why ``message`` is not a kombu message, or an empty string."""
    if not isinstance(message, dict):
        return "not an object"
    properties = message.get("properties")
    if not isinstance(properties, dict) or not isinstance(properties.get("delivery_info"), dict):
        return "no properties"
    if not isinstance(properties.get("delivery_tag"), str) or not properties["delivery_tag"]:
        return "no delivery tag"
    if not isinstance(message.get("headers", {}), dict):
        return "headers are not an object"
    if not isinstance(message.get("body"), str):
        return "the body is not text"
    return ""
