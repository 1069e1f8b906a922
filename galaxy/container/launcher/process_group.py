"""Ending programs where no cgroup and no PID namespace holds them together (mode ``process``)."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Final

from galaxy.container.kernel import processes

_PASSES: Final = 100


def kill_below(pid: int) -> None:
    """Kill all that descends from ``pid``, itself excepted; stop it before, else it starts them anew."""
    for _ in range(_PASSES):
        below = processes.descendants(pid) if pid else []
        if not below:
            return
        _kill(below)


def kill_strays(directory: str) -> bool:
    """Kill programs that outlived the first process of the container in ``directory``.

    They are known by the workspace in their environment, which is a path of this one life.
    Return whether there were any.
    """
    strays = processes.with_environment(f"GALAXY_WORKSPACE={directory}/")
    _kill(strays)
    return bool(strays)


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
