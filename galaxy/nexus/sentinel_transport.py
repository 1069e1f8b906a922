"""kombu's Redis transport with master lookup through Sentinels, and reconnection after a refusal.

kombu retries when a server breaks a connection, but treats a server's refusal (its disk is full, it
has become a replica) as a program error. Here a refusal ends the connection, so that a worker
reconnects, with pauses, until it is served.

kombu's own Sentinel transport asks only one Sentinel, does not ask the server whether it is a master,
and shows Sentinel's password in a worker's statistics.
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

OPTION: Final = "redis"
"""Name of the transport option that holds the ``Server``."""


class Server:
    """The Redis of a transport; all connections of a process share ``sentinels``."""

    def __init__(self, url: RedisUrl, sentinels: Sentinels | None = None) -> None:
        self.url = url
        self.sentinels = sentinels
        if url.master and sentinels is None:
            self.sentinels = Sentinels(url, name="galaxy")

    def __json__(self) -> str:
        """Return the address: Celery shows all transport options, so the login must not be there."""
        return self.url.address


class EndsWhenRefused:
    """Mixin: the connection is closed when its server answers that it cannot serve now."""

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]
        except redis.ResponseError as error:
            code = code_of(error)
            if code not in REFUSALS:
                raise
            self.disconnect()  # type: ignore[attr-defined]
            raise redis.ConnectionError(f"Redis {REFUSALS[code][0]}: {error}") from error


class Connection(EndsWhenRefused, redis.Connection):
    """A connection to one server."""


class TlsConnection(EndsWhenRefused, redis.SSLConnection):
    """A connection to one server over TLS."""


class BrokerMasterConnection(EndsWhenRefused, MasterConnection):
    """A connection to the master."""


class BrokerMasterTlsConnection(EndsWhenRefused, MasterTlsConnection):
    """A connection to the master over TLS."""


class SentinelChannel(kombu_redis.Channel):
    """Finds the master through Sentinels, if the URL names some."""

    connection_class: Any = Connection
    connection_class_ssl: Any = TlsConnection

    def __init__(self, connection: Any, *args: Any, **kwargs: Any) -> None:
        self._server: Server | None = connection.client.transport_options.get(OPTION)
        if self._server is not None and self._server.sentinels is not None:
            self.connection_class = (
                BrokerMasterConnection if self._server.url.tls is None else BrokerMasterTlsConnection
            )
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
    """A transport whose channels follow the master."""

    Channel = SentinelChannel
