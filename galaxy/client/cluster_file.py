"""``cluster.json``: the file that a cluster of ``galaxy up`` keeps in its folder while it runs.

It holds a password, so only its owner can read it, and it is replaced, never rewritten in place.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

from galaxy.container.kernel.processes import start_ticks
from galaxy.errors import BadMessage, GalaxyError
from galaxy.model.base import Struct, decode, encode
from galaxy.model.earlier_releases import RELEASE_OF_FORMAT

CLUSTER_FILE: Final = "cluster.json"
PLAN_FILE: Final = "plan.json"
"""What a cluster keeps from one start to the next; see ``galaxy.cli.local.layout``."""

T = TypeVar("T", bound=Struct)


class ProcessRef(Struct, frozen=True, kw_only=True):
    """A process of a local cluster. ``start_ticks`` distinguishes it from later ones with the same pid."""

    name: str
    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat, clock ticks since boot; 0 when the process had already ended."""

    @classmethod
    def of(cls, name: str, pid: int) -> ProcessRef:
        """Return a reference to the process that has ``pid`` now."""
        return cls(name=name, pid=pid, start_ticks=start_ticks(pid))

    def is_running(self) -> bool:
        """Return whether this process, and not a later one with its pid, runs."""
        return self.start_ticks != 0 and start_ticks(self.pid) == self.start_ticks


class ClusterFile(Struct, frozen=True, kw_only=True):
    """How to reach the cluster that runs in ``dir``, and its processes.

    ``url`` is the Redis URL with the login of clients, ``flower`` is an address for a browser,
    ``started_s`` is Unix seconds, and ``mode`` is the agent's: ``full``, ``userns`` or ``process``.
    """

    dir: str
    url: str
    flower: str = ""
    mode: str = "full"
    started_s: float = 0.0
    version: str = ""
    server: str = ""
    """Where the server came from: ``configured``, ``redis``, ``valkey`` or ``embedded``."""
    listen: str = ""
    """Address at which other hosts reach the server; empty when it listens on loopback only."""
    detached: bool = False
    secret: str = ""
    """The passwords of all logins derive from it; empty when ``galaxy up`` did not start the server."""
    token: str = ""
    """``USER:SECRET`` of the user who started the cluster and is its first operator."""
    processes: tuple[ProcessRef, ...] = ()

    def require_readable(self) -> None:
        """Check that this release can talk to the cluster.

        Raises:
            GalaxyError: a release with other messages runs it.
        """
        if self.version in RELEASE_OF_FORMAT.values():
            raise GalaxyError(
                f"Galaxy {self.version} runs the cluster in {self.dir}, and this release cannot talk to it",
                details=["nothing was sent, and nothing was changed"],
                hint=f"use the galaxy command of {self.version}; see Upgrading in docs/operations.md",
            )

    def supervisor(self) -> ProcessRef | None:
        """Return the process that starts and restarts the others."""
        return next((ref for ref in self.processes if ref.name == "supervisor"), None)


def default_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder that ``galaxy up`` uses when none is given."""
    if os.geteuid() == 0:
        return Path("/var/lib/galaxy")
    state = environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state else Path.home() / ".local" / "state") / "galaxy"


def read_cluster(directory: Path | str) -> ClusterFile | None:
    """Return the cluster file of ``directory``, or None when there is none.

    The file alone does not prove that the cluster runs: a killed supervisor leaves it behind.

    Raises:
        GalaxyError: the file exists and cannot be read.
    """
    return read_private(Path(directory) / CLUSTER_FILE, ClusterFile)


def write_cluster(cluster: ClusterFile) -> None:
    """Replace the cluster file atomically, readable by its owner only.

    Raises:
        GalaxyError: it cannot be written.
    """
    write_private(Path(cluster.dir) / CLUSTER_FILE, cluster)


def remove_cluster(directory: Path | str) -> None:
    """Remove the cluster file, if there is one."""
    (Path(directory) / CLUSTER_FILE).unlink(missing_ok=True)


def read_private(path: Path, kind: type[T]) -> T | None:
    """Return the struct in ``path``, or None when there is no such file.

    Raises:
        GalaxyError: the file exists and cannot be read.
    """
    try:
        return decode(path.read_bytes(), kind)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise GalaxyError(f"cannot read {path}: {error.strerror}") from error
    except BadMessage as error:
        raise GalaxyError(f"cannot read {path}", details=[error.message], hint=f"rm {path}") from error


def write_private(path: Path, struct: Struct) -> None:
    """Replace ``path`` atomically with ``struct``, readable by its owner only; folders are created.

    Raises:
        GalaxyError: it cannot be written.
    """
    scratch = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(encode(struct) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        raise GalaxyError(f"cannot write {path}: {error.strerror}") from error
    finally:
        scratch.unlink(missing_ok=True)
