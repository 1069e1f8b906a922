"""The options of one agent."""

from __future__ import annotations

from pathlib import Path

import msgspec

from galaxy.container.kernel.uid_ranges import UIDS_DEFAULT
from galaxy.units import GIB

MODES = ("auto", "full", "userns", "process")


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Options of one agent.

    ``name`` is the host's name in the cluster. Two agents on one machine need different ``name``,
    ``state`` and ``cgroup_root``. An ``ephemeral`` agent destroys every container and ends the
    launcher when it stops; otherwise programs outlive the agent.
    """

    name: str
    state: Path
    """Directory for everything that the agent stores."""
    cgroup_root: str = "galaxy"
    mode: str = "auto"
    """``auto`` means the best that the host supports; the agent refuses to start in an unsupported mode."""
    pool: str = "main"
    tags: tuple[str, ...] = ()
    address: str = ""
    """Address of the containers' ports; empty means guessed from the route to ``redis_host``."""
    redis_host: str = ""
    """Host part of the Redis URL, for that guess only; empty for a Unix socket."""
    ports_low: int = 20000
    ports_high: int = 29999
    uids: tuple[int, int] = UIDS_DEFAULT
    """First and last uid for containers. Each container has its own, and a gid of the same number."""
    run_user: str = ""
    """An account of the host that runs all programs instead; empty means one user per container."""
    package_roots: tuple[Path, ...] = ()
    """Directories that ``file://`` packages may come from."""
    containers_max: int = 1000
    cpu_milli: int = 0
    """CPU to offer, in millicores; 0 means every core that this process may run on."""
    memory_reserve_bytes: int = -1
    """Memory kept for the host; -1 means 5 %, at least 256 MiB."""
    disk_reserve_bytes: int = -1
    """Disk kept for the host; -1 means 5 %, at least 1 GiB."""
    ephemeral: bool = False
    heartbeat_s: float = 2.0
    usage_s: float = 10.0
    """Seconds between samples of usage."""
    packages_bytes_max: int = 10 * GIB
    """Limit on the size of the package cache."""
    package_bytes_max: int = 4 * GIB
    package_timeout_s: float = 600.0
    logs_bytes_max: int = 5 * GIB
    """Limit on the logs of containers that are gone; the oldest are removed first."""
    logs_keep_s: float = 7 * 86400.0
    sessions_max: int = 32
    session_idle_s: float = 3600.0
    garbage_s: float = 60.0
    """Seconds between removals of old logs and packages."""
    destroy_grace_s: float = 2.0
    """How long programs may take to stop when an ephemeral agent ends."""
