"""How long a large cluster is without a leader that is killed, with a standby that follows it.

``bench/failover.py --large`` runs this. The state is that of ``bench/load.py``: 10,000 hosts and 100,000
containers, or ``--agents N`` hosts. Two real processes of each leader run on a real Redis; both logics, the
shell and the store are production code. The leader commits an order every 50 ms, and all heartbeats are
renewed every two seconds. Each round kills the leader at a random time.

Figures, from the kill on: the standby holds the lock; its logic has begun; it has committed a new order.
On a busy machine, compare the CPU seconds from the lock to the commit.
Then what a standby costs: CPU while the leader rests and while it commits 20 orders a second, and memory
(PSS) beside that of the leader.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psutil
import redis
from load import fill, new_order, nothing, server

from galaxy.appmaster.logic import AppMaster
from galaxy.driver.interfaces import FeedPosition, FeedRead, Grant
from galaxy.driver.shell import LeaderShell, ShellOptions
from galaxy.model.messages.names import APPMASTER, RESMAN
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.stored.table import TableChange
from galaxy.nexus import Nexus, keys
from galaxy.resman.logic import ResMan

AIM_S = 3.0
LEASE_S = 2.0
ORDERS_EVERY_S = 0.05
COST_S = 20.0
TIMES = ("lock", "begun", "committed")
CPU = "CPU from lock to committed"
FIGURES = (*TIMES, CPU)


class Noted(Nexus):
    """Notes in Redis when this process first followed the leader, won the lock, had begun, had committed."""

    def campaign(self, role: str, owner: str, *, ttl_s: float, address: str) -> Any:
        answer = super().campaign(role, owner, ttl_s=ttl_s, address=address)
        if isinstance(answer, Grant):
            self.note("lock")
        return answer

    def commit(
        self, grant: Grant, serial: int, changes: Sequence[TableChange], trace: Sequence[TraceEvent]
    ) -> None:
        super().commit(grant, serial, changes, trace)
        self.note("committed")

    def read_changes(self, role: str, after: FeedPosition | None, timeout_s: float) -> FeedRead:
        read = super().read_changes(role, after, timeout_s)
        if after is not None and not read.reload:
            self.note("follows")
        return read

    def note(self, what: str) -> None:
        self.client.hsetnx(f"bench:{os.getpid()}", what, str(time.monotonic()))
        self.client.hsetnx(f"bench:{os.getpid()}", f"{what} CPU", str(time.process_time()))


def run_leader(url: str, role: str) -> None:
    """Lead or stand by until killed. While leading, an order comes every ``ORDERS_EVERY_S``."""
    nexus = Noted(url, name="bench")
    led = threading.Event()

    def on_lead() -> None:
        nexus.note("begun")
        led.set()

    shell = LeaderShell(
        role=role, owner=f"bench-{os.getpid()}", address="bench", nexus=nexus, publish=nothing,
        logic=ResMan() if role == RESMAN else AppMaster(), on_lead=on_lead,
        options=ShellOptions(ttl_s=LEASE_S),
    )  # fmt: skip
    shell.start()
    number = 0
    while True:
        led.wait()
        if nexus.client.get("bench:rest") is None:
            shell.offer(new_order(role, f"{os.getpid()}-{number}"))
            number += 1
        time.sleep(ORDERS_EVERY_S)


def measure(agents: int, rounds: int) -> dict[str, Any]:
    """Return the figures of each role."""
    with server() as url:
        fill(url, agents)
        with _heartbeats(url):
            return {role: _measure_role(url, role, rounds) for role in (RESMAN, APPMASTER)}


def _measure_role(url: str, role: str, rounds: int) -> dict[str, Any]:
    client = redis.Redis.from_url(url, decode_responses=True)
    leader, standby = _start(url, role), None
    found: list[dict[str, float]] = []
    try:
        _await(client, leader, "committed")
        cost: dict[str, float] = {}
        for number in range(rounds):
            standby = _start(url, role)
            _await(client, standby, "follows")
            if not cost:
                cost = _cost(client, leader, standby)
            time.sleep(random.uniform(0.5, 0.5 + LEASE_S / 2))
            killed_s = time.monotonic()
            os.kill(leader.pid or 0, signal.SIGKILL)
            leader.join()
            _await(client, standby, "committed CPU")  # It is noted last.
            times: dict[str, str] = client.hgetall(f"bench:{standby.pid}")  # type: ignore[assignment]
            found.append({name: float(times[name]) - killed_s for name in TIMES})
            found[-1][CPU] = float(times["committed CPU"]) - float(times["lock CPU"])
            print(
                f"{number + 1:>3} {role:<10}"
                + "".join(f"  {name} {found[-1][name]:5.2f}" for name in FIGURES)
            )
            leader, standby = standby, None
    finally:
        for process in (leader, standby):
            if process is not None:
                process.kill()
                process.join()
    figures = {
        name: {
            "median": round(statistics.median(one[name] for one in found), 3),
            "worst": round(max(one[name] for one in found), 3),
        }
        for name in FIGURES
    }
    return {"failover": figures, "standby": cost}


def _start(url: str, role: str) -> Any:
    process = multiprocessing.get_context("spawn").Process(target=run_leader, args=(url, role), daemon=True)
    process.start()
    return process


def _await(client: redis.Redis, process: Any, what: str) -> None:
    end_s = time.monotonic() + 120
    while not client.hexists(f"bench:{process.pid}", what):
        assert time.monotonic() < end_s and process.is_alive(), f"not {what} in time"
        time.sleep(0.01)


def _cost(client: redis.Redis, leader: Any, standby: Any) -> dict[str, float]:
    """Return what a standby costs: percent of a core, and MB."""
    cost = {}
    for name in ("rest", "orders"):
        if name == "rest":
            client.set("bench:rest", "1")
            time.sleep(2.0)
        else:
            client.delete("bench:rest")
        began_s, cpu_s = time.monotonic(), _cpu_s(standby)
        time.sleep(COST_S)
        cost[f"cpu_percent_{name}"] = round(100 * (_cpu_s(standby) - cpu_s) / (time.monotonic() - began_s), 2)
    for name, process in (("standby", standby), ("leader", leader)):
        cost[f"pss_mb_{name}"] = round(psutil.Process(process.pid).memory_full_info().pss / 1e6, 1)
    return cost


def _cpu_s(process: Any) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


@contextmanager
def _heartbeats(url: str) -> Iterator[None]:
    """Keep all agents alive: renew the time of their heartbeats every two seconds."""
    client = redis.Redis.from_url(url)
    names = [agent for agent, _ in client.zrange(keys.HEARTBEATS, 0, -1, withscores=True)]
    ending = threading.Event()

    def renew() -> None:
        while not ending.wait(1.0):
            client.zadd(keys.HEARTBEATS, dict.fromkeys(names, time.time()))

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def main(agents: int, rounds: int) -> None:
    """Measure, and print a table and a line of JSON."""
    found = measure(agents, rounds)
    print(f"{agents} agents, {agents * 10} containers; median / worst of {rounds}, s")
    for role, figures in found.items():
        cells = (
            f"{figures['failover'][name]['median']:.2f} / {figures['failover'][name]['worst']:.2f}"
            for name in FIGURES
        )
        print(f"{role:<12}" + "".join(f"  {name} {cell}" for name, cell in zip(FIGURES, cells, strict=True)))
        print(f"{'':<12}" + "  ".join(f"{name} {value}" for name, value in figures["standby"].items()))
    worst = max(figures["failover"]["committed"]["worst"] for figures in found.values())
    named = {"bench": "failover-large", "unit": "s", "agents": agents, "rounds": rounds, "aim": AIM_S}
    print(json.dumps(named | {"worst": worst, "ours": found}))
