"""The cluster under test: ``galaxy up`` in a folder, plus standby leaders that this process starts."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import psutil

from galaxy.client import Galaxy
from galaxy.client.cluster_file import ClusterFile, read_cluster
from galaxy.client.login_urls import login_url
from galaxy.errors import GalaxyError, HostError
from galaxy.model.messages.names import APPMASTER, RESMAN
from galaxy.nexus import Nexus, acl, keys
from galaxy.nexus.connection import reaching
from galaxy.testing.chaos.tcp_proxy import TcpProxy

GALAXY: Final = (sys.executable, "-P", "-m", "galaxy.cli.main")
ROLES: Final = (RESMAN, APPMASTER)
UP_S: Final = 120.0
RESTART_S: Final = 0.5
"""Time after its death until a standby is restarted; ``galaxy up`` does the same with its parts."""


@dataclass
class Standby:
    """A leader that this process started, and that reaches Redis through a proxy that can be cut."""

    role: str
    name: str
    proxy: TcpProxy
    log: Path
    process: subprocess.Popen[bytes] | None = None
    died_s: float = 0.0
    argv: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """Start the process."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                env={**os.environ, **self.env}, start_new_session=True,
            )  # fmt: skip

    def restart_if_dead(self) -> None:
        """Start it again once it has been dead for ``RESTART_S``."""
        if self.process is not None and self.process.poll() is not None:
            self.process, self.died_s = None, time.monotonic()
        if self.process is None and time.monotonic() - self.died_s >= RESTART_S:
            self.start()

    def end(self) -> None:
        """Kill the process and close the proxy."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
        self.proxy.close()


class RealCluster:
    """A context manager: on exit everything of the cluster is removed.

    The folder stays if the caller named it, if ``keep`` is set, or after an error.
    """

    def __init__(self, *, agents: int = 1, leaders: int = 1, folder: Path | None = None) -> None:
        top = Path(tempfile.mkdtemp(prefix="galaxy-chaos-")) if folder is None else folder
        self.top = top.resolve()
        self.folder = self.top / "c"
        self.agents = agents
        self.leaders = leaders
        self.keep = folder is not None
        self.standbys: list[Standby] = []

    def __enter__(self) -> Self:
        try:
            self._run("up", "--detach", "--no-web", "--dir", str(self.folder), "--agents", str(self.agents))
            self.admin = Nexus(login_url(self.file().url, self.file().secret, acl.ADMIN), name="galaxy-chaos")
            for number in range(2, self.leaders + 1):
                for role in ROLES:
                    self.standbys.append(self._standby(role, number))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, KeyboardInterrupt):
            self.keep = True
        self._end()

    def galaxy(self, timeout_s: float) -> Galaxy:
        """Return a new client; each thread needs its own.

        Raises:
            GalaxyError: Redis cannot be reached now.
        """
        return Galaxy(dir=self.folder, timeout_s=timeout_s)

    def file(self) -> ClusterFile:
        """Return the content of cluster.json."""
        found = read_cluster(self.folder)
        assert found is not None, f"no cluster in {self.folder}"
        return found

    def restart_standbys(self) -> None:
        """Restart standbys that have died."""
        for standby in self.standbys:
            standby.restart_if_dead()

    def pids(self, part: str) -> list[int]:
        """Return the running processes of a part; ``redis`` is the server."""
        if part == "launcher":
            return self._launchers()
        name = "server" if part == "redis" else part
        refs = [ref for ref in self.file().processes if ref.name == name or ref.name.startswith(f"{name} ")]
        supervised = [ref.pid for ref in refs if ref.is_running()]
        standbys = [s.process for s in self.standbys if s.role == part and s.process is not None]
        return supervised + [process.pid for process in standbys if process.poll() is None]

    def leader_pid(self, role: str) -> int:
        """Return the process that holds the lock of ``role``; 0 if it is free.

        Raises:
            Unreachable: Redis does not answer.
        """
        with reaching(self.admin.address):
            value: object = self.admin.client.get(keys.lock(role))
        if not isinstance(value, bytes):
            return 0
        owner = value.decode().rpartition(":")[0]
        return int(owner.rpartition("/")[2].partition("-")[0])

    def proxy_of(self, pid: int) -> TcpProxy | None:
        """Return the proxy of a standby; None for a process that ``galaxy up`` started."""
        return next((s.proxy for s in self.standbys if s.process is not None and s.process.pid == pid), None)

    def log_tails(self, lines: int = 12) -> str:
        """Return the last ``lines`` of every log."""
        logs = sorted((self.folder / "logs").glob("*.log"))
        tails = {log.name: log.read_text(errors="replace").splitlines()[-lines:] for log in logs}
        return "\n".join(f"== {name}\n" + "\n".join(tail) for name, tail in tails.items())

    def _launchers(self) -> list[int]:
        """Return the launchers of this cluster.

        PID 1 of a container and warm processes have a launcher's command line too: a launcher is a
        session leader in our PID namespace.
        """
        here, pids = os.readlink("/proc/self/ns/pid"), []
        for process in psutil.process_iter(["cmdline"]):
            argv = process.info["cmdline"] or []
            of_cluster = any(str(self.folder) in argument for argument in argv)
            if "galaxy.container.launcher.server" not in argv or not of_cluster:
                continue
            with contextlib.suppress(OSError):
                pid = process.pid
                if os.getsid(pid) == pid and os.readlink(f"/proc/{pid}/ns/pid") == here:
                    pids.append(pid)
        return pids

    def _standby(self, role: str, number: int) -> Standby:
        file = self.file()
        parts = urlsplit(file.url)
        proxy = TcpProxy((parts.hostname or "127.0.0.1", parts.port or 6379))
        url = login_url(f"redis://127.0.0.1:{proxy.port}/0", file.secret, role)
        name = f"standby-{number}"
        log = self.folder / "logs" / f"{role}-{number}.log"
        argv = [*GALAXY, role, "--name", name]
        standby = Standby(role, name, proxy, log, argv=argv, env={"GALAXY_REDIS": url})
        standby.start()
        return standby

    def _run(self, *arguments: str) -> None:
        environ = {**os.environ, "XDG_CONFIG_HOME": str(self.top / "config")}
        done = subprocess.run(
            [*GALAXY, *arguments], env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=UP_S, start_new_session=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise HostError(
                f"`galaxy {arguments[0]}` exits with {done.returncode}", details=[done.stderr.strip()]
            )

    def _end(self) -> None:
        with signals_ignored():
            resume(pid for part in ("agent", "launcher", "redis", *ROLES) for pid in self._known_pids(part))
            for standby in self.standbys:
                standby.end()
            try:
                self._run("down", "--dir", str(self.folder))
            except GalaxyError:
                self.keep = True
                raise
            finally:
                if hasattr(self, "admin"):
                    self.admin.close()
            if not self.keep:
                shutil.rmtree(self.top, ignore_errors=True)

    def _known_pids(self, part: str) -> list[int]:
        return self.pids(part) if read_cluster(self.folder) is not None else []


@contextlib.contextmanager
def signals_ignored() -> Iterator[None]:
    """Ignore SIGINT, SIGTERM and SIGHUP: a second Ctrl-C must not stop the clean-up half-way."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def resume(pids: Iterable[int]) -> None:
    """Continue stopped processes; ignore those that have ended."""
    send_signal(pids, signal.SIGCONT)


def send_signal(pids: Iterable[int], number: int) -> None:
    """Send a signal to each process; ignore those that have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
