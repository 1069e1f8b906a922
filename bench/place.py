"""Placements per second: Galaxy, compared with plain Python that places one container at a time.

10,000 agents, 100,000 containers in 1,000 groups, every constraint but affinity in use: cpu, memory,
disk, pools, tags and labels required, forbidden and preferred, spread over a label, anti-affinity,
static and dynamic ports, containers per agent, replicas per host. Then 100 more, as one group and as a
hundred groups. Then one step of ResMan at that size, with the heartbeats of all agents.

The peers place the same groups on the same agents, but only the first groups: they are slow.
Published figures, on other machines and with other rules: Treadmill's scheduler (Python) 4,600
to 7,700 a second at this size and 1.3 to 2.8 s for 100 more; the floor of Kubernetes' benchmarks is 810 a
second at 5,000 nodes; Nomad's million-container run 1,500 a second.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from msgspec.structs import replace

from galaxy.model.base import WIRE_VERSION, Struct
from galaxy.model.messages.agent import AgentInfo, AgentReport, Heartbeat, HeartbeatsRead
from galaxy.model.messages.container import (
    Constraints,
    Demand,
    GroupOrder,
    GroupOrders,
    ObservedContainer,
    ObservedContainerState,
    PortDemand,
    TaskDemand,
    VolumeDemand,
)
from galaxy.model.stored.agent import AgentRecord, first_record
from galaxy.resman.logic import ResMan, ResManConfig
from galaxy.resman.logic.state.container_index import DIGEST
from galaxy.scheduler.cluster_view import ClusterView
from galaxy.scheduler.place import place
from galaxy.scheduler.requests import Ask, JobGroups, Shape, shape_of

AGENTS, GROUPS, EACH = 10_000, 1_000, 100
GIB = 1024**3
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round, and fewer groups for the peers")
    quick = parser.parse_args().quick
    agents, demands = agents_of(random.Random(42)), demands_of(random.Random(43))
    rates: dict[str, list[float]] = {"galaxy": [], "plain best fit": [], "plain first fit": []}
    plus_one: list[float] = []
    plus_many: list[float] = []
    peer_plus: list[float] = []
    for _ in range(1 if quick else 5):  # In turn, so that noise of the machine affects all alike.
        rate, one_ms, many_ms = ours(agents, demands)
        rates["galaxy"].append(rate)
        plus_one.append(one_ms)
        plus_many.append(many_ms)
        for name, best in (("plain best fit", True), ("plain first fit", False)):
            share = (1 if quick else 3) * (1 if best else 20)
            rate, spent_ms = plain(agents, demands[:share], best=best)
            rates[name].append(rate)
            if best:
                peer_plus.append(spent_ms)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    heartbeats_ms, lead_s = resman_at_size(agents, demands)
    print(f"{AGENTS} agents, {GROUPS * EACH} containers in {GROUPS} groups, all constraints on")
    for name, rate in middle.items():
        note = "" if name == "galaxy" else "  (one container at a time, a share of the groups)"
        print(f"  {name:16} {rate:12,.0f} placements/s{note}")
    print(f"  100 more         {statistics.median(plus_one):12.2f} ms as one group")
    print(f"                   {statistics.median(plus_many):12.2f} ms as 100 groups")
    print(f"                   {statistics.median(peer_plus):12.2f} ms plain best fit")
    print(f"  all heartbeats   {heartbeats_ms:12.2f} ms of a ResMan step")
    print(f"  a leader's start {lead_s:12.2f} s from tables to ready")
    print(
        json.dumps(
            {
                "bench": "place",
                "ours": round(middle["galaxy"]),
                "peers": {k: round(v, 1) for k, v in middle.items() if k != "galaxy"},
                "unit": "placements/s",
                "plus100_ms": round(statistics.median(plus_one), 2),
                "plus100_groups_ms": round(statistics.median(plus_many), 2),
                "peer_plus100_ms": round(statistics.median(peer_plus), 1),
                "beats_step_ms": round(heartbeats_ms, 2),
                "lead_s": round(lead_s, 2),
                "best": round(max(rates["galaxy"])),
                "rounds": len(plus_one),
            }
        )
    )


def agents_of(rng: random.Random) -> list[AgentInfo]:
    """Return machines of three sizes in ten pools, some with an ssd, some with a gpu."""
    sizes = ((16, 64), (32, 128), (64, 256))
    agents = []
    for number in range(AGENTS):
        cores, memory = rng.choice(sizes)
        tags = tuple(tag for tag, share in (("ssd", 0.6), ("gpu", 0.3)) if rng.random() < share)
        agents.append(
            AgentInfo(
                agent=f"h{number:05}",
                address=f"10.{number // 65536}.{number // 256 % 256}.{number % 256}",
                boot="boot",
                version="1",
                cpu_milli=cores * 1000,
                memory_bytes=memory * GIB,
                disk_bytes=1000 * GIB,
                pool=f"pool-{number % 10}",
                tags=tags,
                ports_low=20000,
                ports_high=20999,
                enforced=("cpu", "memory", "disk"),
            )
        )
    return agents


def demands_of(rng: random.Random) -> list[Demand]:
    """Return the demand of each group; together about a quarter of all that the agents have."""
    demands = []
    for number in range(GROUPS):
        ports = [PortDemand(name=f"d{i}") for i in range(rng.randrange(1, 3))]
        if number % 2:
            ports.append(PortDemand(name="static", port=1100 + number))
        demands.append(
            Demand(
                tasks=(
                    TaskDemand(
                        name="main",
                        cpu_milli=rng.choice((250, 500, 1000, 2000)),
                        memory_bytes=rng.choice((1, 2, 4, 8)) * GIB,
                    ),
                ),
                workspace=VolumeDemand(path="/work", size_bytes=rng.choice((1, 10, 20)) * GIB),
                ports=tuple(ports),
                pools=tuple(f"pool-{pool}" for pool in rng.sample(range(10), rng.randrange(2, 5))),
                tag=rng.choice(("", "", "ssd", "gpu")),
                max_per_host=rng.randrange(1, 6),
                constraints=CONSTRAINTS.get(number % 8, Constraints()),
            )
        )
    return demands


def ours(agents: list[AgentInfo], demands: list[Demand]) -> tuple[float, float, float]:
    """Return placements per second, and the milliseconds for 100 more as one group and as 100 groups."""
    view = ClusterView()
    for agent in agents:
        view.join(record_of(agent))
    shapes = [shape_of(demand, require=("cpu", "memory")) for demand in demands]
    asks = [
        replace(_ask(f"g{number}", shape, EACH), apart=apart_from(number))
        for number, shape in enumerate(shapes)
    ]
    plan, spent_s = _timed(lambda: place(view, asks))
    assert len(plan.placements) == AGENTS * 10, plan.refusals[:1]
    for placement in plan.placements:
        view.created(placement.container)
    one_s, many_s = [], []
    for turn in range(10):
        one_s.append(_plus(view, [_ask("one", shapes[turn], 100)]))
        singles = [_ask(f"s{number}", shape, 1) for number, shape in enumerate(shapes[turn::10])]
        many_s.append(_plus(view, singles))
    rate = len(plan.placements) / spent_s
    return rate, 1000 * statistics.median(one_s), 1000 * statistics.median(many_s)


def record_of(agent: AgentInfo) -> AgentRecord:
    """Return the agent with its labels: one of three zones, and one of fifty racks."""
    number = int(agent.agent[1:])
    return replace(first_record(agent), labels={"zone": f"z{number % 3}", "rack": f"r{number // 200}"})


def apart_from(number: int) -> tuple[JobGroups, ...]:
    """Return what group ``number`` stays apart from: a tenth of the groups does, from the one before."""
    return (JobGroups(f"g{number - 1}", (f"g{number - 1}",)),) if number % 10 == 5 else ()


def _plus(view: ClusterView, asks: list[Ask]) -> float:
    """Return the seconds that placing 100 more takes; they are released afterwards."""
    plan, spent_s = _timed(partial(place, view, asks))
    assert len(plan.placements) == 100, plan.refusals[:1]
    for placement in plan.placements:
        view.release(placement.container)
    return spent_s


def _ask(group: str, shape: Shape, count: int) -> Ask:
    containers = tuple(f"{group}.{slot}" for slot in range(count))
    return Ask(group=group, shape=shape, containers=containers, size=count)


CONSTRAINTS: Final = {
    1: Constraints(require=("rack=" + "|".join(f"r{number}" for number in range(50) if number % 5),)),
    3: Constraints(forbid=("rack=r7",)),
    5: Constraints(prefer=("ssd",)),
    7: Constraints(spread="zone"),
}
"""Constraints of half of the groups, by their number modulo 8."""


class PlainAgent:
    """An agent of the plain scheduler."""

    def __init__(self, info: AgentInfo) -> None:
        self.info = info
        self.cpu = info.cpu_milli
        self.memory = info.memory_bytes
        self.disk = info.disk_bytes
        self.dynamic = info.ports_high - info.ports_low + 1
        self.slots = info.containers
        self.static: set[int] = set()
        self.labels = record_of(info).labels
        self.groups: dict[str, int] = {}

    def has(self, mark: str) -> bool:
        label, equals, values = mark.partition("=")
        return self.labels.get(label) in values.split("|") if equals else mark in self.info.tags

    def fits(self, group: str, shape: Shape, apart: tuple[JobGroups, ...]) -> bool:
        load, asks = shape.load, shape.load.resources
        return (
            self.cpu >= asks.cpu_milli
            and self.memory >= asks.memory_bytes
            and self.disk >= asks.disk_bytes
            and self.slots > 0
            and self.dynamic >= load.dynamic
            and (not shape.pools or self.info.pool in shape.pools)
            and (not shape.tag or shape.tag in self.info.tags)
            and not self.static.intersection(load.ports)
            and all(self.has(mark) for mark in shape.constraints.require)
            and not any(self.has(mark) for mark in shape.constraints.forbid)
            and not any(name in self.groups for job in apart for name in job.groups)
            and (not shape.max_per_host or self.groups.get(group, 0) < shape.max_per_host)
        )

    def take(self, group: str, shape: Shape) -> None:
        load, asks = shape.load, shape.load.resources
        self.cpu -= asks.cpu_milli
        self.memory -= asks.memory_bytes
        self.disk -= asks.disk_bytes
        self.dynamic -= load.dynamic
        self.slots -= 1
        self.static.update(load.ports)
        self.groups[group] = self.groups.get(group, 0) + 1

    def left(self, group: str, shape: Shape, zones: dict[str, int]) -> tuple[int, int, int, float]:
        asks = shape.load.resources
        cpu = (self.cpu - asks.cpu_milli) / self.info.cpu_milli
        memory = (self.memory - asks.memory_bytes) / self.info.memory_bytes
        zone = zones.get(self.labels["zone"], 0) if shape.constraints.spread else 0
        lacking = sum(not self.has(mark) for mark in shape.constraints.prefer)
        return zone, lacking, self.groups.get(group, 0), max(cpu, memory)


def plain(agents: list[AgentInfo], demands: list[Demand], *, best: bool) -> tuple[float, float]:
    """Place one container at a time by a loop over all agents.

    Returns placements per second, and the milliseconds for 100.
    """
    plain_agents = [PlainAgent(agent) for agent in agents]
    shapes = [shape_of(demand) for demand in demands]

    def run() -> int:
        placed = 0
        for number, shape in enumerate(shapes):
            group, apart = f"g{number}", apart_from(number)
            zones: dict[str, int] = {}
            for _ in range(EACH):
                fitting = (agent for agent in plain_agents if agent.fits(group, shape, apart))
                if best:
                    chosen = min(fitting, key=lambda agent: agent.left(group, shape, zones), default=None)
                else:
                    chosen = next(fitting, None)
                if chosen is not None:
                    chosen.take(group, shape)
                    zone = chosen.labels["zone"]
                    zones[zone] = zones.get(zone, 0) + 1
                    placed += 1
        return placed

    placed, spent_s = _timed(run)
    return placed / spent_s, 100_000 * spent_s / placed


def resman_at_size(agents: list[AgentInfo], demands: list[Demand]) -> tuple[float, float]:
    """Return the milliseconds of a step with all heartbeats, and the seconds in which a leadership begins."""
    resman = ResMan(ResManConfig(placements_max=200_000))
    resman.lead(1, 0.0)
    committed(
        resman,
        0.0,
        [AgentReport(agent=a.agent, boot=a.boot, serial=1, full=True, info=a) for a in agents],
    )
    for agent in agents:
        record = resman.state.agents[agent.agent]
        resman.state.change_agent(replace(record, labels=record_of(agent).labels))
    orders = tuple(
        GroupOrder(group=f"g{number}", epoch=1, serial=1, replicas=EACH, demand=demand)
        for number, demand in enumerate(demands)
    )
    committed(resman, 1.0, [GroupOrders(orders=orders)])
    by_agent: dict[str, list[ObservedContainer]] = {agent.agent: [] for agent in agents}
    for row in resman.state.containers.values():
        found = ObservedContainer(
            container=row.container, incarnation=row.incarnation, state=ObservedContainerState.READY
        )
        by_agent[row.agent].append(found)
    committed(
        resman,
        2.0,
        [
            AgentReport(agent=name, boot="boot", serial=2, containers=tuple(found))
            for name, found in by_agent.items()
        ],
    )
    digests = resman.state.containers.sums(DIGEST)
    spent: list[float] = []
    for second in range(3, 13):
        heartbeats = tuple(
            Heartbeat(
                agent=name,
                at_s=float(second),
                boot="boot",
                containers=digests.get(name, 0),
                wire=WIRE_VERSION,
            )
            for name in by_agent
        )
        seen = HeartbeatsRead(now_s=float(second), heartbeats=heartbeats)
        step, spent_s = _timed(partial(resman.step, float(second), [seen]))
        assert not step.sends
        spent.append(1000 * spent_s)
        accept(resman)
    _, lead_s = _timed(lambda: resman.lead(2, 20.0))
    return statistics.median(spent), lead_s


def committed(resman: ResMan, now_s: float, events: Sequence[Struct]) -> None:
    """Step, and take the changes of the tables as committed, as the driver does."""
    resman.step(now_s, events)
    accept(resman)


def accept(resman: ResMan) -> None:
    for table in resman.tables.values():
        table.accept()


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    began_s = time.perf_counter()
    result = call()
    return result, time.perf_counter() - began_s


if __name__ == "__main__":
    main()
