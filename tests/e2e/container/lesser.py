"""Run by a test as an unprivileged user: one container in a lesser mode, from birth to the last process."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from conftest import Host

from galaxy.container.kernel import processes
from galaxy.container.launcher import process_group


def main() -> None:
    host = Host(Path(sys.argv[1]), sys.argv[2])
    found: dict[str, object] = {}
    plan = host.plan()
    try:
        launched = host.launch(plan)
        found["hello"] = host.sh(plan, "echo hello; touch mine && ls")["out"].split()
        found["size"] = host.sh(plan, "df --output=size . | tail -1")["out"].strip()
        found["pids"] = [pid for pid in host.sh(plan, "ls /proc")["out"].split() if pid.isdecimal()]
        found["config"] = host.ask(plan, config=True)
        host.sh(plan, "setsid sh -c 'sleep 1000 & sleep 1000' & exec sleep 1000", wait=False)
        deadline = time.monotonic() + 30
        while len(processes.descendants(launched.pid)) < 4 and time.monotonic() < deadline:
            os.sched_yield()
        below = processes.descendants(launched.pid)
        found["below"] = len(below)
        if len(sys.argv) > 3:  # Its first process dies alone: what it leaves behind is found all the same.
            os.kill(launched.pid, 9)
        host.destroy(plan)
        found["left"] = [pid for pid in [launched.pid, *below] if processes.start_ticks(pid)]
        found["logs"] = sorted(os.listdir(host.runtime.log_path(plan.container, 1)))
        host.stop()
        found["rest"] = sorted(os.listdir(host.state / "c")) + sorted(os.listdir(host.state / "garbage"))
    finally:
        with contextlib.suppress(Exception):
            host.close()
        process_group.kill_strays(str(host.state / "c" / plan.key))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
