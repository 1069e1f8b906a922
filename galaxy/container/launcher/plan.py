"""The plan that a container is created from: what an agent sends to its launcher, and the checks on it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final

from galaxy.errors import UsageError
from galaxy.ids import container_key
from galaxy.model.base import Struct
from galaxy.model.messages.container import Demand, VolumeDemand
from galaxy.model.system_paths import KERNEL_DIRS, SYSTEM_DIRS, is_at_or_below

FULL: Final = "full"
"""Mode with every namespace, cgroups and a uid for each container; needs root."""
USERNS: Final = "userns"
"""Mode with namespaces but without limits, for an agent without root."""
PROCESS: Final = "process"
"""Mode of plain processes, for a host without user namespaces."""

_NAME_BYTES_MAX: Final = 255
_FORBIDDEN_IN_NAMES: Final = re.compile(r"[/\x00-\x1f\x7f-\x9f]")
"""Control characters too: the kernel creates no cgroup with a newline in its name."""
_KEY_BYTES_MAX: Final = 200
"""Less than a file name may have, which leaves room for suffixes."""
_PATH_BYTES_MAX: Final = 1024
"""The kernel's limit is 4096 for the whole path, most of which is the volume's directory on the host."""
_AMOUNT_MAX: Final = 1 << 53


class LaunchPlan(Struct, frozen=True, kw_only=True):
    """Everything that one container is created from.

    ``directory`` holds its socket and volumes on the host, ``log_directory`` its logs. Empty
    means the directories below the agent's state directory that ``Runtime`` chooses.
    """

    container: str
    incarnation: int
    host: str
    """Name of the agent."""
    demand: Demand
    ports: dict[str, int] = {}
    run_uid: int = -1
    run_gid: int = -1
    """-1 means that programs run as the user of PID 1 (only in the modes without root)."""
    directory: str = ""
    log_directory: str = ""
    cgroup_root: str = "galaxy"
    mode: str = FULL
    system_dirs: tuple[str, ...] = ()
    """More directories of the host that programs see, read-only."""

    @property
    def key(self) -> str:
        return container_key(self.container, self.incarnation)

    @property
    def volumes(self) -> tuple[VolumeDemand, ...]:
        """The workspace and all other volumes; an outer volume comes before those inside it."""
        everything = (self.demand.workspace, *self.demand.volumes)
        return tuple(sorted(everything, key=lambda volume: (volume.path.count("/"), volume.path)))


def check_plan(plan: LaunchPlan) -> None:
    """Refuse a plan that no host can execute.

    Raises:
        UsageError: a volume's path is not absolute and normal, belongs to the system, or occurs twice;
            two tasks have the same name, or one has that of PID 1's cgroup; or the kernel does not
            accept a name or an amount.
    """
    problems = [*_path_problems(plan), *_name_problems(plan), *_amount_problems(plan)]
    if problems:
        raise UsageError(f"cannot make container {plan.key[:80]}", details=sorted(set(problems)))


def is_valid_key(container: str, incarnation: int) -> bool:
    """Return whether a directory and a cgroup can have this container's key as their name."""
    key = container_key(container, incarnation)
    return bool(container) and incarnation >= 0 and _is_name(key) and len(os.fsencode(key)) <= _KEY_BYTES_MAX


def hostname_of(container: str) -> str:
    """Return the host name inside a container: letters, digits and hyphens, at most 63."""
    name = "".join(char if char.isalnum() and char.isascii() else "-" for char in container)
    return name[:63].strip("-") or "container"


def _path_problems(plan: LaunchPlan) -> Iterator[str]:
    paths = [volume.path for volume in plan.volumes]
    for path in paths:
        if not path.startswith("/") or os.path.normpath(path) != path:
            yield f"volume path {path[:80]!r} is not an absolute path in its shortest form"
        elif path == "/" or path in SYSTEM_DIRS or any(is_at_or_below(path, top) for top in KERNEL_DIRS):
            yield f"volume path {path} belongs to the system"
        elif len(os.fsencode(path)) > _PATH_BYTES_MAX or not all(map(_is_name, path[1:].split("/"))):
            yield f"volume path {path[:80]!r} is not a path that a file can have"
        elif paths.count(path) > 1:
            yield f"volume path {path} is used more than once"


def _name_problems(plan: LaunchPlan) -> Iterator[str]:
    if plan.mode == FULL and (plan.run_uid < 0 or plan.run_gid < 0):
        yield "no user is given for its programs, and PID 1 is root"
    names = ["init", *(task.name for task in plan.demand.tasks)]
    for name in set(names):
        if names.count(name) > 1:
            yield f"task name {name[:80]!r} is not unique"
        if not _is_name(name):
            yield f"task name {name[:80]!r} is not a name"
    if not is_valid_key(plan.container, plan.incarnation):
        yield f"container id {plan.container[:80]!r} cannot be a directory's name"
    for name in plan.ports:
        if "\0" in name or "=" in name:
            yield f"port name {name[:80]!r} is not a name"


def _amount_problems(plan: LaunchPlan) -> Iterator[str]:
    for volume in plan.volumes:
        if not 0 < volume.size_bytes <= _AMOUNT_MAX:
            yield f"volume {volume.path[:80]!r} has an impossible size"
    for task in plan.demand.tasks:
        amounts = (task.cpu_milli, task.memory_bytes, task.pids_max, task.io_weight)
        if min(amounts) < 0 or max(amounts) > _AMOUNT_MAX:
            yield f"task {task.name[:80]!r} has an impossible limit"
    if not all(0 < port < 65536 for port in plan.ports.values()):
        yield "a port is not between 1 and 65535"


def _is_name(name: str) -> bool:
    return (
        0 < len(os.fsencode(name)) <= _NAME_BYTES_MAX
        and not _FORBIDDEN_IN_NAMES.search(name)
        and name not in (".", "..")
    )
