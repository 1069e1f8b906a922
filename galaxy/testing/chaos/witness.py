"""What runs in the containers: it counts, and says so to the abstract socket of CHAOS_SOCKET.

Standard library only; it is the whole package of a job. Each message is one line of words:
``count|began|done|copy JOB POD INDEX START COUNT``, START being the monotonic clock at its start.
The kernel tells the listener our pid. A name that only one process of this network namespace can
bind, one for each replica, is held all along: a second copy of a replica finds it taken and says so.
"""

from __future__ import annotations

import os
import socket
import sys
import time

EVERY_S = 0.2
BATCH_S = 0.3


def main() -> int:
    """Count for ever, or once (CHAOS_MODE=once) begin and be done."""
    listener = "\0" + os.environ["CHAOS_SOCKET"]
    pod = os.environ["GALAXY_POD_ID"]
    words = [os.environ["CHAOS_JOB"], pod, os.environ["GALAXY_POD_INDEX"], str(time.monotonic_ns())]
    speaker = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def say(kind: str, count: int = 0) -> None:
        """Say it; waits while the listener has its hands full, and nobody listening is no error."""
        try:
            speaker.sendto(" ".join([kind, *words, str(count)]).encode(), listener)
        except OSError:
            return

    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(f"{listener}-{pod}")
    except OSError:
        say("copy")
    if os.environ["CHAOS_MODE"] == "once":
        say("began")
        time.sleep(BATCH_S)
        say("done")
        return 0
    count = 0
    while True:
        count += 1
        say("count", count)
        time.sleep(EVERY_S)


if __name__ == "__main__":
    sys.exit(main())
