"""A script that tests run as an unprivileged user: it launches, uses and destroys one container."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from conftest import Host

from galaxy.container.kernel import processes
from galaxy.container.launcher import process_group
from tests.e2e.container.polling import wait_until


def main() -> None:
    host = Host(Path(sys.argv[1]), sys.argv[2])
    kill_init = len(sys.argv) > 3
    found: dict[str, object] = {}
    plan = host.plan()
    try:
        launched = host.launch(plan)
        found["hello"] = host.sh(plan, "echo hello; touch mine && ls")["out"].split()
        found["size"] = host.sh(plan, "df --output=size . | tail -1")["out"].strip()
        found["pids"] = [pid for pid in host.sh(plan, "ls /proc")["out"].split() if pid.isdecimal()]
        found["config"] = host.ask(plan, config=True)
        host.sh(plan, "setsid sh -c 'sleep 1000 & sleep 1000' & exec sleep 1000", wait=False)
        wait_until(lambda: len(processes.descendants(launched.pid)) >= 4)
        below = processes.descendants(launched.pid)
        if kill_init:
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
