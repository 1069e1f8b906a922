"""The freezer of cgroup v1 (kernel: admin-guide/cgroup-v1/freezer-subsystem.rst).

v2 needs none: ``cgroup.kill`` reaches children that are forked meanwhile.
"""

from __future__ import annotations

import contextlib
import time
from typing import Final

from galaxy.container.cgroup.files import Files

_WAIT_S: Final = 1.0
_POLL_S: Final = 0.001


def freeze(files: Files, cgroup: str) -> bool:
    """Stop every process in ``cgroup``, waiting up to a second; return False if it does not exist."""
    state = f"{cgroup}/freezer.state"
    try:
        files.write(state, "FROZEN")
        until = time.monotonic() + _WAIT_S
        while files.read(state).strip() != "FROZEN" and time.monotonic() < until:
            time.sleep(_POLL_S)  # The v1 freezer has no event to wait for.
    except FileNotFoundError:
        return False
    return True


def thaw(files: Files, cgroup: str) -> None:
    """Continue the processes in ``cgroup``, if it still exists."""
    with contextlib.suppress(FileNotFoundError):
        files.write(f"{cgroup}/freezer.state", "THAWED")
