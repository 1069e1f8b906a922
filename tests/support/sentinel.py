"""A master, replicas and Sentinels, each a real process with Galaxy's own logins.

The configuration is that of ``deploy/redis`` with shorter waits. All run on one address, or each server
and a Sentinel on a simulated host (``netns.py``).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis

from galaxy.client.login_urls import login_url
from galaxy.nexus import acl
from tests.support.netns import Host
from tests.support.redis_server import free_port, server_binary
from tests.support.tls import Authority
from tests.support.waiting import until

MASTER = "galaxy"
SECRET = "the-secret-of-this-test-only"
SENTINEL_PASSWORD = "sentinels-own"
DOWN_AFTER_MS = 1000
VERSION = subprocess.run([server_binary(), "--version"], capture_output=True, text=True, check=True).stdout
SETINFO = acl.knows_setinfo(VERSION.split("v=")[1].split()[0])


class Process:
    """The process of a server or Sentinel, with its folder and port; it runs on ``host`` if there is one."""

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        sentinel: bool = False,
        tls: Path | None = None,
        host: Host | None = None,
    ) -> None:
        self.name = name
        self.host = host
        self.address = "127.0.0.1" if host is None else host.address
        self._tls = tls
        self.port = free_port()
        self.folder = folder / name
        self.folder.mkdir()
        self.conf = self.folder / "server.conf"
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        arguments = [server_binary(), str(self.conf), *(["--sentinel"] if self._sentinel else [])]
        with open(self.folder / "log", "ab") as log:
            popen = subprocess.Popen if self.host is None else self.host.popen
            self._process = popen(arguments, stdout=log, stderr=log, start_new_session=True)
        self.wait()

    def wait(self, timeout_s: float = 40) -> None:
        """Return when the server answers."""
        client = self.client()
        end_s = time.monotonic() + timeout_s
        while True:
            try:
                client.ping()
                return
            except redis.RedisError:
                assert time.monotonic() < end_s, f"{self.name} does not answer: {self.tail()}"
                assert self._process is not None and self._process.poll() is None, self.tail()
                time.sleep(0.02)
            finally:
                client.close()

    def client(self) -> redis.Redis:
        if self._sentinel:
            login = {"password": SENTINEL_PASSWORD}
        else:
            login = {"username": acl.ADMIN, "password": acl.password(SECRET, acl.ADMIN)}
        secure = {} if self._tls is None else {"ssl": True, "ssl_ca_certs": str(self._tls / "ours.crt")}
        options: Any = {"socket_timeout": 5, **login, **secure}
        client = redis.Redis(self.address, self.port, **options)
        if self.host is not None:
            client.connection_pool.connection_class = _Inside
            client.connection_pool.connection_kwargs["inside"] = self.host
        return client

    def kill(self) -> None:
        """Kill the process, as a power cut would."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            process.kill()
            process.wait(timeout=30)

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def tail(self) -> str:
        return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-15:])


class _Inside(redis.Connection):
    """A connection from the network of a simulated host."""

    def __init__(self, *, inside: Host, **options: Any) -> None:
        super().__init__(**options)
        self._inside = inside

    def _connect(self) -> Any:
        with self._inside.inside():
            return super()._connect()


