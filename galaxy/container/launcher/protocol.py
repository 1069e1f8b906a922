"""Messages between a ``Runtime`` and its launcher: JSON packets on a private SOCK_SEQPACKET socket.

Agent and launcher may be of different releases for a moment: the agent that connected last decides, and
makes a launcher of another release execute its own (``Renew``). ``SnapshotComplete`` and ``Renew``
therefore never change, except by new fields with a default.

``Runtime.events`` returns some of these messages; ``Ended`` and ``InitRecord`` are also stored in a
container's directory.
"""

from __future__ import annotations

from typing import Final

from galaxy.container.launcher.plan import LaunchPlan
from galaxy.ids import container_key
from galaxy.model.base import Struct
from galaxy.model.messages.container import Reason

PACKET_BYTES_MAX: Final = 192 * 1024


class ContainerRef(Struct, frozen=True, kw_only=True):
    """Names one incarnation of a container slot."""

    container: str
    incarnation: int

    @property
    def key(self) -> str:
        return container_key(self.container, self.incarnation)


# ---- Runtime to launcher


class Launch(Struct, frozen=True, kw_only=True, tag="launch"):
    """Create a container. A container that exists already is not created again."""

    plan: LaunchPlan


class Destroy(ContainerRef, frozen=True, kw_only=True, tag="destroy"):
    """End a container and remove everything of it. One that does not exist counts as destroyed."""


class Stop(Struct, frozen=True, kw_only=True, tag="stop"):
    """Exit if no container is left."""


class Renew(Struct, frozen=True, kw_only=True, tag="renew"):
    """Become the launcher of another release: execute ``python`` with ``arguments`` in this process.

    The process stays the parent of every PID 1, so their exit statuses are not lost. The listening
    socket is passed on as ``--listen``; the connection ends, and the new program serves the next one.
    """

    python: str
    arguments: tuple[str, ...]
    environment: dict[str, str]


ToLauncher = Launch | Destroy | Stop | Renew


# ---- launcher to Runtime


class Present(ContainerRef, frozen=True, kw_only=True, tag="present"):
    """Sent after connecting for each running container. ``start_ticks`` is field 22 of PID 1's stat file."""

    pid: int
    start_ticks: int


class SnapshotComplete(Struct, frozen=True, kw_only=True, tag="settled"):
    """Sent after connecting, after the last ``Present`` and ``Ended`` of the snapshot."""

    pid: int
    """The launcher's pid."""
    wire: int = 1
    """Version of the launcher's messages (``galaxy.model.base.WIRE_VERSION``)."""
    release: str = ""
    """The launcher's release of Galaxy; empty for one that does not know ``Renew``."""


class Launched(ContainerRef, frozen=True, kw_only=True, tag="launched"):
    """PID 1 runs, with all its limits; ``start_ticks`` is field 22 of its stat file."""

    pid: int
    start_ticks: int


class LaunchFailed(ContainerRef, frozen=True, kw_only=True, tag="launch-failed"):
    """The container could not be created; what exists of it is being removed."""

    reason: Reason


class Ended(ContainerRef, frozen=True, kw_only=True, tag="ended"):
    """PID 1 ended by itself; cgroups and directory of the container remain until it is destroyed.

    ``status`` is its exit code, or minus the signal that killed it. It is None when the launcher that
    was its parent is gone: only a parent can read an exit status. ``oom`` is proven by the
    cgroup's counters.
    """

    status: int | None = None
    oom: bool = False


class Destroyed(ContainerRef, frozen=True, kw_only=True, tag="destroyed"):
    """No process, mount, cgroup, loop device or directory of the container is left."""


class StopRefused(Struct, frozen=True, kw_only=True, tag="stop-refused"):
    """Answer to ``Stop`` while there are containers."""

    containers: int
    """Number of containers."""


FromLauncher = Present | SnapshotComplete | Launched | LaunchFailed | Ended | Destroyed | StopRefused


class LauncherLost(Struct, frozen=True, kw_only=True, tag="launcher-lost"):
    """Event of ``Runtime``: the launcher died and another was started. Containers keep running."""


# ---- in a container's directory


class InitRecord(ContainerRef, frozen=True, kw_only=True):
    """``init.json``: identifies PID 1, so that a later launcher can adopt it."""

    pid: int
    start_ticks: int
    boot: str
    """The kernel's boot id."""
    mode: str
    cgroup_root: str
