"""Ending programs that neither a cgroup nor a PID namespace contains (mode ``process``)."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Final

from galaxy.container.kernel import processes

_PASSES: Final = 100


def kill_descendants(pid: int) -> None:
    """Kill everything that descends from ``pid``, but not ``pid`` itself.

    The caller stops ``pid`` first, because otherwise it could start programs again.
    """
    for _ in range(_PASSES):
        below = processes.descendants(pid) if pid else []
        if not below:
            return
        _kill(below)


def kill_strays(directory: str) -> bool:
    """Kill programs that outlived the first process of the container in ``directory``.

    They are found by the workspace path in their environment, which is unique to one incarnation.
    Return whether there were any.
    """
    strays = processes.with_environment(f"GALAXY_WORKSPACE={directory}/")
    _kill(strays)
    return bool(strays)


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
