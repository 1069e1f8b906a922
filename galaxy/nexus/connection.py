"""Connections to Redis: explicit timeouts, no silent repeats, errors that a person understands.

redis-py 8 repeats a timed-out command ten times and cuts every blocking read after five
seconds unless told otherwise; a repeated LPUSH is a doubled message. So: no retries here, and
every blocking call is shorter than the socket's timeout.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from galaxy.errors import GalaxyError, Refused, Unreachable, UsageError

CONNECT_S: Final = 2.0
SOCKET_S: Final = 5.0
BLOCK_S: Final = 2.0
"""Longest single blocking call; longer waits are several of them."""
CONNECTIONS_MAX: Final = 64
SCHEMES: Final = ("redis", "rediss")
VERSION_MIN: Final = 7
TLS_FILES: Final = {
    "ssl_ca_certs": ("ca", "GALAXY_REDIS_CA"),
    "ssl_certfile": ("cert", "GALAXY_REDIS_CERT"),
    "ssl_keyfile": ("key", "GALAXY_REDIS_KEY"),
}
"""Parameters of a TLS URL: what redis-py calls them, what people do, and the environment."""


def address_of(url: str) -> str:
    """Return ``url`` without its password, fit for messages.

    Raises:
        UsageError: it is not a Redis URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"not a Redis URL: {error}", hint="redis://[:PASSWORD@]HOST:PORT/0") from error
    database = parts.path.strip("/")
    if parts.scheme not in SCHEMES or not parts.hostname or (database and not database.isdecimal()):
        raise UsageError("not a Redis URL", hint="redis://[:PASSWORD@]HOST:PORT/0")
    return f"{parts.hostname}:{port or 6379}"


def full_url(url: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return ``url`` as redis-py and kombu both read it; with TLS, who answers is always checked.

    ``rediss://...?ca=FILE&cert=FILE&key=FILE``; what is missing comes from GALAXY_REDIS_CA,
    GALAXY_REDIS_CERT and GALAXY_REDIS_KEY, and without a CA the system's are believed. kombu
    would take a ``rediss`` URL without parameters for one without TLS.

    Raises:
        UsageError: it is not a Redis URL, or has a parameter that is none of these.
    """
    address_of(url)
    plain, _, query = url.partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    if urlsplit(url).scheme != "rediss":
        if given:
            raise UsageError(
                f"a URL without TLS takes no parameters, not {sorted(given)}", hint="rediss://..."
            )
        return url
    tls = {"ssl_cert_reqs": "required"}
    for name, (short, variable) in TLS_FILES.items():
        value = given.pop(short, "") or given.pop(name, "") or environ.get(variable, "")
        if value:
            tls[name] = value
    if given.pop("ssl_cert_reqs", "required") != "required" or given:
        shown = ", ".join(sorted(given)) or "ssl_cert_reqs other than required"
        raise UsageError(f"a TLS URL takes ca, cert and key, not {shown}", hint="rediss://...?ca=FILE")
    for name, value in tls.items():
        if name in TLS_FILES and not os.access(value, os.R_OK):
            raise UsageError(f"cannot read {value}, which is {TLS_FILES[name][0]} of the Redis URL")
    return f"{plain}?{urlencode(tls, safe='/')}"


def open_client(url: str, *, name: str, socket_s: float = SOCKET_S) -> redis.Redis:
    """Return a client with a bounded pool; nothing is connected yet.

    Raises:
        UsageError: ``url`` is not one, or asks for what there is not.
    """
    try:
        pool = redis.BlockingConnectionPool.from_url(
            full_url(url),
            socket_timeout=socket_s,
            socket_connect_timeout=min(CONNECT_S, socket_s),
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
            retry_on_timeout=False,
            protocol=2,
            client_name=re.sub(r"\s", "_", name),
            max_connections=CONNECTIONS_MAX,
            timeout=socket_s,
        )
        pool.connection_class(**pool.connection_kwargs)  # The query of a URL may name what is no option.
    except (ValueError, TypeError) as error:
        raise UsageError(f"not a Redis URL: {error}", hint="redis://[:PASSWORD@]HOST:PORT/0") from error
    return redis.Redis(connection_pool=pool)


@contextmanager
def reaching(address: str) -> Iterator[None]:
    """Turn redis-py's errors into ours.

    Raises:
        Refused: the password is wrong, or the login may not do this.
        Unreachable: no answer in time, or Redis cannot serve now.
    """
    try:
        yield
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise _refused(address, error) from error
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise Unreachable(
            f"cannot reach Redis at {address}: {_first_line(error)}",
            hint="galaxy status, or check that the server runs and the address is right",
        ) from error
    except redis.exceptions.InvalidResponse as error:
        raise Unreachable(f"what answers at {address} is not a Redis: {_first_line(error)}") from error
    except redis.ResponseError as error:
        text = str(error)
        if text.startswith(("NOAUTH", "WRONGPASS", "NOPERM")) or "invalid password" in text:
            raise _refused(address, error) from error
        if text.startswith(("LOADING", "MASTERDOWN", "READONLY", "MISCONF", "OOM", "BUSY", "NOREPLICAS")):
            raise Unreachable(f"Redis at {address} cannot serve now: {_first_line(error)}") from error
        raise


def check_server(client: redis.Redis, address: str, timeout_s: float) -> None:
    """Make sure that a Redis 7 or Valkey answers within ``timeout_s``, name look-up included.

    Raises:
        Refused: wrong password. Unreachable: no answer. GalaxyError: the server is too old.
    """
    outcome: list[BaseException | dict[str, str]] = []

    def ask() -> None:
        try:
            with reaching(address):
                untyped: Any = client
                outcome.append(_facts(untyped.execute_command("HELLO")))
        except Exception as error:  # noqa: BLE001 - it is raised in the caller's thread.
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
        hint="check the password in the URL or in GALAXY_REDIS",
    )


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
