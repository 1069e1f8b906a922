"""Parses the URL of a cluster's Redis: one server, or Sentinels that know the master.

    redis://USER:PASSWORD@HOST:PORT/0
    rediss://USER:PASSWORD@HOST:PORT/0?ca=FILE&cert=FILE&key=FILE
    sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT,HOST:PORT/0?master=NAME
    sentinels://...                                           the same with TLS, to Sentinels and servers

The login is Redis' own; Sentinel's comes as ``sentinel_user`` and ``sentinel_password``.
``replicas`` is how many replicas must confirm a leader's commit before anything is sent or answered.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode

from galaxy.errors import UsageError
from galaxy.model.base import Struct
from galaxy.suggest import nearest

SCHEMES: Final = ("redis", "rediss", "sentinel", "sentinels")
TLS_FILES: Final = {
    "ssl_ca_certs": ("ca", "GALAXY_REDIS_CA"),
    "ssl_certfile": ("cert", "GALAXY_REDIS_CERT"),
    "ssl_keyfile": ("key", "GALAXY_REDIS_KEY"),
}
"""Parameters of a TLS URL: redis-py's name, the name in URLs, and the environment variable."""
REPLICAS_MAX: Final = 9
HINT: Final = "redis://[:PASSWORD@]HOST:PORT/0"
SENTINEL_HINT: Final = "sentinel://USER:PASSWORD@HOST:26379,HOST:26379,HOST:26379/0?master=NAME"

_WHERE: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/\s,;]+)(?::(\d{1,5}))?")
_OTHERS: Final = {
    "redis+sentinel": "sentinel", "redis-sentinel": "sentinel", "rediss+sentinel": "sentinels",
    "rediss-sentinel": "sentinels", "sentinel+tls": "sentinels",
}  # fmt: skip
"""Other projects' names of the schemes."""


class RedisUrl(Struct, frozen=True, kw_only=True):
    """The parts of a URL. ``hosts`` are Sentinels if ``master`` is set, else the one server.

    ``tls`` has redis-py's ``ssl_*`` options; None means no TLS.
    """

    hosts: tuple[tuple[str, int], ...]
    database: int = 0
    user: str = ""
    password: str = ""
    tls: dict[str, str] | None = None
    master: str = ""
    replicas: int = 0
    sentinel_user: str = ""
    sentinel_password: str = ""

    @property
    def address(self) -> str:
        """The address without its password, for messages."""
        where = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"master {self.master} of the Sentinels at {where}" if self.master else where

    def __repr__(self) -> str:
        return f"<RedisUrl {self.address}>"

    def server(self) -> str:
        """Return the URL as redis-py and kombu read it; with Sentinels, that of the first Sentinel."""
        login = ""
        if self.user or self.password:
            login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@"
        host, port = self.hosts[0]
        shown = f"[{host}]" if ":" in host else host
        plain = f"{login}{shown}:{port}/{self.database}"
        if self.tls is None or self.master:
            return f"redis://{plain}"
        return f"rediss://{plain}?{urlencode(self.tls, safe='/')}"


def address_of(url: str) -> str:
    """Return the address in ``url``, without its password, for messages.

    Raises:
        UsageError: it is not a Redis URL.
    """
    return parse(url, {}, files=False).address


def parse(url: str, environ: Mapping[str, str] = os.environ, *, files: bool = True) -> RedisUrl:
    """Parse a URL. With TLS the server's certificate is always verified.

    Parameters missing in the URL come from GALAXY_REDIS_CA, GALAXY_REDIS_CERT, GALAXY_REDIS_KEY (without
    a CA the system's are trusted) and GALAXY_SENTINEL_PASSWORD. With ``files`` the TLS files must be
    readable.

    Raises:
        UsageError: it is not a Redis URL, or has an unknown parameter.
    """
    try:
        return _parse(url, environ, files=files)
    except _QuotingError as error:
        if _has_a_misplaced_at(url):  # What follows a delimiter may be part of a password: quote nothing.
            raise UsageError(
                "not a Redis URL: a / ? # or @ in its user or password is written %2F %3F %23 %40", hint=HINT
            ) from None
        raise UsageError(error.message, details=error.details, hint=error.hint) from None


class _QuotingError(UsageError):
    """An error that is only right, and may only be quoted, if no password has a delimiter of URLs."""


def _has_a_misplaced_at(url: str) -> bool:
    """Return whether there is an ``@`` after the login."""
    rest = url.partition("://")[2]
    end = re.search(r"[/?#]|$", rest)
    assert end is not None
    return "@" in rest[end.start() :]


