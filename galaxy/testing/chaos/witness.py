"""The program in the containers: it counts, and reports each number to the socket named by CHAOS_SOCKET.

It is the whole package of a job and uses the standard library only. Each message is one line:
``count|started|finished|duplicate JOB POD INDEX START COUNT``, where START is the monotonic clock when
the program started. The kernel adds the pid. Each replica also binds an abstract socket with the
replica's name for as long as it runs. Only one process of a network namespace can bind a name, so a
second copy of a replica fails to bind it and reports itself as a duplicate.
"""

from __future__ import annotations

import os
import socket
import sys
import time

COUNT_INTERVAL_S = 0.2
BATCH_S = 0.3


def main() -> int:
    """Count forever; with CHAOS_MODE=once report the start, wait ``BATCH_S``, report the end."""
    listener = "\0" + os.environ["CHAOS_SOCKET"]
    pod = os.environ["GALAXY_POD_ID"]
    fields = [os.environ["CHAOS_JOB"], pod, os.environ["GALAXY_POD_INDEX"], str(time.monotonic_ns())]
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def send(kind: str, count: int = 0) -> None:
        """Send one message. Blocks while the listener's buffer is full; ignores a listener that is gone."""
        try:
            sender.sendto(" ".join([kind, *fields, str(count)]).encode(), listener)
        except OSError:
            return

    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"{listener}-{pod}")
    except OSError:
        send("duplicate")
    if os.environ["CHAOS_MODE"] == "once":
        send("started")
        time.sleep(BATCH_S)
        send("finished")
        return 0
    count = 0
    while True:
        count += 1
        send("count", count)
        time.sleep(COUNT_INTERVAL_S)


if __name__ == "__main__":
    sys.exit(main())
