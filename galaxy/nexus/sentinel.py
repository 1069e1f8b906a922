"""The way to the master that Sentinels agree on, and away from a server that is it no longer.

redis-py asks the first Sentinel that answers and believes it. Here all are asked and the newest
configuration counts (``config-epoch``), so that a Sentinel that was cut off leads nobody astray.
Whoever is then connected to must say itself that it is a master, and a connection ends as soon
as its server says that it is none any more. Pools look for the master again by themselves.
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
"""Longest that one Sentinel is waited for."""
SKIP_S: Final = 5.0
"""How long a Sentinel that did not answer is left in peace."""
FRESH_S: Final = 1.0
"""How long the number of replicas may be believed: one that joins later than that counts."""
MOVED: Final = ("READONLY", "UNBLOCKED", "MASTERDOWN")
"""Codes of the answers of a server that was the master, and is not."""
DOUBTFUL: Final = ("NOREPLICAS",)
"""And of one that may have been replaced without having been told."""

log = logging.getLogger(__name__)

Address = tuple[str, int]


def code_of(error: BaseException) -> str:
    """Return the first word of what a server said, like READONLY; empty when it said nothing."""
    if not isinstance(error, redis.RedisError):
        return ""
    text = str(error).rpartition("caused error: ")[2]  # How redis-py tells which of a pipeline it was.
    word = getattr(error, "status_code", None) or text.partition(" ")[0]
    return word if word.isupper() and word.isalpha() else ""


def no_retry() -> Retry:
    """Return what keeps redis-py from repeating a command behind our back."""
    return Retry(NoBackoff(), 0)


class Sentinels(Sentinel):
    """The Sentinels of one URL, and every connection in this process that they led to a master.

    Threads may share it. When one finds that the master is another, all connections to the old
    one end, also those where somebody waits for an answer: it may never come.
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
        self._opened: weakref.WeakSet[MasterConnection] = weakref.WeakSet()
        self._opening = threading.Lock()
        self._last: Address | None = None
        self._replicas = 0
        self._looked_s = -math.inf
        self._silent_until_s: dict[int, float] = {}

    def discover_master(self, service_name: str) -> Address:
        """Return where the master is by the newest word of any Sentinel.

        Raises:
            redis.AuthenticationError: a Sentinel does not let us in, and no other answers.
            MasterNotFoundError: none answers, or none knows of a living master of that name.
        """
        with self._asking:
            found = self._newest(service_name)
            moved = self._last not in (None, found)
            self._last = found
        if moved:
            log.warning("event=redis.moved master=%s to=%s:%d", service_name, *found)
            self._leave(found)
        return found

    def opened(self, connection: MasterConnection) -> None:
        """Remember ``connection`` for as long as there is it."""
        with self._opening:
            self._opened.add(connection)

    def _leave(self, master: Address) -> None:
        with self._opening:
            connections = list(self._opened)
        for connection in connections:
            if (connection.host, connection.port) != master:
                connection.hang_up()

    def _newest(self, name: str) -> Address:
        began_s = time.monotonic()
        said: list[tuple[int, dict[str, Any]]] = []
        problems: list[str] = []
        refused = ""
        others: set[str] = set()
        asked = self._asked()
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
                client.connection_pool.disconnect()  # It is asked rarely, and by everybody.
            others |= set(masters)
            if name in masters:
                said.append((_epoch(masters[name]), masters[name]))
        if not said:
            if refused and len(problems) == len(asked):
                raise redis.AuthenticationError(refused)
            if len(problems) < self.count:
                known = ", ".join(sorted(others)) or "none"
                problems.append(f"no Sentinel knows a master {name!r}; known: {known}")
            raise MasterNotFoundError("; ".join(problems))
        # Of one epoch: a Sentinel that is at replacing the master knows least who it will be.
        newest = max(said, key=lambda pair: (pair[0], "failover" not in str(pair[1]["flags"])))[1]
        where = f"{newest['ip']}:{newest['port']}"
        self._replicas = max(int(facts.get("num-slaves", 0)) for _, facts in said)
        self._looked_s = began_s
        if newest.get("is_odown"):
            raise MasterNotFoundError(f"master {name} at {where} is down, and no other is chosen yet")
        return _address(newest)

    def known(self, name: str) -> int:
        """Return how many replicas of the master are known, dead ones included; ``FRESH_S`` ago at most.

        Raises:
            redis.AuthenticationError, MasterNotFoundError: as ``discover_master``.
        """
        if time.monotonic() - self._looked_s > FRESH_S:
            self.discover_master(name)
        return self._replicas

    @property
    def last(self) -> Address | None:
        """Where the master was when it was last looked for."""
        return self._last

    def living(self, name: str, master: Address | None) -> int:
        """Return how many replicas of ``master`` might be chosen in its place, now or soon.

        All but those that most Sentinels hold for dead: these are passed over. A Sentinel that
        knows only of an older configuration than most was outvoted, and gets no votes for another
        of its own: where it stands beside an old master, cut off from the rest, it is not heard.

        Raises:
            MasterNotFoundError: most Sentinels do not answer, another is the master, or is about to be.
        """
        answers: list[dict[str, Any]] = []
        agreeing: list[list[dict[str, Any]]] = []
        with self._asking:
            asked = self._asked()
            for number in sorted(range(self.count), key=lambda n: n not in asked):
                if number not in asked and len(agreeing) * 2 > self.count:
                    break  # Enough agree; who did not answer lately is left in peace.
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
        if _unsettled(answers, master, self.count):
            self.discover_master(name)  # Whoever is still with the old one shall leave it.
            raise MasterNotFoundError(f"master {name} is being replaced")
        if len(answers) * 2 <= self.count:
            raise MasterNotFoundError(f"only {len(answers)} of {self.count} Sentinels answer")
        dead: Counter[Address] = Counter()
        for replica in itertools.chain.from_iterable(agreeing):
            down = replica["is_sdown"] or replica["is_odown"] or replica["is_disconnected"]
            # An old master that is not told yet: any replica that follows is preferred to it.
            down = down or replica.get("role-reported") == "master"
            dead[replica["ip"], replica["port"]] += bool(down)
        return sum(votes * 2 <= self.count for votes in dead.values())

    @property
    def count(self) -> int:
        return len(self.sentinels)

    def _asked(self) -> list[int]:
        """Return which Sentinels to ask: all, but those that just did not answer."""
        now_s = time.monotonic()
        awake = [n for n in range(self.count) if self._silent_until_s.get(n, 0.0) <= now_s]
        return awake or list(range(self.count))