def _parse(url: str, environ: Mapping[str, str], *, files: bool) -> RedisUrl:
    scheme, split, rest = url.partition("://")
    if scheme not in SCHEMES or not split:
        raise UsageError("not a Redis URL", hint=_spelling(scheme))
    if any("\ud800" <= letter <= "\udfff" for letter in url):
        raise UsageError("not a Redis URL: it is not text in UTF-8", hint=HINT)
    sentinel, secure = scheme.startswith("sentinel"), scheme in ("rediss", "sentinels")
    plain, _, query = rest.partition("?")
    netloc, _, path = plain.partition("/")
    if "@" in path:
        raise _QuotingError("not a Redis URL", hint=HINT)
    login, _, where = netloc.rpartition("@")
    user, _, password = login.partition(":")
    database = path.strip("/")
    if database and not database.isdecimal():
        raise _QuotingError(f"not a Redis URL: database {database[:40]!r} is not a number", hint=HINT)
    hosts = _hosts(where, sentinel)
    given = dict(parse_qsl(query, keep_blank_values=True))
    tls = _tls(given, environ, files=files) if secure else None
    if not sentinel and "master" in given:
        raise UsageError("master= names what Sentinels watch", hint=SENTINEL_HINT)
    master = given.pop("master", "")
    if sentinel and not master:
        raise UsageError(
            "the URL names no master" + (" (master_name is master here)" if "master_name" in given else ""),
            details=["Sentinels watch several masters by name; master= says which"],
            hint=SENTINEL_HINT,
        )
    replicas = _count(given.pop("replicas", "1" if sentinel else "0"))
    sentinel_user, sentinel_password = "", ""
    if sentinel:
        sentinel_user = given.pop("sentinel_user", "")
        sentinel_password = given.pop("sentinel_password", environ.get("GALAXY_SENTINEL_PASSWORD", ""))
    if given:
        raise _unknown(sorted(given)[0], scheme, sentinel=sentinel, secure=secure)
    return RedisUrl(
        hosts=hosts,
        database=int(database or 0),
        user=unquote(user),
        password=unquote(password),
        tls=tls,
        master=master,
        replicas=replicas,
        sentinel_user=sentinel_user,
        sentinel_password=sentinel_password,
    )


def _hosts(where: str, sentinel: bool) -> tuple[tuple[str, int], ...]:
    hint = SENTINEL_HINT if sentinel else HINT
    if ";" in where:
        raise UsageError("not a Redis URL: Sentinels are separated by commas, not by ;", hint=hint)
    if "," in where and not sentinel:
        raise UsageError("not a Redis URL: more than one host", hint=SENTINEL_HINT)
    hosts = []
    for text in where.split(","):
        match = _WHERE.fullmatch(text)
        port = int(match[2] or (26379 if sentinel else 6379)) if match else 0
        if match is None or not 0 < port < 65536:
            raise _not_a_host(text, hint)
        hosts.append((match[1].strip("[]"), port))
    return tuple(hosts)


def _not_a_host(text: str, hint: str) -> UsageError:
    """Return the error for what is no host; ``name:text`` is quoted by its name only: it may be a login."""
    name, colon, port = text.partition(":")
    if not name or (colon and not port.isdecimal()):
        return _QuotingError(
            "not a Redis URL: what follows :// is not HOST:PORT",
            details=["a login is followed by @ and the host"],
            hint=hint,
        )
    return _QuotingError(f"not a Redis URL: {text[:80]!r} is not HOST:PORT", hint=hint)


def _tls(given: dict[str, str], environ: Mapping[str, str], *, files: bool) -> dict[str, str]:
    tls = {"ssl_cert_reqs": "required"}
    for name, (short, variable) in TLS_FILES.items():
        value = given.pop(short, "") or given.pop(name, "") or environ.get(variable, "")
        if value and files and not os.access(value, os.R_OK):
            raise _QuotingError(f"cannot read {value}, which is {TLS_FILES[name][0]} of the Redis URL")
        if value:
            tls[name] = value
    if given.pop("ssl_cert_reqs", "required") != "required":
        raise UsageError("a TLS URL always verifies the server: no ssl_cert_reqs", hint="?ca=FILE")
    return tls


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) > REPLICAS_MAX:
        raise _QuotingError(
            f"replicas={text[:40]} of the Redis URL is not a number from 0 to {REPLICAS_MAX}",
            hint="replicas=1: an answer waits until one replica has the change",
        )
    return int(text)


def _unknown(name: str, scheme: str, *, sentinel: bool, secure: bool) -> UsageError:
    known = ["replicas"]
    known += ["master", "sentinel_user", "sentinel_password"] if sentinel else []
    known += [short for short, _ in TLS_FILES.values()] if secure else []
    near = nearest(name, known)
    if not secure and (name.startswith("ssl_") or name in ("ca", "cert", "key")):
        return _QuotingError(
            f"a URL without TLS takes no {name}", hint="sentinels://..." if sentinel else "rediss://..."
        )
    return _QuotingError(
        f"{scheme}://... takes no {name!r}" + (f"; did you mean {near!r}?" if near else ""),
        details=[f"it takes {', '.join(known)}"],
    )


def _spelling(scheme: str) -> str:
    ours = _OTHERS.get(scheme)
    return f"{ours}://{SENTINEL_HINT.partition('://')[2]}" if ours else f"{HINT}, or {SENTINEL_HINT}"
