"""What one message costs: bytes in Redis, and microseconds of CPU to publish and to receive it.

    python -m bench.messages --messages 2000 --pods 10

Publishes orders with the production publisher to a Redis that it starts, then receives them with the
production transport: parse the list item, decode the call as Celery's pool does, decode the struct,
acknowledge.

Then a leader's process takes reports of that many pods, one from each agent, in two ways: from mailboxes, as
in production, and as its peer, each report as a Celery task, as up to 0.2.0. Its logic does nothing. Ends
with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redis
from kombu import Connection, Queue
from kombu.serialization import loads

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # For tests.support.

from galaxy.driver.shell import LeaderShell
from galaxy.model.base import Struct, encode
from galaxy.model.messages import names
from galaxy.model.messages.agent import AgentReport
from galaxy.model.messages.container import ContainerOrders, DestroyContainer
from galaxy.model.messages.pod import ObservedPod, PodState
from galaxy.model.step import Send, Step
from galaxy.model.stored.table import Table
from galaxy.nexus import Nexus
from galaxy.nexus.envelope import read
from galaxy.nexus.publisher import Publisher
from galaxy.nexus.sentinel_transport import Server
from galaxy.nexus.url import parse
from galaxy.tasks import app as tasks_app
from galaxy.tasks.gate import Gate
from galaxy.tasks.handlers import add_leader_handlers
from galaxy.tasks.node import NodeOptions, run_leader
from galaxy.tasks.transport import Dropped
from tests.support.redis_server import RedisServer, running_server

QUEUE = "agent.h1"
ROLE = "bench"
REPORT_TASK = "bench.report"


def orders(count: int) -> ContainerOrders:
    destroy = tuple(DestroyContainer(container=f"web-3f9a2c.{n}", incarnation=n + 1) for n in range(count))
    return ContainerOrders(agent="h1", epoch=1_700_000_000_000, until_s=1.8e9, destroy=destroy)


def connect(server: RedisServer) -> Connection:
    """Return a connection as a worker has it."""
    tasks_app.make_app(server.url, node="agent@h1", queues=(QUEUE,))
    url = parse(server.url)
    options = tasks_app.transport_options("agent@h1", Server(url), (QUEUE,), 1.0, Dropped())
    return Connection(
        url.server(), transport="galaxy.tasks.transport:GuardedTransport", transport_options=options
    )


def receive(server: RedisServer, count: int) -> float:
    """Return the seconds that receiving ``count`` messages took."""
    done = 0

    def take(message: Any) -> None:
        nonlocal done
        _, arguments, _ = loads(
            message.body, message.content_type, message.content_encoding, accept={message.content_type}
        )
        read(arguments["v"], arguments["body"], ContainerOrders)
        message.ack()
        done += 1

    with connect(server) as connection:
        channel = connection.channel()
        queue = Queue(QUEUE, exchange="", routing_key=QUEUE, no_declare=True, channel=channel)
        connection.Consumer([queue], channel=channel, on_message=take, auto_declare=False).consume()
        start_s = time.process_time()
        while done < count:
            connection.drain_events(timeout=30)
        return time.process_time() - start_s


class Idle:
    """Logic that only counts the reports it gets, in ``counted``."""

    def __init__(self) -> None:
        self.counted = 0

    @property
    def tables(self) -> Mapping[str, Table[Any]]:
        return {}

    def lead(self, epoch: int, now_s: float) -> None:
        pass

    def recover(self, now_s: float) -> None:
        pass

    def step(self, now_s: float, events: Sequence[Any]) -> Step:  # noqa: ARG002 - the interface of Logic
        self.counted += sum(isinstance(event, AgentReport | _TaskReport) for event in events)
        return Step()


class _TaskReport(Struct, frozen=True, kw_only=True):
    """A report that came as a Celery task."""

    report: AgentReport


def lead(url: str, expected: int) -> int:
    """Lead a role of its own until ``expected`` reports have arrived; print the CPU and time they took."""
    logic = Idle()

    def add_handlers(app: Any, shell: LeaderShell, gate: Gate, nexus: Nexus) -> None:
        add_leader_handlers(app, shell, gate, {REPORT_TASK: _TaskReport})
        threading.Thread(target=_print_costs, args=(logic, expected, nexus), daemon=True).start()

    return run_leader(ROLE, NodeOptions(url=url, host="bench", log_level="error"), logic, add_handlers)


def _print_costs(logic: Idle, expected: int, nexus: Nexus) -> None:
    while nexus.leader(ROLE) is None or not logic.counted:
        time.sleep(0.001)
    cpu_s, start_s, first = time.process_time(), time.monotonic(), logic.counted
    while logic.counted < expected:
        time.sleep(0.001)
    taken = expected - first
    cost = ((time.process_time() - cpu_s) / taken * 1e6, taken / (time.monotonic() - start_s))
    print(json.dumps(cost), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def take_reports(server: RedisServer, count: int, pods: int, *, as_tasks: bool) -> tuple[float, float]:
    """Return the microseconds of CPU per report of a leader's process, and its reports per second."""
    observed = tuple(
        ObservedPod(pod=f"web-3f9a2c.{n}", incarnation=1, generation=1, state=PodState.RUNNING)
        for n in range(pods)
    )
    reports = [AgentReport(agent=f"h{n}", boot="b", serial=1, pods=observed) for n in range(count)]
    if as_tasks:
        publisher = Publisher(server.url, name="bench")
        publisher.publish(
            [
                Send(queue=ROLE, task=REPORT_TASK, body=_TaskReport(report=one), id=f"report:{one.agent}")
                for one in reports
            ]
        )
        publisher.close()
    else:
        with Nexus.connect(server.url, name="bench") as nexus:
            for one in reports:
                nexus.post_report(ROLE, one)
    leader = subprocess.run(
        [sys.executable, "-m", "bench.messages", "--lead", server.url, "--messages", str(count)],
        stdout=subprocess.PIPE, timeout=300, check=True,
    )  # fmt: skip
    (line,) = [line for line in leader.stdout.splitlines() if line.startswith(b"[")]
    cpu_us, per_s = json.loads(line)
    return float(cpu_us), float(per_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--pods", type=int, default=10, help="container commands in each message")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lead", metavar="URL", help="be the leader's process (internal)")
    asked = parser.parse_args()
    if asked.lead:
        sys.exit(lead(asked.lead, asked.messages))
    body = orders(asked.pods)
    sends = [
        Send(queue=QUEUE, task=names.CONTAINER_APPLY, body=body, id=f"order:{n}")
        for n in range(asked.messages)
    ]
    published, received = [], []
    with running_server() as server:
        publisher = Publisher(server.url, name="bench")
        publisher.publish(sends[:10])
        client = redis.Redis.from_url(server.url)
        size = len(client.lindex(QUEUE, 0))
        receive(server, 10)
        for _ in range(asked.rounds):
            start_s = time.process_time()
            publisher.publish(sends)
            published.append((time.process_time() - start_s) / asked.messages * 1e6)
            received.append(receive(server, asked.messages) / asked.messages * 1e6)
        publisher.close()
        client.close()
        client.flushall()
        peer_us, peer_per_s = take_reports(server, asked.messages, asked.pods, as_tasks=True)
        client.flushall()
        ours_us, ours_per_s = take_reports(server, asked.messages, asked.pods, as_tasks=False)
        client.close()
    figures = {
        "struct_bytes": len(encode(body)),
        "message_bytes": size,
        "publish_us": round(statistics.median(published), 1),
        "receive_us": round(statistics.median(received), 1),
        "report_us": round(ours_us, 1),
        "reports_per_s": round(ours_per_s),
        "task_report_us": round(peer_us, 1),
        "task_reports_per_s": round(peer_per_s),
    }
    print(f"{figures['struct_bytes']} bytes of orders are a message of {size} bytes;", end=" ")
    print(f"publish {figures['publish_us']} us, receive {figures['receive_us']} us (median)")
    print(
        f"a leader takes {figures['reports_per_s']} reports/s at {figures['report_us']} us of CPU each;",
        end=" ",
    )
    print(f"as Celery tasks {figures['task_reports_per_s']}/s at {figures['task_report_us']} us")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