class MasterConnection(SentinelManagedConnection):
    """A connection to a master by its own word, for as long as it is one."""

    def connect_to(self, address: Address) -> None:
        self.connection_pool.sentinel_manager.opened(self)
        super().connect_to(address)
        try:
            self.send_command("HELLO", check_health=False)
            role = _role(self.read_response())
        except BaseException:
            self.disconnect()
            raise
        # It may not know it yet, and who found the new one could not hang up what was not connected yet.
        moved = self.connection_pool.sentinel_manager.last not in (None, address)
        if moved or role != "master":
            self.disconnect()
            raise redis.ConnectionError(f"{address[0]}:{address[1]} is a {role}, not the master any more")

    def hang_up(self) -> None:
        """End it from any thread; whoever uses it gets a ``ConnectionError``."""
        sock: Any = self._sock
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # TLS' own is its user's.

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)
        except redis.ResponseError as error:
            if code_of(error) in DOUBTFUL:
                self.mark_for_reconnect()  # Back in its pool: then Sentinels are asked again.
            if code_of(error) not in MOVED:
                raise
            self.disconnect()
            raise redis.ConnectionError(f"{self.host}:{self.port} is not the master any more") from error


class MasterTlsConnection(MasterConnection, SSLConnection):
    """The same over TLS."""


class _Homing(SentinelConnectionPool):
    """Keeps its connections, and drops those to a server that is not the master when they come back."""

    def owns_connection(self, connection: Any) -> bool:
        if self.master_address != (connection.host, connection.port):
            connection.disconnect()
        return bool(ConnectionPool.owns_connection(self, connection))


class MasterPool(_Homing, BlockingConnectionPool):
    """A bounded pool of connections to the master; who finds none free waits."""


class FullMasterPool(_Homing):
    """The like that raises when all are in use, as kombu wants it."""


def connection_class(url: RedisUrl) -> type[MasterConnection]:
    """Return the class of connections to the master."""
    return MasterConnection if url.tls is None else MasterTlsConnection


def master_options(url: RedisUrl) -> dict[str, Any]:
    """Return what a connection to the master needs to know beside its address."""
    return {
        "db": url.database,
        "username": url.user or None,
        "password": url.password or None,
        "retry": no_retry(),
        **(url.tls or {}),
    }


def _unsettled(answers: list[dict[str, Any]], master: Address | None, count: int) -> bool:
    """Tell whether by these Sentinels' words another than ``master`` is the master, or may be soon."""
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
