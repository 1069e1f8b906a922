"""How long a new leader of a large cluster takes from its lease to its first commit.

``python bench/load.py [--rounds N] [--agents N]``: 10,000 agents and 100,000 containers in 1,000
jobs, as the logic of ResMan and AppMaster left them, are written to a real Redis by the real store.
Then, each time in a new process, a real ``LeaderShell`` gets the lease, reads the tables,
derives the rest, applies a heartbeat of every agent and one order, and commits. The peers read and
decode the same rows in the same run, without types (HGETALL and ``json.loads``) and with types
(HGETALL and msgspec): lower bounds without indexes and without a view. On a busy machine, compare
the CPU seconds, which are printed for both.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
import redis
from place import agents_of

from galaxy.appmaster.logic import AppMaster, AppMasterConfig
from galaxy.client.transport import retry_while_away
from galaxy.driver.interfaces import Grant
from galaxy.driver.shell import LeaderShell, ShellOptions
from galaxy.model.api.jobs import SubmitJob
from galaxy.model.api.request import Request
from galaxy.model.base import WIRE_VERSION, stable_hash
from galaxy.model.jobspec.demand import demand_of
from galaxy.model.jobspec.spec import (
    CpuSpec,
    DeploySpec,
    JobSpec,
    MemorySpec,
    PodSpec,
    PortSpec,
    ServiceSpec,
    TaskSpec,
    VolumeSpec,
)
from galaxy.model.messages.agent import AgentInfo, AgentReport, Heartbeat, HeartbeatsRead
from galaxy.model.messages.container import (
    ContainerOrders,
    GroupOrder,
    GroupOrders,
    ObservedContainer,
    ObservedContainerState,
)
from galaxy.model.messages.digest import digest_of_pod
from galaxy.model.messages.names import APPMASTER, RESMAN
from galaxy.model.messages.pod import ObservedPod, ObservedTask, PodOrders, PodState, TaskState
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.step import Logic, Send, Step
from galaxy.model.stored.table import Table, TableChange
from galaxy.nexus import Nexus, keys
from galaxy.resman.logic import ResMan, ResManConfig
from galaxy.resman.logic.state.container_index import DIGEST

AGENTS, JOBS, EACH = 10_000, 1_000, 100
ROUNDS = 5
AIM_S = 2.0
PIECE = 10_000
MIB = 1024**2


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=ROUNDS)
    options.add_argument(
        "--agents", type=int, default=AGENTS, help="jobs are a tenth, of 100 containers each"
    )
    options.add_argument("--profile", choices=(RESMAN, APPMASTER), help="profile one leader instead")
    given = options.parse_args()
    with server() as url:
        sizes = fill(url, given.agents)
        if given.profile:
            profile(url, given.profile)
            return
        found: dict[str, list[dict[str, float]]] = {RESMAN: [], APPMASTER: []}
        for _ in range(given.rounds):  # In turn, so that noise of the machine affects all alike.
            for role, rounds in found.items():
                rounds.append(apart(lead, url, role) | apart(floors, url, role))
    medians = {role: {name: _median(rounds, name) for name in rounds[0]} for role, rounds in found.items()}
    worst = max(one["committed"] for rounds in found.values() for one in rounds)
    names = tuple(medians[RESMAN])
    print(f"{given.agents} agents, {given.agents * 10} containers; median of {given.rounds}, s")
    print(f"{'':<12}{'rows':>10}{'MB':>7}" + "".join(f"{name:>13}" for name in names))
    for role, by_name in medians.items():
        rows, size = sizes[role]
        print(f"{role:<12}{rows:>10}{size / 1e6:>7.1f}" + "".join(f"{by_name[n]:>13.2f}" for n in names))
    ours = {role: by_name["committed"] for role, by_name in medians.items()}
    peers = {role: {name: by_name[name] for name in PEERS} for role, by_name in medians.items()}
    print(
        json.dumps(
            {
                "bench": "load", "unit": "s", "rounds": given.rounds, "agents": given.agents, "aim": AIM_S,
                "ours": ours, "worst": round(worst, 3), "parts": medians, "peers": peers,
            }
        )
    )  # fmt: skip


def _median(rounds: Sequence[dict[str, float]], name: str) -> float:
    return round(float(statistics.median(one[name] for one in rounds)), 3)


# ---- the cluster that a leader inherits


def fill(url: str, count: int) -> dict[str, tuple[int, int]]:
    """Store a cluster at rest; return the rows and bytes of each role."""
    agents = agents_of(random.Random(42))[:count]
    resman = ResMan(ResManConfig(placements_max=10 * count))
    appmaster = AppMaster(AppMasterConfig(orders_per_step_max=10 * count))
    settle(resman, appmaster, agents, count // 10)
    nexus = Nexus(url, name="bench")
    sizes = {}
    for role, logic in ((RESMAN, resman), (APPMASTER, appmaster)):
        changes = [change for table in logic.tables.values() for change in table.changes()]
        grant = nexus.campaign(role, "bench", ttl_s=600.0, address="bench")
        assert isinstance(grant, Grant)
        for serial, first in enumerate(range(0, len(changes), PIECE)):
            nexus.commit(grant, serial, changes[first : first + PIECE], ())
        nexus.release(grant)
        sizes[role] = len(changes), sum(len(change.value or b"") for change in changes)
    digests = resman.state.containers.sums(DIGEST)
    for name in resman.state.watches:
        digest = 0
        for key in appmaster.state.pods.where("agent", name):
            pod = appmaster.state.pods[key]
            assert pod.up and pod.observed is not None
            digest ^= digest_of_pod(pod.pod, pod.incarnation, pod.generation, pod.observed.state, True)
        nexus.send_heartbeat(name, boot="boot", containers=digests.get(name, 0), pods=digest)
    nexus.close()
    return sizes


def settle(resman: ResMan, appmaster: AppMaster, agents: Sequence[AgentInfo], jobs: int) -> None:
    """Bring all jobs to running, message by message, as leaders and agents do."""
    now_s = time.time()
    resman.lead(1, now_s)
    appmaster.lead(1, now_s)
    hello = [AgentReport(agent=a.agent, boot=a.boot, serial=1, full=True, info=a) for a in agents]
    heartbeats = HeartbeatsRead(
        now_s=now_s,
        heartbeats=tuple(
            Heartbeat(agent=a.agent, at_s=now_s, boot=a.boot, wire=WIRE_VERSION) for a in agents
        ),
    )
    resman.step(now_s, [*hello, heartbeats])
    requests = [
        Request(
            op="galaxy.job.submit", key=f"key{number}", reply="r", deadline_s=now_s + 600, user="bench",
            body=SubmitJob(spec=spec(number)),
        )
        for number in range(jobs)
    ]  # fmt: skip
    to_resman: list[Any] = bodies(appmaster.step(now_s, [*requests, heartbeats]), GroupOrders)
    serial = 1
    while to_resman:
        step = resman.step(now_s, to_resman)
        serial += 1
        to_resman = [created_report(orders, serial) for orders in bodies(step, ContainerOrders)]
        ordered = appmaster.step(now_s, bodies_to(step, APPMASTER))
        up = [running_report(orders, serial) for orders in bodies(ordered, PodOrders)]
        appmaster.step(now_s, up)
    assert all(pod.up for pod in appmaster.state.pods.values())
    assert len(appmaster.state.pods) == len(resman.state.containers) == jobs * EACH


def spec(number: int) -> JobSpec:
    return JobSpec(
        name=f"job{number}",
        deploy=DeploySpec(replica=EACH, step=5),
        pod=PodSpec(
            workspace=VolumeSpec(path="/home/galaxy", size=64 * MIB),
            tasks=(
                TaskSpec(
                    name="main", cpu=CpuSpec(millicores=100), memory=MemorySpec(size=64 * MIB),
                    start="exec /opt/serve --port $PORT_HTTP", ports=(PortSpec(name="http"),),
                    services=(ServiceSpec(name=f"service{number}", port="http"),),
                ),
            ),
        ),
    )  # fmt: skip


def bodies(step: Step, kind: type[Any]) -> list[Any]:
    return [send.body for send in step.sends if isinstance(send.body, kind)]


def bodies_to(step: Step, queue: str) -> list[Any]:
    return [send.body for send in step.sends if send.queue == queue]


def created_report(orders: ContainerOrders, serial: int) -> AgentReport:
    """Return the report of an agent that has created every ordered container."""
    found = tuple(
        ObservedContainer(
            container=order.container, incarnation=order.incarnation, state=ObservedContainerState.READY,
            ports={"http": 20_000 + stable_hash(order.container) % 12_000},
        )
        for order in orders.create
    )  # fmt: skip
    return AgentReport(agent=orders.agent, boot="boot", serial=serial, containers=found)


def running_report(orders: PodOrders, serial: int) -> AgentReport:
    """Return the report of an agent whose AppWorkers run every ordered pod."""
    now_s = time.time()
    task = ObservedTask(name="main", state=TaskState.RUNNING, started_s=now_s, version="v1")
    found = tuple(
        ObservedPod(
            pod=order.pod, incarnation=order.incarnation, generation=order.generation,
            state=PodState.RUNNING, healthy=True, tasks=(task,), pid=4000 + order.index,
            ports={"http": 20_000},
        )
        for order in orders.orders
    )  # fmt: skip
    return AgentReport(agent=orders.agent, boot="boot", serial=serial, pods=found)


# ---- measurements, each in a new process


class TimedNexus(Nexus):
    """Records when the lease was requested, when all tables were read, and when a step was committed."""

    def __init__(self, url: str) -> None:
        super().__init__(url, name="bench")
        self.at_s: dict[str, float] = {}
        self.done = threading.Event()

    def campaign(self, role: str, owner: str, *, ttl_s: float, address: str) -> Any:
        self.at_s.setdefault("lease", time.monotonic())
        self.at_s.setdefault("cpu from", time.process_time())
        return super().campaign(role, owner, ttl_s=ttl_s, address=address)

    def load(self, role: str, tables: Iterable[Table[Any]]) -> None:
        super().load(role, tables)
        self.at_s["read"] = time.monotonic()

    def commit(
        self, grant: Grant, serial: int, changes: Sequence[TableChange], trace: Sequence[TraceEvent]
    ) -> None:
        super().commit(grant, serial, changes, trace)
        self.at_s.setdefault("committed", time.monotonic())
        self.at_s.setdefault("cpu to", time.process_time())
        self.done.set()


def lead(url: str, role: str) -> dict[str, float]:
    """Lead until something is committed; return the seconds since the lease was requested."""
    nexus = TimedNexus(url)
    logic: Logic = ResMan() if role == RESMAN else AppMaster()

    def led() -> None:
        nexus.at_s["led"] = time.monotonic()
        shell.offer(new_order(role, str(os.getpid())))

    shell = LeaderShell(
        role=role, owner=f"bench-{os.getpid()}", address="bench", logic=logic, nexus=nexus,
        publish=nothing, on_lead=led, options=ShellOptions(),
    )  # fmt: skip
    shell.start()
    assert nexus.done.wait(120), f"{role} committed nothing"
    shell.stop(30)
    at_s = nexus.at_s
    spent = {name: at_s[name] - at_s["lease"] for name in ("read", "led", "committed")}
    return spent | {"CPU": at_s["cpu to"] - at_s["cpu from"]}


def new_order(role: str, name: str) -> Any:
    """Return an order with a unique name that makes a leader commit."""
    if role == APPMASTER:
        deploy = DeploySpec(replica=1)
        body = SubmitJob(spec=msgspec.structs.replace(spec(0), name=f"new{name}", deploy=deploy))
        end_s = time.time() + 60
        return Request(op="galaxy.job.submit", key=name, reply="r", deadline_s=end_s, body=body)
    order = GroupOrder(group=f"new{name}", epoch=1, serial=1, replicas=1, demand=demand_of(spec(0)))
    return GroupOrders(orders=(order,))


def nothing(_: Sequence[Send]) -> None:
    """Publish nothing: only the time up to the commit is measured."""


def floors(url: str, role: str) -> dict[str, float]:
    """Return the seconds for reading the same rows and doing nothing with them."""
    client = redis.Redis.from_url(url, protocol=2)
    client.ping()
    logic: Logic = ResMan() if role == RESMAN else AppMaster()
    plain_s, typed_s = np.zeros(2), np.zeros(2)
    for table in logic.tables.values():
        key = keys.table(role, table.name)
        plain_s += timed(lambda key=key: {f: json.loads(v) for f, v in client.hgetall(key).items()})
        decoder = msgspec.json.Decoder(table.kind)
        typed_s += timed(lambda key=key, d=decoder: {f: d.decode(v) for f, v in client.hgetall(key).items()})
    return dict(zip(PEERS, (*plain_s, *typed_s), strict=True))


PEERS = ("json", "json CPU", "msgspec", "msgspec CPU")


def timed(call: Callable[[], object]) -> Any:
    """Return the seconds and the CPU seconds of a call."""
    began_s = time.monotonic(), time.process_time()
    kept = call()
    took_s = np.array((time.monotonic(), time.process_time())) - began_s
    del kept
    return took_s


def apart(call: Callable[[str, str], dict[str, float]], url: str, role: str) -> dict[str, float]:
    """Return what ``call`` returns in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(call, (url, role))


def profile(url: str, role: str) -> None:
    """Show what the loop's own thread does until the first commit."""
    import cProfile
    import pstats

    from galaxy.driver.leadership import Leadership

    nexus = TimedNexus(url)
    logic: Logic = ResMan() if role == RESMAN else AppMaster()
    grant = nexus.campaign(role, "profile", ttl_s=600, address="bench")
    profiler = cProfile.Profile(time.thread_time)
    profiler.enable()
    leadership = Leadership(logic, nexus, grant)
    leadership.begin(time.time())
    leadership.advance(time.time(), [nexus.heartbeats(), new_order(role, "profile")])
    profiler.disable()
    nexus.release(grant)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(35)


@contextmanager
def server() -> Iterator[str]:
    """Start a Redis for this benchmark, without persistence."""
    with tempfile.TemporaryDirectory(prefix="bench-load-") as directory:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        binary = shutil.which("redis-server") or shutil.which("valkey-server")
        assert binary, "needs redis-server or valkey-server"
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory]
        url = f"redis://127.0.0.1:{port}/0"
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                retry_while_away(lambda: Nexus.connect(url, name="bench"), 10.0).close()
                yield url
            finally:
                process.terminate()


if __name__ == "__main__":
    main()
