"""Between a ``Runtime`` and its launcher: JSON packets on a private SOCK_SEQPACKET socket.

Agent and launcher may be of different releases for a moment: the newest agent wins, and renews a
launcher that is not of its own release. ``Settled`` and ``Renew`` therefore never change but by new
fields with a default.

The same nouns are what ``Runtime.events`` returns, and what a container's directory keeps.
"""

from __future__ import annotations

from typing import Final

from galaxy.container.launcher.plan import LaunchPlan, container_key
from galaxy.model.base import Struct
from galaxy.model.messages.container import Reason

PACKET_BYTES_MAX: Final = 192 * 1024


class Life(Struct, frozen=True, kw_only=True):
    """Names one life of a container slot."""

    container: str
    incarnation: int

    @property
    def key(self) -> str:
        return container_key(self.container, self.incarnation)


# ---- Runtime to launcher


class Launch(Struct, frozen=True, kw_only=True, tag="launch"):
    """Make this container; the same again is the same as once."""

    plan: LaunchPlan


class Destroy(Life, frozen=True, kw_only=True, tag="destroy"):
    """End this life and remove everything of it; what is not there is destroyed already."""


class Stop(Struct, frozen=True, kw_only=True, tag="stop"):
    """Exit when no container is left."""


class Renew(Struct, frozen=True, kw_only=True, tag="renew"):
    """Become the launcher of another release: run ``python`` with ``arguments`` in the same process.

    It stays the parent of every PID 1, so nothing of how they end is lost. The socket is handed
    over as ``--listen``; the connection breaks, and whoever connects anew is served by the new one.
    """

    python: str
    arguments: tuple[str, ...]
    environment: dict[str, str]


ToLauncher = Launch | Destroy | Stop | Renew


# ---- launcher to Runtime


class Present(Life, frozen=True, kw_only=True, tag="present"):
    """Said on connecting: this container lives, with this PID 1."""

    pid: int
    start_ticks: int


class Settled(Struct, frozen=True, kw_only=True, tag="settled"):
    """Said on connecting, after the last ``Present`` and ``Ended``."""

    pid: int
    """The launcher's."""
    wire: int = 1
    """Version of what it sends (``galaxy.model.base.WIRE_VERSION``)."""
    release: str = ""
    """Of Galaxy, as it runs; empty from one that knows no ``Renew``."""


class Launched(Life, frozen=True, kw_only=True, tag="launched"):
    """PID 1 runs behind all its limits; ``start_ticks`` is field 22 of its stat file."""

    pid: int
    start_ticks: int


class LaunchFailed(Life, frozen=True, kw_only=True, tag="launch-failed"):
    """The container could not be made; what was made of it is being removed."""

    reason: Reason


class Ended(Life, frozen=True, kw_only=True, tag="ended"):
    """PID 1 ended by itself; its cgroups and directory are there until it is destroyed.

    ``status`` is its exit code, or minus the signal that killed it; None when nobody who may
    know it was there (its launcher had been killed). ``oom`` is proven by the cgroup's counters.
    """

    status: int | None = None
    oom: bool = False


class Destroyed(Life, frozen=True, kw_only=True, tag="destroyed"):
    """No process, mount, cgroup, loop device or directory of it is left."""


class StopRefused(Struct, frozen=True, kw_only=True, tag="stop-refused"):
    """Answer to ``Stop`` while containers are left."""

    containers: int


FromLauncher = Present | Settled | Launched | LaunchFailed | Ended | Destroyed | StopRefused


class LauncherLost(Struct, frozen=True, kw_only=True, tag="launcher-lost"):
    """The launcher is gone; containers live on, and another launcher has been started."""


# ---- in a container's directory


class LifeRecord(Life, frozen=True, kw_only=True):
    """``container_key.json``: who PID 1 is, to be found again. ``boot`` is the kernel's boot id."""

    pid: int
    start_ticks: int
    boot: str
    mode: str
    cgroup_root: str
