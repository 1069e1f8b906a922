"""Sends messages: all of a tick in one round trip, without ever repeating one behind our back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any, Final

from kombu import Connection, Producer
from kombu.exceptions import BatchPublishError, OperationalError
from redis.exceptions import RedisError

from galaxy.errors import Unreachable
from galaxy.model.messages.names import queue_of
from galaxy.model.step import Send
from galaxy.nexus.connection import CONNECT_S, SOCKET_S, client_name
from galaxy.nexus.envelope import CONTENT_ENCODING, CONTENT_TYPE, envelope, utc_now
from galaxy.nexus.sentinel import Sentinels
from galaxy.nexus.sentinel_transport import OPTION, TRANSPORT, Server
from galaxy.nexus.url import parse

BATCH: Final = 500
"""Messages in one pipeline."""

_BROKEN: Final = (BatchPublishError, OperationalError, RedisError, OSError)

log = logging.getLogger(__name__)


class Publisher:
    """One connection for publishing; threads may share it. Nothing is connected before the first use.

    Queues are plain Redis lists behind the default exchange: there is no binding to lose.
    """

    def __init__(self, url: str, *, name: str, sentinels: Sentinels | None = None) -> None:
        self._url = parse(url)
        self._server = Server(self._url, sentinels)
        self.address = self._url.address
        self._name = name
        self._lock = threading.Lock()
        self._producer: Any = None
        self._connection: Any = None

    def __call__(self, sends: Sequence[Send]) -> None:
        self.publish(sends)

    def open(self) -> None:
        """Connect now: to do so with the first message would hold that up for many round trips.

        A connection that is there is replaced: after hours of silence, something on the way may have
        forgotten it. A Redis that does not answer is left for ``publish`` to find.
        """
        with self._lock:
            self._drop()
            try:
                with self._connect().channel.conn_or_acquire() as client:
                    client.ping()
            except _BROKEN as error:
                self._drop()
                log.warning("event=publisher.not-open cause=%r", str(self._unreachable(error)))

    def publish(self, sends: Sequence[Send]) -> None:
        """Publish every message; one that cannot be encoded is logged and left out.

        A connection found broken is opened anew once, which may double what it had under way.

        Raises:
            Unreachable: some or all did not get out.
        """
        messages = [message for send in sends if (message := self._message(send)) is not None]
        with self._lock:
            fresh = self._producer is None
            try:
                self._flush(messages)
            except _BROKEN as error:
                self._drop()
                if fresh or _timed_out(error):
                    raise self._unreachable(error) from error
                try:
                    self._flush(messages)
                except _BROKEN as again:
                    self._drop()
                    raise self._unreachable(again) from again

    def close(self) -> None:
        """Close the connection; the next ``publish`` opens another."""
        with self._lock:
            self._drop()

    def _flush(self, messages: Sequence[dict[str, Any]]) -> None:
        if self._producer is None:
            self._connect()
        with self._producer.batch(BATCH):
            for message in messages:
                self._producer.publish(**message)

    def _connect(self) -> Any:
        options = publish_options(self._name, self._server)
        self._connection = Connection(self._url.server(), transport=TRANSPORT, transport_options=options)
        self._producer = Producer(self._connection.channel(), auto_declare=False)
        return self._producer

    def _message(self, send: Send) -> dict[str, Any] | None:
        try:
            headers, properties, body = envelope(send, now=utc_now(), origin=self._name)
        except (TypeError, ValueError):
            log.exception("event=send.unencodable task=%s id=%s", send.task, send.id)
            return None
        return {
            "body": body,
            "exchange": "",
            "routing_key": queue_of(send.task, send.queue),
            "content_type": CONTENT_TYPE,
            "content_encoding": CONTENT_ENCODING,
            "headers": headers,
            **properties,
        }

    def _drop(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            try:
                connection.close()
            except _BROKEN as error:
                log.debug("event=publisher.close-failed cause=%r", str(error))

    def _unreachable(self, error: Exception) -> Unreachable:
        cause = error.__cause__ or error
        text = (str(cause) or type(cause).__name__).splitlines()[0]
        return Unreachable(f"cannot publish to Redis at {self.address}: {text}")


def publish_options(name: str, server: Server) -> dict[str, Any]:
    """Return kombu's transport options for publishing only."""
    return {
        "socket_timeout": SOCKET_S,
        "socket_connect_timeout": CONNECT_S,
        "socket_keepalive": True,
        "priority_steps": [0],
        "client_name": client_name(name),
        "max_connections": 4,
        OPTION: server,
    }


def _timed_out(error: BaseException | None) -> bool:
    """Tell whether a time-out is behind ``error``: then a second try would only wait again."""
    while error is not None:
        if "imeout" in type(error).__name__:
            return True
        error = error.__cause__
    return False
