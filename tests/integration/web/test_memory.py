"""Flower's memory is bounded: what it remembers of messages does not grow with time."""

from __future__ import annotations

import subprocess
import sys

CHANGES: int = 2 * 15 * 60
"""A quarter of an hour of two changes a second."""
MESSAGES_PER_CHANGE = 6
GROWTH_MIB_MAX = 30.0
"""Flower starts with about 45 MiB and must stay under 80."""
FEED = """
import sys, time
from flower.events import EventsState
from flower.options import options
from galaxy.web.server import configure

configure(address="127.0.0.1", port=0)
state = EventsState(max_workers_in_memory=options.max_workers, max_tasks_in_memory=options.max_tasks)

def memory_mib():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024

def send(kind, worker, **fields):
    now_s = time.time()
    state.event({"type": kind, "hostname": worker, "timestamp": now_s, "local_received": now_s,
                 "pid": 1, "clock": 1, "utcoffset": 0, **fields})

before_mib = memory_mib()
for number in range(int(sys.argv[1])):
    worker = ("appmaster@h1", "resman@h1", "agent@h1")[number % 3]
    task = f"galaxy.container.apply:{number}:1764500000000"
    send("task-received", worker, uuid=task, name="galaxy.container.apply", args=f"('web-3f9a2c.{number}')",
         kwargs=f"<ContainerOrders, {number} bytes>", retries=0, root_id=task, parent_id=None, eta=None,
         expires=None)
    send("task-started", worker, uuid=task)
    send("task-succeeded", worker, uuid=task, result="'done'", runtime=0.001)
print(memory_mib() - before_mib, len(state.tasks))
"""


def test_flower_stays_small_through_a_quarter_of_an_hour_of_changes() -> None:
    count = CHANGES * MESSAGES_PER_CHANGE
    output = subprocess.run(
        [sys.executable, "-c", FEED, str(count)], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    growth_mib, kept = map(float, output.split())
    print(f"\nFlower grows by {growth_mib:.1f} MiB through {count} messages, and keeps {kept:.0f} of them")
    assert kept >= 1000
    assert growth_mib < GROWTH_MIB_MAX
