"""Pods per second in cases shaped like Kubernetes' scheduler_perf: 5,000 hosts, one pod at a time.

Every pod is a group of its own, as there, so nothing is gained from equal pods. Kubernetes' figures are
the floors of its own continuous tests, through a whole control plane; ours are of the scheduler alone,
except for preemption, which is whole steps of ResMan's logic. So they are no comparison of the same work.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from msgspec.structs import replace

from galaxy.model.base import WIRE_VERSION, Struct
from galaxy.model.messages.agent import AgentInfo, AgentReport, Heartbeat, HeartbeatsRead
from galaxy.model.messages.container import (
    PREEMPTED,
    Constraints,
    ContainerState,
    Demand,
    GroupOrder,
    GroupOrders,
    TaskDemand,
    VolumeDemand,
)
from galaxy.model.resources import Resources
from galaxy.model.stored.agent import first_record
from galaxy.resman.logic import ResMan, ResManConfig
from galaxy.scheduler.cluster_view import ClusterView
from galaxy.scheduler.place import place
from galaxy.scheduler.requests import Ask, JobGroups, Load, Shape

GIB: Final = 1024**3
FLOORS: Final = {
    "basic": 810,
    "node affinity": 220,
    "anti-affinity": 60,
    "spread": 460,
    "preemption": 570,
    "churn": 710,
}
"""Pods per second that Kubernetes' continuous tests demand at 5,000 hosts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hosts", type=int, default=5_000)
    parser.add_argument("--pods", type=int, default=5_000)
    args = parser.parse_args()
    hosts, pods = args.hosts, args.pods
    cases: dict[str, Callable[[], float]] = {
        "basic": lambda: placed_per_s(hosts, (_ask(n) for n in range(pods))),
        "node affinity": lambda: placed_per_s(
            hosts, (_ask(n, Constraints(require=("zone=z1",))) for n in range(pods))
        ),
        "anti-affinity": lambda: placed_per_s(hosts, anti_affine(min(pods, hosts // 2))),
        "spread": lambda: placed_per_s(
            hosts, (replace(_ask(n, Constraints(spread="zone")), group="web") for n in range(pods))
        ),
        "churn": lambda: churned_per_s(hosts, pods),
        "preemption": lambda: preempted_per_s(hosts, min(pods, hosts // 5)),
    }
    rates = {name: round(run()) for name, run in cases.items()}
    for name, rate in rates.items():
        print(f"{name:14} {rate:10,} pods/s   (Kubernetes' floor: {FLOORS[name]})")
    print(
        json.dumps(
            {"bench": "scheduler_perf", "hosts": hosts, "unit": "pods/s", "ours": rates, "floors": FLOORS}
        )
    )


def view_of(hosts: int) -> ClusterView:
    """Return hosts of 32 cores and 128 GiB in three zones, each with ten pods already."""
    view = ClusterView(creating_max=10_000)
    for number in range(hosts):
        record = first_record(_info(f"h{number:05}"))
        view.join(replace(record, labels={"zone": f"z{number % 3}"}))
    for number in range(10 * hosts):
        view.charge(f"old{number}", view.names[number % hosts], f"old{number % 1000}", _LOAD)
    return view


def placed_per_s(hosts: int, asks: Iterator[Ask]) -> float:
    """Return how many asks are placed per second, one call for each."""
    view, count = view_of(hosts), 0
    spent_s = 0.0
    for ask in asks:
        began_s = time.perf_counter()
        plan = place(view, [ask])
        spent_s += time.perf_counter() - began_s
        assert plan.placements, plan.refusals
        count += 1
    return count / spent_s


def anti_affine(pods: int) -> Iterator[Ask]:
    """Yield pods of which none shares a host with another: the last has all before it to stay apart from."""
    groups: list[str] = []
    for number in range(pods):
        yield replace(_ask(number), apart=(JobGroups("web", tuple(groups)),))
        groups.append(f"g{number}")


def churned_per_s(hosts: int, pods: int) -> float:
    """Return how many pods are placed per second while another one ends for each."""
    view = view_of(hosts)
    began_s = time.perf_counter()
    for number in range(pods):
        assert place(view, [_ask(number)]).placements
        view.release(f"old{number % (10 * hosts)}")
    return pods / (time.perf_counter() - began_s)


def commit(resman: ResMan, now_s: float, events: Sequence[Struct]) -> None:
    """Step, and take the changes of the tables as committed, as the driver does."""
    resman.step(now_s, events)
    for table in resman.tables.values():
        table.accept()


def preempted_per_s(hosts: int, pods: int) -> float:
    """Return for how many pods per second ResMan's steps make room, on hosts full of batch pods."""
    resman = ResMan(ResManConfig(placements_max=200_000, creating_max=10_000))
    resman.lead(1, 0.0)
    infos = [_info(f"h{number:05}") for number in range(hosts)]
    beats = tuple(Heartbeat(agent=info.agent, at_s=1.0, boot="boot", wire=WIRE_VERSION) for info in infos)
    reports = [AgentReport(agent=i.agent, boot="boot", serial=1, full=True, info=i) for i in infos]
    commit(resman, 0.0, reports)
    commit(resman, 1.0, [HeartbeatsRead(now_s=1.0, heartbeats=beats)])
    batch = [_order(f"batch{n}-1", 4, 8_000, 200) for n in range(hosts)]
    commit(resman, 1.1, [GroupOrders(orders=tuple(batch))])
    assert not resman.state.containers.count("waiting", f"batch{hosts - 1}-1")
    began_s = time.perf_counter()
    commit(resman, 1.2, [GroupOrders(orders=tuple(_order(f"web{n}-1", 1, 8_000, 100) for n in range(pods)))])
    steps = 1
    while len(resman.state.reservations) < pods and steps < pods:
        steps += 1
        commit(resman, 1.2 + steps / 1000, [])
    spent_s = time.perf_counter() - began_s
    rows = resman.state.containers.values()
    victims = sum(
        row.state is ContainerState.PENDING and row.reason is not None and row.reason.code == PREEMPTED
        for row in rows
    )
    assert victims == pods, (victims, pods)
    return pods / spent_s


_NONE: Final = Constraints()
_LOAD: Final = Load(Resources(cpu_milli=100, memory_bytes=GIB // 2, containers=1))


def _info(agent: str) -> AgentInfo:
    return AgentInfo(
        agent=agent, address="", boot="boot", version="1", cpu_milli=32_000, memory_bytes=128 * GIB,
        disk_bytes=1000 * GIB, ports_low=20_000, ports_high=29_999,
    )  # fmt: skip


def _ask(number: int, constraints: Constraints = _NONE) -> Ask:
    shape = Shape(load=_LOAD, constraints=constraints)
    return Ask(group=f"g{number}", shape=shape, containers=(f"g{number}.0",))


def _order(group: str, replicas: int, cpu_milli: int, priority: int) -> GroupOrder:
    demand = Demand(
        tasks=(TaskDemand(name="main", cpu_milli=cpu_milli, memory_bytes=GIB),),
        workspace=VolumeDemand(path="/work", size_bytes=GIB),
    )
    return GroupOrder(group=group, epoch=1, serial=1, replicas=replicas, demand=demand, priority=priority)


if __name__ == "__main__":
    main()
