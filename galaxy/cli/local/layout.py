"""The folder of a local cluster: where things are, what is kept in it, and who holds it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
from pathlib import Path
from typing import Final

from galaxy.errors import BadMessage, GalaxyError, HostError
from galaxy.model.base import Struct, decode, encode

PLAN_FILE: Final = "plan.json"
PLAN_FORMAT: Final = 2
"""Format of a cluster's folder, with everything in it; 0.1.0 wrote 1."""
PORTS_LOW: Final = 20000
PORTS_EACH: Final = 500
PORTS_RANGES: Final = 24
"""Dynamic ports come from 20000-31999, below Linux' own ephemeral range, 500 an agent."""


class LocalAgent(Struct, frozen=True, kw_only=True):
    """An agent that this host's ``galaxy up`` runs: its name, its cgroup root, its ports."""

    name: str
    cgroup_root: str
    ports_low: int
    ports_high: int


class ClusterPlan(Struct, frozen=True, kw_only=True):
    """``plan.json``: what a cluster keeps from one ``galaxy up`` to the next.

    ``redis_url`` is set when the server is somebody else's; else ``redis_port`` is our own
    server's, ``server`` is its kind (another may not read its data), and the passwords of all
    its logins derive from ``password``, the cluster's secret.
    """

    password: str
    agents: tuple[LocalAgent, ...]
    redis_port: int = 0
    web_port: int = 0
    redis_url: str = ""
    server: str = ""
    token: str = ""
    """``USER:SECRET`` of the first operator, who is whoever started the cluster first."""
    format: int = 1
    """``PLAN_FORMAT`` of the release that wrote it; 0.1.0 wrote none."""


class Layout:
    """Names of everything below one cluster's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.redis = root / "redis"
        self.logs = root / "logs"
        self.run = root / "run"
        self.agents = root / "agent"
        self.packages = root / "packages"
        self.plan = root / PLAN_FILE
        self.acl = self.redis / "users.acl"
        self.lock = self.run / "lock"

    @property
    def key(self) -> str:
        """Six hex digits that stand for this folder: names of cgroups and sockets carry it."""
        return hashlib.blake2b(str(self.root).encode(), digest_size=3).hexdigest()

    def agent_state(self, agent: str) -> Path:
        return self.agents / agent

    def make(self) -> None:
        """Make the folders, for their owner only where secrets lie.

        Raises:
            HostError: the folder cannot be made or written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for private in (self.redis, self.run, self.logs):
                private.mkdir(mode=0o700, exist_ok=True)
            for shared in (self.agents, self.packages):
                shared.mkdir(exist_ok=True)
            if not os.access(self.root, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise HostError(
                f"cannot keep a cluster in {self.root}: {error.strerror}",
                hint="name another folder: galaxy up --dir DIR",
            ) from error


def read_plan(layout: Layout) -> ClusterPlan | None:
    """Return what the folder keeps, or None when it is new.

    Raises:
        GalaxyError: the file is there and cannot be read.
    """
    try:
        return decode(layout.plan.read_bytes(), ClusterPlan)
    except FileNotFoundError:
        return None
    except (OSError, BadMessage) as error:
        raise GalaxyError(f"cannot read {layout.plan}: {error}", hint=f"rm {layout.plan}") from error


def check_format(layout: Layout, plan: ClusterPlan | None) -> None:
    """Refuse to start a cluster from a folder that another release wrote and this one cannot read.

    Raises:
        GalaxyError: the folder has another format.
    """
    if plan is None or plan.format == PLAN_FORMAT:
        return
    if plan.format < PLAN_FORMAT:
        raise GalaxyError(
            f"cannot start the cluster in {layout.root}: Galaxy 0.1.0 made it,"
            " and this release does not take it over",
            details=["nothing was started, and nothing in the folder was changed"],
            hint="end it with 0.1.0: galaxy down --purge; or start a new one: galaxy up --dir DIR",
        )
    raise GalaxyError(
        f"cannot start the cluster in {layout.root}: a later release of Galaxy made it",
        details=[f"the folder has format {plan.format}, and this release reads format {PLAN_FORMAT}"],
        hint="start it with that release, or start a new one: galaxy up --dir DIR",
    )


def write_plan(layout: Layout, plan: ClusterPlan) -> None:
    """Replace ``plan.json``, for its owner only: it holds a password."""
    scratch = layout.run / f".{PLAN_FILE}.{os.getpid()}"
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(encode(plan) + b"\n")
    scratch.replace(layout.plan)


class ClusterLock:
    """This process holds the folder: no other ``galaxy up`` works in it."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def release(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def lock_folder(layout: Layout) -> ClusterLock | None:
    """Take the folder's lock, or return None when another process has it; ends with the process."""
    handle = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return ClusterLock(handle)


class PortRange:
    """A range of ports that no other agent of ``galaxy up`` on this host hands out.

    An abstract socket is the claim: the kernel knows it in the same network namespace that the
    ports are in, and forgets it when its holder ends.
    """

    def __init__(self, low: int) -> None:
        self.low = low
        self.high = low + PORTS_EACH - 1
        self._claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._claim.bind(f"\0galaxy-ports-{low}")
        except OSError:
            self._claim.close()
            raise

    def release(self) -> None:
        self._claim.close()


def claim_ports(first: int) -> PortRange:
    """Claim a free range, ``first`` if it can be had.

    Raises:
        HostError: every range is claimed.
    """
    lows = [PORTS_LOW + i * PORTS_EACH for i in range(PORTS_RANGES)]
    start = lows.index(first) if first in lows else first % PORTS_RANGES
    for low in lows[start:] + lows[:start]:
        with contextlib.suppress(OSError):
            return PortRange(low)
    raise HostError(
        f"all {PORTS_RANGES} port ranges of this host are taken by other clusters",
        hint="galaxy down --dir one of them",
    )


def free_port(first: int, count: int = 100, address: str = "127.0.0.1") -> int:
    """Return the first port from ``first`` on that nobody listens on.

    Raises:
        HostError: none of ``count`` is free.
    """
    for port in range(first, first + count):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            return port
    raise HostError(f"no free port from {first} to {first + count - 1} on {address}")
