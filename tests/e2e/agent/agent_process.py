"""A real agent as a process without Celery: it reads orders from stdin and writes reports to stdout.

``python agent_process.py NAME STATE CGROUP_ROOT REDIS_URL [--ephemeral] [--plain] [--shared]``; a line
of input is ``KIND JSON``.
"""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path
from typing import Any

from galaxy.agent.agent_service import AgentService
from galaxy.agent.config import AgentConfig
from galaxy.model.api.sessions import ExecSession, LogSession
from galaxy.model.base import decode, encode
from galaxy.model.messages.agent import AgentReport
from galaxy.model.messages.container import ContainerOrders
from galaxy.model.messages.pod import PodOrders
from galaxy.nexus.nexus import Nexus


def write_report(role: str, report: AgentReport, *, replaces: bool) -> bool:
    """Write a report as one line: role, space, JSON. Return that the leader has read the last one."""
    sys.stdout.buffer.write(f"{role} ".encode() + encode(report) + b"\n")
    sys.stdout.buffer.flush()
    return True


def watch_heartbeats(nexus: Nexus) -> threading.Event:
    """Return an event that is set when the second heartbeat begins.

    Redis' clock, which the first heartbeat returned, has then reached the agent. It refuses orders
    before that; in production no leader sends any before it has read a heartbeat.
    """
    second, count, send = threading.Event(), 0, nexus.send_heartbeat

    def counted(*args: Any, **more: Any) -> float:
        nonlocal count
        count += 1
        if count == 2:
            second.set()
        return send(*args, **more)

    nexus.send_heartbeat = counted  # type: ignore[method-assign]
    return second


def main(name: str, state: str, cgroup_root: str, url: str, *flags: str) -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    config = AgentConfig(
        name=name,
        state=Path(state),
        cgroup_root=cgroup_root,
        ports_low=19100,  # Below the ranges that `galaxy up` claims from 20000 on.
        ports_high=19999,
        package_roots=(Path(state).parent / "packages",),
        memory_reserve_bytes=0,
        disk_reserve_bytes=0,
        usage_s=0.5,
        heartbeat_s=0.1,
        ephemeral="--ephemeral" in flags,
        run_user="nobody" if "--shared" in flags else "",
        mode="process" if "--plain" in flags else "auto",
    )
    nexus = Nexus.connect(url, name=f"agent@{name}")
    clock_known = watch_heartbeats(nexus)
    nexus.post_report = write_report  # type: ignore[method-assign]
    service = AgentService(config, nexus)
    service.start()
    clock_known.wait(30)
    for line in sys.stdin.buffer:
        kind, _, body = line.partition(b" ")
        if kind == b"containers":
            service.container_orders(decode(body, ContainerOrders))
        elif kind == b"pods":
            service.pod_orders(decode(body, PodOrders))
        elif kind == b"log":
            service.log_session(decode(body, LogSession))
        elif kind == b"exec":
            service.exec_session(decode(body, ExecSession))
        elif kind == b"destroy":
            print("left", service.destroy_all(), flush=True)
    service.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
