"""Finds the master through Sentinels, and disconnects from a server that is no longer the master.

redis-py uses the answer of the first Sentinel. Here all Sentinels are asked and the newest configuration
wins (``config-epoch``), so that the answer of a Sentinel that was cut off is not used. The server must
confirm that it is a master, and a connection is closed as soon as its server reports that it no longer
is one. Pools then look up the master again.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import socket
import threading
import time
import weakref
from collections import Counter
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.connection import BlockingConnectionPool, ConnectionPool, SSLConnection
from redis.retry import Retry
from redis.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
)

from galaxy.nexus.url import RedisUrl

ASK_S: Final = 1.0
"""Timeout of a question to one Sentinel."""
SKIP_S: Final = 5.0
"""How long a Sentinel that did not answer is skipped."""
REPLICAS_CACHED_S: Final = 1.0
"""How long the number of replicas is cached; a replica that joins counts after that time."""
MOVED: Final = ("READONLY", "UNBLOCKED", "MASTERDOWN")
"""Error codes of a server that is no longer the master."""
DOUBTFUL: Final = ("NOREPLICAS",)
"""Error codes of a server that may have been replaced without knowing it."""

log = logging.getLogger(__name__)

Address = tuple[str, int]


def code_of(error: BaseException) -> str:
    """Return the code of a server's error, like READONLY; empty when the error is not a server's."""
    if not isinstance(error, redis.RedisError):
        return ""
    text = str(error).rpartition("caused error: ")[2]  # redis-py's prefix in pipelines.
    word = getattr(error, "status_code", None) or text.partition(" ")[0]
    return word if word.isupper() and word.isalpha() else ""


def no_retry() -> Retry:
    """Return redis-py's retry policy that never repeats a command."""
    return Retry(NoBackoff(), 0)