class SentinelSetup:
    """Servers, the first of them the master, and the three Sentinels that watch them.

    With ``tls`` they accept only TLS. ``hosts`` are the simulated hosts to run them on, in turn. ``agents``
    are the names of agents that get a login.
    """

    def __init__(
        self,
        folder: Path,
        *,
        replicas: int = 2,
        lines: Sequence[str] = (),
        tls: bool = False,
        hosts: Sequence[Host] = (),
        agents: Sequence[str] = (),
    ) -> None:
        users = acl.file(SECRET, agents, setinfo=SETINFO, sentinel=True)
        self._tls = folder if tls else None
        at = hosts or (None, None, None)
        self.servers = [
            Process(folder, f"redis{n}", tls=self._tls, host=at[n % len(at)]) for n in range(replicas + 1)
        ]
        self.sentinels = [
            Process(folder, f"sentinel{n}", sentinel=True, tls=self._tls, host=at[n % len(at)])
            for n in range(3)
        ]
        secure = _tls_lines(folder) if tls else []
        for number, server in enumerate(self.servers):
            (server.folder / "users.acl").write_text(users)
            first = self.servers[0]
            follows = [f"replicaof {first.address} {first.port}"] if number else []
            _write(server.conf, [*_server_lines(server), *follows, *lines], secure)
        for sentinel in self.sentinels:
            _write(sentinel.conf, _sentinel_lines(sentinel, self.servers[0]), secure)

    def start(self) -> None:
        for process in [*self.servers, *self.sentinels]:
            process.start()
        until("replicas follow and Sentinels know each other", self.is_complete, 60, every_s=0.05)

    def stop(self) -> None:
        for process in [*self.sentinels, *self.servers]:
            process.kill()

    def is_complete(self) -> bool:
        """Return whether all replicas follow the master, and every Sentinel knows all the others."""
        with suppress(redis.RedisError):
            facts: Any = self.master().client().info("replication")
            if facts["role"] != "master":
                return False
            states = [facts[f"slave{n}"]["state"] for n in range(facts["connected_slaves"])]
            return states == ["online"] * (len(self.servers) - 1) and all(
                map(self._knows_all, self.sentinels)
            )
        return False

    def _knows_all(self, sentinel: Process) -> bool:
        """Return whether a Sentinel knows the other Sentinels and all replicas."""
        client = sentinel.client()
        facts: Any = client.sentinel_master(MASTER)
        replicas: Any = client.sentinel_slaves(MASTER)
        return (
            facts["num-other-sentinels"] == len(self.sentinels) - 1
            and len(replicas) == len(self.servers) - 1
            and all(one["role-reported"] == "slave" and not one["is_sdown"] for one in replicas)
        )

    def master(self) -> Process:
        """Return the server that most Sentinels consider the master."""
        ports = [self._master_port(sentinel) for sentinel in self.sentinels]
        port = max(set(ports), key=ports.count)
        return next(server for server in self.servers if server.port == port)

    def failover(self) -> None:
        """Start a failover, as an operator would."""
        self.sentinels[0].client().sentinel_failover(MASTER)

    def url(self, role: str = acl.ADMIN, host: str = "", **parameters: str) -> str:
        where = ",".join(f"{sentinel.address}:{sentinel.port}" for sentinel in self.sentinels)
        given = {"master": MASTER, "sentinel_password": SENTINEL_PASSWORD} | parameters
        if self._tls is not None:
            given["ca"] = str(self._tls / "ours.crt")
        query = "&".join(f"{name}={value}" for name, value in given.items())
        scheme = "sentinel" if self._tls is None else "sentinels"
        return login_url(f"{scheme}://{where}/0?{query}", SECRET, role, host)

    def await_master(self, other_than: Process, timeout_s: float = 60) -> Process:
        """Return the new master once most Sentinels know it."""

        def other() -> Process | None:
            with suppress(redis.RedisError):
                return found if (found := self.master()) is not other_than else None
            return None

        found = until("another master", other, timeout_s, every_s=0.05)
        assert found is not None
        return found

    def await_complete(self, timeout_s: float = 60) -> None:
        """Wait until ``is_complete``, for example after a failover."""
        until(
            "replicas follow the master and all Sentinels know them",
            self.is_complete,
            timeout_s,
            every_s=0.05,
        )

    def _master_port(self, sentinel: Process) -> int:
        facts: Any = sentinel.client().sentinel_get_master_addr_by_name(MASTER)
        return int(facts[1])


@contextmanager
def running_sentinel_setup(**options: Any) -> Iterator[SentinelSetup]:
    """Run servers and Sentinels for the length of a ``with``."""
    folder = Path(tempfile.mkdtemp(prefix="galaxy-sentinel-"))
    setup = SentinelSetup(folder, **options)
    try:
        setup.start()
        yield setup
    finally:
        setup.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _server_lines(server: Process) -> list[str]:
    return [
        f"bind {server.address}", f"port {server.port}", f'dir "{server.folder}"', "daemonize no",
        "databases 1",
        f'aclfile "{server.folder / "users.acl"}"',
        "appendonly yes", "appendfsync everysec", 'save ""', "maxmemory-policy noeviction",
        f"masteruser {acl.REPLICA}", f"masterauth {acl.password(SECRET, acl.REPLICA)}",
        "min-replicas-to-write 1", "min-replicas-max-lag 3", "repl-diskless-sync-delay 0",
        "repl-timeout 10", "repl-ping-replica-period 2",
    ]  # fmt: skip


def _sentinel_lines(sentinel: Process, master: Process) -> list[str]:
    return [
        f"bind {sentinel.address}", f"port {sentinel.port}", f'dir "{sentinel.folder}"', "daemonize no",
        f"requirepass {SENTINEL_PASSWORD}",
        f"sentinel monitor {MASTER} {master.address} {master.port} 2",
        f"sentinel auth-user {MASTER} {acl.SENTINEL}",
        f"sentinel auth-pass {MASTER} {acl.password(SECRET, acl.SENTINEL)}",
        f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}",
        f"sentinel failover-timeout {MASTER} 3000",
        f"sentinel parallel-syncs {MASTER} 2",
    ]  # fmt: skip


def _tls_lines(folder: Path) -> list[str]:
    ours = Authority(folder, "ours")
    certificate, key = ours.issue("server", "IP:127.0.0.1")
    return [
        f'tls-cert-file "{certificate}"', f'tls-key-file "{key}"', f'tls-ca-cert-file "{ours.certificate}"',
        "tls-auth-clients no", "tls-replication yes",
    ]  # fmt: skip


def _write(path: Path, lines: list[str], secure: list[str]) -> None:
    """Write a configuration file; with TLS files the server listens with TLS only."""
    if secure:
        lines = [f"port 0\ntls-{line}" if line.startswith("port ") else line for line in lines]
    path.write_text("\n".join([*secure, *lines]) + "\n")
