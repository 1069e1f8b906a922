"""Runs a leader under cProfile: ``python bench/fleet_profile.py FILE resman|appmaster OPTIONS``.

The loop's thread is profiled, from its start until the process ends.
"""

from __future__ import annotations

import cProfile
import sys
import threading

from galaxy.cli.main import main
from galaxy.driver.shell import LeaderShell


def run() -> None:
    path = sys.argv.pop(1)
    begin = LeaderShell._run
    profile = cProfile.Profile()

    def profiled(shell: LeaderShell) -> None:
        threading.current_thread().name = "profiled-loop"
        try:
            profile.runcall(begin, shell)
        finally:
            profile.dump_stats(path)

    LeaderShell._run = profiled  # type: ignore[method-assign]
    main()


if __name__ == "__main__":
    run()
