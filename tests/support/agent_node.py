"""The Celery worker of an agent that only records orders: ``python -m tests.support.agent_node URL HOST``."""

from __future__ import annotations

import sys
import time

from galaxy.model.api.sessions import ExecSession, LogSession
from galaxy.model.base import Struct, encode
from galaxy.model.messages.container import ContainerOrders
from galaxy.model.messages.pod import PodOrders
from galaxy.nexus import Nexus
from galaxy.tasks import log
from galaxy.tasks.node import NodeOptions, run_orders

RECEIVED = "received"
"""A list in Redis: ``[time.time(), type name, order]`` of every order received."""


class Recorder:
    """Pushes every order, with the time of its arrival, to the list ``RECEIVED``."""

    def __init__(self, nexus: Nexus) -> None:
        self._nexus = nexus

    def start(self) -> None:
        self._nexus.client.rpush("started", "1")

    def stop(self) -> None:
        self._nexus.client.rpush("stopped", "1")

    def container_orders(self, orders: ContainerOrders) -> None:
        self._record(orders)

    def pod_orders(self, orders: PodOrders) -> None:
        self._record(orders)

    def log_session(self, session: LogSession) -> None:
        self._record(session)

    def exec_session(self, session: ExecSession) -> None:
        self._record(session)

    def _record(self, order: Struct) -> None:
        self._nexus.client.rpush(RECEIVED, encode([time.time(), type(order).__name__, order]))


def main() -> int:
    url, host = sys.argv[1:3]
    log.set_up("info")
    nexus = Nexus.connect(url, name=f"agent@{host}")
    return run_orders(NodeOptions(url=url, host=host), Recorder(nexus))


if __name__ == "__main__":
    sys.exit(main())
