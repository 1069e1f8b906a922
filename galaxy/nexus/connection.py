"""Connections to Redis: explicit timeouts, no silent retries, errors for people.

By default redis-py 8 repeats a timed-out command ten times and ends every blocking read after five
seconds; a repeated LPUSH is a doubled message. So there are no retries here, and every blocking call
is shorter than the socket's timeout.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import redis

from galaxy.errors import GalaxyError, Refused, Unreachable
from galaxy.nexus.sentinel import MasterPool, Sentinels, code_of, connection_class, master_options, no_retry
from galaxy.nexus.url import parse

CONNECT_S: Final = 2.0
SOCKET_S: Final = 5.0
BLOCK_S: Final = 2.0
"""Longest single blocking call; longer waits are several of them."""
CONNECTIONS_MAX: Final = 64
VERSION_MIN: Final = 7
REFUSALS: Final = {
    "MISCONF": (
        "takes no writes: it cannot write to its disk",
        "make room where it keeps its append-only file; it continues by itself",
    ),
    "OOM": (
        "takes no writes: its memory is full",
        "raise maxmemory of the server (CONFIG SET maxmemory); it continues by itself",
    ),
    "NOREPLICAS": (
        "takes no writes: too few replicas follow it (min-replicas-to-write)",
        "start the replicas; while Sentinels choose a new master, try again in a while",
    ),
    "READONLY": ("is a replica and takes no writes", "name the master, or Sentinels: sentinel://..."),
    "MASTERDOWN": ("is a replica whose master is gone", "name the master, or Sentinels: sentinel://..."),
    "LOADING": ("is still loading its data", "try again in a while"),
    "BUSY": ("is busy with a script", "try again in a while"),
    "UNBLOCKED": ("has just become a replica", "try again in a while"),
}
"""By error code of a server that cannot serve now: its meaning, and what to do."""


def full_url(url: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return ``url`` as both redis-py and kombu read it, with the TLS files as parameters.

    kombu treats a ``rediss`` URL without parameters as one without TLS. For Sentinels the result only
    identifies the broker: see ``nexus.sentinel_transport``.

    Raises:
        UsageError: it is not a Redis URL, or has an unknown parameter.
    """
    return parse(url, environ).server()


def open_client(
    url: str, *, name: str, socket_s: float = SOCKET_S, sentinels: Sentinels | None = None
) -> redis.Redis:
    """Return a client with a bounded pool; nothing is connected yet.

    Clients of one process may share ``sentinels``.

    Raises:
        UsageError: ``url`` is not a Redis URL, or has an unknown parameter.
    """
    parsed = parse(url)
    options: dict[str, Any] = {
        "socket_timeout": socket_s,
        "socket_connect_timeout": min(CONNECT_S, socket_s),
        "socket_keepalive": True,
        "retry_on_timeout": False,
        "protocol": 2,
        "client_name": client_name(name),
        "max_connections": CONNECTIONS_MAX,
        "timeout": socket_s,
    }
    if parsed.master:
        pool: redis.ConnectionPool = MasterPool(
            parsed.master,
            sentinels or Sentinels(parsed, name=client_name(name)),
            connection_class=connection_class(parsed),
            **options,
            **master_options(parsed),
        )
    else:
        pool = redis.BlockingConnectionPool.from_url(parsed.server(), retry=no_retry(), **options)
    return redis.Redis(connection_pool=pool)


def client_name(name: str) -> str:
    """Return ``name`` as CLIENT SETNAME accepts it."""
    return re.sub(r"\s", "_", name)


@contextmanager
def reaching(address: str) -> Iterator[None]:
    """Translate redis-py's errors into Galaxy's.

    Raises:
        Refused: the password is wrong, or the login may not do this.
        Unreachable: no answer in time, or Redis cannot serve now.
    """
    try:
        yield
    except (redis.RedisError, OSError) as error:
        ours = _translated(address, error)
        if ours is None:
            raise
        raise ours from error


def _translated(address: str, error: Exception) -> GalaxyError | None:
    code = code_of(error)
    refused = isinstance(error, redis.AuthenticationError | redis.exceptions.NoPermissionError)
    if refused or code in ("NOAUTH", "WRONGPASS", "NOPERM") or "invalid password" in str(error):
        return _refused(address, error)
    if code in REFUSALS:
        what, way_out = REFUSALS[code]
        return Unreachable(
            f"Redis at {address} {what}", details=[f"it says: {_first_line(error)}"], hint=way_out
        )
    if isinstance(error, redis.ConnectionError | redis.TimeoutError | OSError):
        return Unreachable(
            f"cannot reach Redis at {address}: {_first_line(error)}",
            hint="check that the server runs there; galaxy context list has the clusters known here",
        )
    if isinstance(error, redis.exceptions.InvalidResponse):
        return Unreachable(f"the server at {address} is not Redis: {_first_line(error)}")
    return None


def check_server(client: redis.Redis, address: str, timeout_s: float) -> None:
    """Check that a Redis 7 or Valkey answers within ``timeout_s``, name resolution included.

    Raises:
        Refused: wrong password. Unreachable: no answer. GalaxyError: the server is too old.
    """
    outcome: list[BaseException | dict[str, str]] = []

    def ask() -> None:
        try:
            with reaching(address):
                untyped: Any = client
                outcome.append(_facts(untyped.execute_command("HELLO")))
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread.
            outcome.append(error)

    thread = threading.Thread(target=ask, name="nexus-connect", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not outcome:
        raise Unreachable(f"cannot reach Redis at {address}: no answer within {timeout_s:g} s")
    facts = outcome[0]
    if isinstance(facts, BaseException):
        raise facts
    major = facts.get("version", "0").split(".")[0]
    if not major.isdecimal() or int(major) < VERSION_MIN:
        raise GalaxyError(
            f"the server at {address} is {facts.get('server', 'Redis')} {facts.get('version', '?')}; "
            f"Galaxy needs Redis {VERSION_MIN} or newer, or Valkey",
        )


def _facts(answer: Any) -> dict[str, str]:
    if isinstance(answer, dict):
        return {_text(key): _text(value) for key, value in answer.items()}
    return {_text(answer[i]): _text(answer[i + 1]) for i in range(0, len(answer) - 1, 2)}


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _refused(address: str, error: Exception) -> Refused:
    return Refused(
        f"Redis at {address} refuses this login: {_first_line(error)}",
        hint="check the password in the URL, in GALAXY_REDIS or in the file",
    )


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