class Sentinels(Sentinel):
    """The Sentinels of one URL, and every connection of this process to the master they name.

    Threads may share it. When a lookup finds another master, all connections to the old one are shut
    down, also those with a pending answer, which may never come.
    """

    def __init__(self, url: RedisUrl, *, name: str) -> None:
        options: dict[str, Any] = {
            "socket_timeout": ASK_S,
            "socket_connect_timeout": ASK_S,
            "username": url.sentinel_user or None,
            "password": url.sentinel_password or None,
            "protocol": 2,
            "retry": no_retry(),
            "client_name": name,
        }
        if url.tls is not None:
            options |= {"ssl": True, **url.tls}
        super().__init__(url.hosts, sentinel_kwargs=options)
        self._asking = threading.Lock()
        self._connections: weakref.WeakSet[MasterConnection] = weakref.WeakSet()
        self._connections_lock = threading.Lock()
        self._last: Address | None = None
        self._replicas = 0
        self._replicas_at_s = -math.inf
        self._silent_until_s: dict[int, float] = {}

    def discover_master(self, service_name: str) -> Address:
        """Return the master's address by the newest configuration of any Sentinel.

        Raises:
            redis.AuthenticationError: a Sentinel refuses the login, and no other answers.
            MasterNotFoundError: none answers, or none knows a live master of that name.
        """
        with self._asking:
            found = self._newest(service_name)
            moved = self._last not in (None, found)
            self._last = found
        if moved:
            log.warning("event=redis.moved master=%s to=%s:%d", service_name, *found)
            self._shut_down_others(found)
        return found

    def register(self, connection: MasterConnection) -> None:
        """Keep a weak reference to ``connection``, to shut it down when another server becomes the master."""
        with self._connections_lock:
            self._connections.add(connection)

    def _shut_down_others(self, master: Address) -> None:
        with self._connections_lock:
            connections = list(self._connections)
        for connection in connections:
            if (connection.host, connection.port) != master:
                connection.shut_down()

    def _newest(self, name: str) -> Address:
        began_s = time.monotonic()
        answers: list[tuple[int, dict[str, Any]]] = []
        problems: list[str] = []
        refused = ""
        others: set[str] = set()
        asked = self._awake()
        for number in asked:
            client = self.sentinels[number]
            options = client.connection_pool.connection_kwargs
            where = f"{options['host']}:{options['port']}"
            try:
                masters: Any = client.sentinel_masters()
                self._silent_until_s.pop(number, None)
            except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError, OSError) as error:
                self._silent_until_s[number] = time.monotonic() + SKIP_S
                problems.append(f"Sentinel {where}: {error}")
                if _refuses(error):
                    refused = f"{problems[-1]} (sentinel_user, sentinel_password of the URL)"
                continue
            finally:
                client.connection_pool.disconnect()  # Questions are rare, and every process asks.
            others |= set(masters)
            if name in masters:
                answers.append((_epoch(masters[name]), masters[name]))
        if not answers:
            if refused and len(problems) == len(asked):
                raise redis.AuthenticationError(refused)
            if len(problems) < self.count:
                known = ", ".join(sorted(others)) or "none"
                problems.append(f"no Sentinel knows a master {name!r}; known: {known}")
            raise MasterNotFoundError("; ".join(problems))
        # With equal epochs, a Sentinel that runs the failover comes last: it names the old master longest.
        newest = max(answers, key=lambda pair: (pair[0], "failover" not in str(pair[1]["flags"])))[1]
        where = f"{newest['ip']}:{newest['port']}"
        self._replicas = max(int(facts.get("num-slaves", 0)) for _, facts in answers)
        self._replicas_at_s = began_s
        if newest.get("is_odown"):
            raise MasterNotFoundError(f"master {name} at {where} is down, and no other is chosen yet")
        return _address(newest)

    def known_replicas(self, name: str) -> int:
        """Return how many replicas the master has, dead ones included; at most ``REPLICAS_CACHED_S`` old.

        Raises:
            redis.AuthenticationError, MasterNotFoundError: as ``discover_master``.
        """
        if time.monotonic() - self._replicas_at_s > REPLICAS_CACHED_S:
            self.discover_master(name)
        return self._replicas

    @property
    def last(self) -> Address | None:
        """The master's address at the last lookup."""
        return self._last

    def live_replicas(self, name: str, master: Address | None) -> int:
        """Return how many replicas of ``master`` could be chosen in its place, now or soon.

        These are all except those that a majority of Sentinels considers dead, which are not chosen. A
        Sentinel with an older configuration than the majority was outvoted and cannot win a vote of its
        own, so one that is cut off together with an old master is ignored.

        Raises:
            MasterNotFoundError: a majority of Sentinels does not answer, or another server is the master
                or is about to be.
        """
        answers: list[dict[str, Any]] = []
        agreeing: list[list[dict[str, Any]]] = []
        with self._asking:
            asked = self._awake()
            for number in sorted(range(self.count), key=lambda n: n not in asked):
                if number not in asked and len(agreeing) * 2 > self.count:
                    break  # Enough agree; Sentinels that did not answer recently are skipped.
                client = self.sentinels[number]
                try:
                    facts: Any = client.sentinel_master(name)
                    found: Any = client.sentinel_slaves(name)
                    self._silent_until_s.pop(number, None)
                except (redis.RedisError, OSError):
                    self._silent_until_s[number] = time.monotonic() + SKIP_S
                    continue
                finally:
                    client.connection_pool.disconnect()
                answers.append(facts)
                if _address(facts) == master:
                    agreeing.append(found)
        if _is_unsettled(answers, master, self.count):
            self.discover_master(name)  # Shuts down connections to the old master.
            raise MasterNotFoundError(f"master {name} is being replaced")
        if len(answers) * 2 <= self.count:
            raise MasterNotFoundError(f"only {len(answers)} of {self.count} Sentinels answer")
        dead: Counter[Address] = Counter()
        for replica in itertools.chain.from_iterable(agreeing):
            down = replica["is_sdown"] or replica["is_odown"] or replica["is_disconnected"]
            # A former master that is not reconfigured yet: Sentinels prefer any replica that follows.
            down = down or replica.get("role-reported") == "master"
            dead[replica["ip"], replica["port"]] += bool(down)
        return sum(votes * 2 <= self.count for votes in dead.values())

    @property
    def count(self) -> int:
        return len(self.sentinels)

    def _awake(self) -> list[int]:
        """Return which Sentinels to ask: all that answered recently, or all if none did."""
        now_s = time.monotonic()
        awake = [n for n in range(self.count) if self._silent_until_s.get(n, 0.0) <= now_s]
        return awake or list(range(self.count))


