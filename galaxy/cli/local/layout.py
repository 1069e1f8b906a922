"""The folder of a local cluster: its paths, its stored plan, and its lock."""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path
from typing import Final

from galaxy.client.cluster_file import PLAN_FILE
from galaxy.errors import BadMessage, GalaxyError, HostError
from galaxy.model.base import Struct, decode, encode
from galaxy.model.earlier_releases import release_of

PLAN_FORMAT: Final = 3
"""Format of a cluster's folder, with everything in it."""


class LocalAgent(Struct, frozen=True, kw_only=True):
    """An agent that ``galaxy up`` runs: its name, its cgroup root and its dynamic ports."""

    name: str
    cgroup_root: str
    ports_low: int
    ports_high: int


class ClusterPlan(Struct, frozen=True, kw_only=True):
    """``plan.json``: what a cluster keeps from one ``galaxy up`` to the next.

    With the user's own server, ``redis_url`` is set. With a server that ``galaxy up``
    starts, ``redis_port`` is its port and ``server`` its kind, because another kind may not be
    able to read its data; the passwords of all its logins derive from ``password``.
    """

    password: str
    agents: tuple[LocalAgent, ...]
    redis_port: int = 0
    web_port: int = 0
    redis_url: str = ""
    server: str = ""
    token: str = ""
    """``USER:SECRET`` of the first operator: the user who started the cluster first."""
    format: int = 1
    """``PLAN_FORMAT`` of the release that wrote it; 0.1.0 wrote none."""


class Layout:
    """The paths in one cluster's folder."""

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
        """Six hex digits that identify this folder in names of cgroups."""
        return hashlib.blake2b(str(self.root).encode(), digest_size=3).hexdigest()

    def agent_state(self, agent: str) -> Path:
        """Return the state directory of an agent."""
        return self.agents / agent

    def make(self) -> None:
        """Create the folders; those with secrets are accessible to their owner only.

        Raises:
            HostError: the folder cannot be created or written.
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
    """Return the folder's plan, or None when the folder is new.

    Raises:
        GalaxyError: the file exists and cannot be read.
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
        release = release_of(plan.format)
        raise GalaxyError(
            f"cannot start the cluster in {layout.root}: Galaxy {release} created it,"
            " and this release cannot read it",
            details=["nothing was started, and nothing in the folder was changed"],
            hint=f"end it with {release}: galaxy down --purge; or start a new one: galaxy up --dir DIR",
        )
    raise GalaxyError(
        f"cannot start the cluster in {layout.root}: a later release of Galaxy created it",
        details=[f"the folder has format {plan.format}, and this release reads format {PLAN_FORMAT}"],
        hint="start it with that release, or start a new one: galaxy up --dir DIR",
    )


def write_plan(layout: Layout, plan: ClusterPlan) -> None:
    """Replace ``plan.json``, readable by its owner only: it holds a password."""
    scratch = layout.run / f".{PLAN_FILE}.{os.getpid()}"
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(encode(plan) + b"\n")
    scratch.replace(layout.plan)


class ClusterLock:
    """The lock of a cluster's folder. While it is held, no other ``galaxy up`` or ``down`` runs there."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def fileno(self) -> int:
        return self._handle

    def release(self) -> None:
        """Close this process' descriptor; a forked process that shares the lock keeps it."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def lock_folder(layout: Layout) -> ClusterLock | None:
    """Take the folder's lock, or return None when another process has it.

    The kernel releases it when every process that shares it has ended.
    """
    handle = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return ClusterLock(handle)
