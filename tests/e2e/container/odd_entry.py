"""A first process whose spares write down when they were tried, and fail; behind a gate they wait first.

Both are files in the launcher's state directory: ``tries``, and ``gate``, which the test takes away.
"""

from __future__ import annotations

import select
import sys
import time
from pathlib import Path
from typing import Final

from tiny_entry import run

__all__ = ["run", "warm_up"]

_GATE_S: Final = 60.0


def warm_up() -> None:
    """Wait or fail in a spare, and only there."""
    if Path("/proc/thread-self/comm").read_text().strip() != "galaxy-warm":
        return
    state = Path(sys.argv[sys.argv.index("--state") + 1])
    with (state / "tries").open("a") as file:
        file.write(f"{time.monotonic()}\n")
    if not (state / "gate").exists():
        raise OSError("no spare on this host")
    end_s = time.monotonic() + _GATE_S
    while (state / "gate").exists() and time.monotonic() < end_s:
        select.select([], [], [], 0.01)
