"""The cluster that faults are done to: ``galaxy up`` in a folder, and standbys of ours beside it."""

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
"""A standby of ours that died is started again so much later, as ``galaxy up`` would."""


@dataclass
class Standby:
    """A leader's process of our own, which reaches Redis through a link that can be cut."""

    role: str
    name: str
    link: TcpProxy
    log: Path
    process: subprocess.Popen[bytes] | None = None
    died_s: float = 0.0
    argv: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                env={**os.environ, **self.env}, start_new_session=True,
            )  # fmt: skip

    def tend(self) -> None:
        """Start it again once it is dead for ``RESTART_S``."""
        if self.process is not None and self.process.poll() is not None:
            self.process, self.died_s = None, time.monotonic()
        if self.process is None and time.monotonic() - self.died_s >= RESTART_S:
            self.start()

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
        self.link.close()


class RealCluster:
    """Use it as a context manager: whatever happens, nothing of it is left but the folder's logs."""

    def __init__(self, *, agents: int = 1, leaders: int = 1, folder: Path | None = None) -> None:
        self._own = folder is None
        top = Path(tempfile.mkdtemp(prefix="galaxy-chaos-")) if folder is None else folder
        self.top = top.resolve()
        self.folder = self.top / "c"
        self.agents = agents
        self.leaders = leaders
        self.keep = not self._own
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
        """Return a client of its own for a thread.

        Raises:
            GalaxyError: Redis cannot be reached now.
        """
        return Galaxy(dir=self.folder, timeout_s=timeout_s)

    def file(self) -> ClusterFile:
        found = read_cluster(self.folder)
        assert found is not None, f"no cluster in {self.folder}"
        return found

    def tend(self) -> None:
        """Start standbys of ours that have died again."""
        for standby in self.standbys:
            standby.tend()

    def pids(self, part: str) -> list[int]:
        """Return the live processes of a part; ``redis`` is the server."""
        if part == "launcher":
            return self._launchers()
        name = "server" if part == "redis" else part
        refs = [ref for ref in self.file().processes if ref.name == name or ref.name.startswith(f"{name} ")]
        found = [ref.pid for ref in refs if ref.is_running()]
        ours = [s.process for s in self.standbys if s.role == part and s.process is not None]
        return found + [process.pid for process in ours if process.poll() is None]

    def leader_pid(self, role: str) -> int:
        """Return the process that holds the lock of ``role``; 0 when nobody does.

        Raises:
            Unreachable: Redis does not answer.
        """
        with reaching(self.admin.address):
            held: object = self.admin.client.get(keys.lock(role))
        if not isinstance(held, bytes):
            return 0
        owner = held.decode().rpartition(":")[0]
        return int(owner.rpartition("/")[2].partition("-")[0])

    def link_of(self, pid: int) -> TcpProxy | None:
        """Return the link of a process of ours; None for one of ``galaxy up``."""
        return next((s.link for s in self.standbys if s.process is not None and s.process.pid == pid), None)

    def last_words(self, lines: int = 12) -> str:
        """Return the end of every log."""
        logs = sorted((self.folder / "logs").glob("*.log"))
        ends = {log.name: log.read_text(errors="replace").splitlines()[-lines:] for log in logs}
        return "\n".join(f"== {name}\n" + "\n".join(words) for name, words in ends.items())

    def _launchers(self) -> list[int]:
        """First processes of containers and spares have its command line too, in other namespaces."""
        here, found = os.readlink("/proc/self/ns/pid"), []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "galaxy.container.launcher.server" not in words or not any(
                str(self.folder) in w for w in words
            ):
                continue
            with contextlib.suppress(OSError):
                pid = process.pid
                if os.getsid(pid) == pid and os.readlink(f"/proc/{pid}/ns/pid") == here:
                    found.append(pid)
        return found

    def _standby(self, role: str, number: int) -> Standby:
        file = self.file()
        parts = urlsplit(file.url)
        link = TcpProxy((parts.hostname or "127.0.0.1", parts.port or 6379))
        url = login_url(f"redis://127.0.0.1:{link.port}/0", file.secret, role)
        name = f"standby-{number}"
        log = self.folder / "logs" / f"{role}-{number}.log"
        argv = [*GALAXY, role, "--dir", str(self.folder), "--name", name]
        made = Standby(role, name, link, log, argv=argv, env={"GALAXY_REDIS": url})
        made.start()
        return made

    def _run(self, *words: str) -> None:
        environ = {**os.environ, "XDG_CONFIG_HOME": str(self.top / "config")}
        done = subprocess.run(
            [*GALAXY, *words], env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=UP_S, start_new_session=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise HostError(f"`galaxy {words[0]}` ends with {done.returncode}", details=[done.stderr.strip()])

    def _end(self) -> None:
        with deaf():
            resume(pid for part in ("agent", "launcher", "redis", *ROLES) for pid in self._known(part))
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

    def _known(self, part: str) -> list[int]:
        return self.pids(part) if read_cluster(self.folder) is not None else []


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Nobody interrupts what is done in here: a second Ctrl-C does not stop the ending half-way."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def resume(pids: Iterable[int]) -> None:
    """Let stopped processes go on; those that are gone are gone."""
    send(pids, signal.SIGCONT)


def send(pids: Iterable[int], number: int) -> None:
    """Send a signal to each; those that are gone are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
