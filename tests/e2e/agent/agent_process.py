"""A real agent in a process of its own, without Celery: orders come by stdin, reports go to stdout.

``python agent_process.py NAME STATE CGROUP_ROOT REDIS_URL [--ephemeral] [--plain] [--shared]``; a line
of input is ``KIND JSON``.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from galaxy.agent.agent_service import AgentService
from galaxy.agent.config import AgentConfig
from galaxy.model.api.sessions import ExecSession, LogSession
from galaxy.model.base import decode, encode
from galaxy.model.messages.container import ContainerOrders
from galaxy.model.messages.pod import PodOrders
from galaxy.model.step import Send
from galaxy.nexus.nexus import Nexus


def say(send: Send) -> None:
    line = f"{send.task} ".encode() + encode(send.body) + b"\n"
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


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
        ephemeral="--ephemeral" in flags,
        run_user="nobody" if "--shared" in flags else "",
        mode="process" if "--plain" in flags else "auto",
    )
    service = AgentService(config, Nexus.connect(url, name=f"agent@{name}"), say)
    service.start()
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
