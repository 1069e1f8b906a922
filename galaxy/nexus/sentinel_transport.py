"""kombu's Redis transport, led by Sentinels where the URL names some, and with answers it understands.

kombu waits for a server that breaks a connection, but takes one that refuses (its disk is full,
it has become a replica) for a mistake in the program. Here such an answer ends the connection, so
that a worker connects again, with pauses, until it is served.

kombu has a transport of its own for Sentinels. It asks one of them, does not ask the server
whether it is a master, and shows Sentinel's password among a worker's statistics.
"""

from __future__ import annotations

from typing import Any, Final

import redis
from kombu.transport import redis as kombu_redis

from galaxy.nexus.connection import REFUSALS
from galaxy.nexus.sentinel import (
    FullMasterPool,
    MasterConnection,
    MasterTlsConnection,
    Sentinels,
    code_of,
    master_options,
)
from galaxy.nexus.url import RedisUrl

TRANSPORT: Final = "galaxy.nexus.sentinel_transport:SentinelTransport"
OPTION: Final = "redis"
"""Where a transport's options have the ``Server``."""


class Server:
    """Where a transport finds Redis; ``sentinels`` are shared in a process."""

    def __init__(self, url: RedisUrl, sentinels: Sentinels | None = None) -> None:
        self.url = url
        self.sentinels = sentinels
        if url.master and sentinels is None:
            self.sentinels = Sentinels(url, name="galaxy")

    def __json__(self) -> str:
        """Return the address: Celery shows whatever is among a transport's options."""
        return self.url.address


class Serving:
    """A connection that ends when its server says that it cannot serve now."""

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]
        except redis.ResponseError as error:
            code = code_of(error)
            if code not in REFUSALS:
                raise
            self.disconnect()  # type: ignore[attr-defined]
            raise redis.ConnectionError(f"Redis {REFUSALS[code][0]}: {error}") from error


class Connection(Serving, redis.Connection):
    """To one server."""


class TlsConnection(Serving, redis.SSLConnection):
    """To one server over TLS."""


class ToMaster(Serving, MasterConnection):
    """To the master."""


class TlsToMaster(Serving, MasterTlsConnection):
    """To the master over TLS."""


class SentinelChannel(kombu_redis.Channel):
    """Asks Sentinels for the master where there are some."""

    connection_class: Any = Connection
    connection_class_ssl: Any = TlsConnection

    def __init__(self, connection: Any, *args: Any, **kwargs: Any) -> None:
        self._server: Server | None = connection.client.transport_options.get(OPTION)
        if self._server is not None and self._server.sentinels is not None:
            self.connection_class = ToMaster if self._server.url.tls is None else TlsToMaster
        super().__init__(connection, *args, **kwargs)

    def _get_pool(self, asynchronous: bool = False) -> Any:
        server = self._server
        if server is None or server.sentinels is None:
            return super()._get_pool(asynchronous)
        options = self._connparams(asynchronous=asynchronous)
        self.keyprefix_fanout: str = self.keyprefix_fanout.format(db=options["db"])
        for name in ("host", "port"):
            options.pop(name, None)
        return FullMasterPool(server.url.master, server.sentinels, **(options | master_options(server.url)))


class SentinelTransport(kombu_redis.Transport):
    """What publishes."""

    Channel = SentinelChannel