class MasterConnection(SentinelManagedConnection):
    """A connection to a server that confirms it is a master, for as long as it is one."""

    def connect_to(self, address: Address) -> None:
        self.connection_pool.sentinel_manager.register(self)
        super().connect_to(address)
        try:
            self.send_command("HELLO", check_health=False)
            role = _role(self.read_response())
        except BaseException:
            self.disconnect()
            raise
        # An old master may still claim the role, and a lookup before now could not shut this connection down.
        moved = self.connection_pool.sentinel_manager.last not in (None, address)
        if moved or role != "master":
            self.disconnect()
            raise redis.ConnectionError(f"{address[0]}:{address[1]} is a {role}, not the master any more")

    def shut_down(self) -> None:
        """Shut the socket down, from any thread; its user gets a ``ConnectionError``."""
        sock: Any = self._sock
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(
                    sock, socket.SHUT_RDWR
                )  # Not the TLS socket's own method: only the using thread may call that.

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)
        except redis.ResponseError as error:
            if code_of(error) in DOUBTFUL:
                self.mark_for_reconnect()  # Once back in its pool, Sentinels are asked again.
            if code_of(error) not in MOVED:
                raise
            self.disconnect()
            raise redis.ConnectionError(f"{self.host}:{self.port} is not the master any more") from error


class MasterTlsConnection(MasterConnection, SSLConnection):
    """A ``MasterConnection`` over TLS."""


class _MasterPool(SentinelConnectionPool):
    """A pool that closes a returned connection when its server is no longer the master."""

    def owns_connection(self, connection: Any) -> bool:
        if self.master_address != (connection.host, connection.port):
            connection.disconnect()
        return bool(ConnectionPool.owns_connection(self, connection))


class MasterPool(_MasterPool, BlockingConnectionPool):
    """A bounded pool of connections to the master; a caller waits for a free one."""


class FullMasterPool(_MasterPool):
    """A bounded pool that raises when all connections are in use, as kombu expects."""


def connection_class(url: RedisUrl) -> type[MasterConnection]:
    """Return the class of connections to the master."""
    return MasterConnection if url.tls is None else MasterTlsConnection


def master_options(url: RedisUrl) -> dict[str, Any]:
    """Return the options of a connection to the master, without its address."""
    return {
        "db": url.database,
        "username": url.user or None,
        "password": url.password or None,
        "retry": no_retry(),
        **(url.tls or {}),
    }


def _is_unsettled(answers: list[dict[str, Any]], master: Address | None, count: int) -> bool:
    """Return whether, by these answers, another server than ``master`` is the master or may be soon."""
    ours = [_epoch(facts) for facts in answers if _address(facts) == master]
    others = [_epoch(facts) for facts in answers if _address(facts) != master]
    if any("failover" in facts["flags"] for facts in answers):
        return True
    if not others:
        return False
    return len(ours) * 2 <= count or max(others) >= max(ours)


def _address(facts: dict[str, Any]) -> Address:
    return str(facts["ip"]), int(facts["port"])


def _epoch(facts: dict[str, Any]) -> int:
    return int(facts.get("config-epoch", 0))


def _role(hello: Any) -> str:
    pairs = hello.items() if isinstance(hello, dict) else zip(hello[::2], hello[1::2], strict=False)
    facts = {_text(key): value for key, value in pairs}
    return _text(facts.get("role", ""))


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _refuses(error: Exception) -> bool:
    return isinstance(error, redis.AuthenticationError) or code_of(error) in ("NOAUTH", "WRONGPASS", "NOPERM")
