"""PID 1 whose warm-up fails in warm processes, or waits while the file ``gate`` exists.

Both files are in the launcher's state directory: each warm-up appends a line to ``tries``, and while
``gate`` exists it waits instead of failing.
"""

from __future__ import annotations

import select
import sys
import time
from pathlib import Path
from typing import Final

from command_entry import run

__all__ = ["run", "warm_up"]

_GATE_TIMEOUT_S: Final = 60.0


def warm_up() -> None:
    """Wait or fail in a warm process; do nothing in other processes."""
    if Path("/proc/thread-self/comm").read_text().strip() != "galaxy-warm":
        return
    state = Path(sys.argv[sys.argv.index("--state") + 1])
    with (state / "tries").open("a") as file:
        file.write(f"{time.monotonic()}\n")
    if not (state / "gate").exists():
        raise OSError("no warm process on this host")
    deadline = time.monotonic() + _GATE_TIMEOUT_S
    while (state / "gate").exists() and time.monotonic() < deadline:
        select.select([], [], [], 0.01)
