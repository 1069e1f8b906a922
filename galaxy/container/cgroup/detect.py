"""Find the cgroup hierarchies of this host in its mount table."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final

NEEDED: Final = frozenset({"cpu", "memory", "pids"})
"""Controllers without which containers cannot be limited."""


@dataclass(frozen=True, kw_only=True)
class Hierarchies:
    """Mount points of the v1 hierarchies by controller, and of the v2 tree with its controllers."""

    v1: dict[str, str] = field(default_factory=dict)
    v2: str = ""
    v2_controllers: frozenset[str] = frozenset()

    @property
    def version(self) -> str:
        """``v2`` if its tree has every needed controller, else ``v1`` if its hierarchies do, else empty."""
        if self.v2 and self.v2_controllers >= NEEDED:
            return "v2"
        return "v1" if self.v1.keys() >= NEEDED else ""


def detect(mountinfo: str = "/proc/self/mountinfo") -> Hierarchies:
    """Read the mount table; a hierarchy of several controllers is listed under each of their names.

    Source: proc_pid_mountinfo(5), cgroups(7).
    """
    v1: dict[str, str] = {}
    v2 = ""
    with open(mountinfo) as table:
        for line in table:
            before, _, after = line.rstrip("\n").partition(" - ")
            kind, _, options = after.partition(" ")
            mount_point = before.split(" ")[4].replace("\\040", " ")
            if kind == "cgroup2" and not v2:
                v2 = mount_point
            elif kind == "cgroup":
                for option in options.rpartition(" ")[2].split(","):
                    v1.setdefault(option, mount_point)
    for option in [name for name in v1 if name in ("rw", "ro") or "=" in name]:
        del v1[option]
    controllers: frozenset[str] = frozenset()
    if v2:
        try:
            with open(os.path.join(v2, "cgroup.controllers")) as file:
                controllers = frozenset(file.read().split())
        except OSError:
            v2 = ""
    return Hierarchies(v1=v1, v2=v2, v2_controllers=controllers)
