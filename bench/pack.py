"""How few machines the scheduler needs, on a published trace and on others made from it.

Cell compaction, after Borg (Verma et al., EuroSys 2015): the machines come in a random order, and
the shortest prefix of them is sought that places at least 99.8 % of the containers, one by one in
the order of their arrival, without departures. Galaxy's ``place`` runs beside first fit and best fit
(least left of the least used resource), on the same orders. The lower bound is the shortest prefix
that has the sum of the cpu and of the memory.

The trace is openb (Alibaba cluster-trace-gpu-v2023). So that a ranking cannot be fitted to it, the
same is done with its containers shuffled, with cpu and memory changing roles, and with machines and
containers of other sizes (lognormal, drawn from a seed).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from galaxy.model.messages.agent import AgentInfo
from galaxy.model.resources import Resources
from galaxy.model.stored.agent import first_record
from galaxy.scheduler.cluster_view import ClusterView
from galaxy.scheduler.place import place
from galaxy.scheduler.requests import Ask, Load, Shape

MIB: Final = 1024**2
PLACED_SHARE: Final = 0.998
DATA: Final = Path(os.environ.get("GALAXY_OPENB", "/work/shared/data/openb"))

Size: TypeAlias = tuple[int, int]
"""Millicores and MiB, of a machine or of a container."""


class Trace(NamedTuple):
    """Machines and containers; the containers in the order of their arrival."""

    machines: Sequence[Size]
    containers: Sequence[Size]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one order of machines")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the openb files")
    args = parser.parse_args()
    seeds = range(42, 43 if args.quick else 47)
    openb = read(args.data)
    figures: dict[str, dict[str, float]] = {}
    for name, trace in traces(openb).items():
        figures[name] = compaction(trace, seeds)
        row = "  ".join(f"{policy} {mean:.1f}" for policy, mean in figures[name].items())
        print(f"{name:10} machines needed: {row}", flush=True)
    print(json.dumps({"bench": "pack", "unit": "machines", "orders": len(seeds), **figures}))


def read(folder: Path) -> Trace:
    """Return the machines and containers of openb."""
    machines = _rows(folder / "openb_node_list_all_node.csv.gz")
    containers = _rows(folder / "openb_pod_list_default.csv.gz")
    return Trace(machines, containers)


def _rows(path: Path) -> list[Size]:
    with gzip.open(path, "rt") as file:
        return [(int(row["cpu_milli"]), int(row["memory_mib"])) for row in csv.DictReader(file)]


def traces(openb: Trace) -> dict[str, Trace]:
    """Return openb, and traces that differ from it in order, in the scarce resource, or in all sizes."""
    rng = random.Random(5)
    machines, containers = openb
    kinds = ((32_000, 131_072), (64_000, 524_288), (96_000, 262_144))
    drawn = [
        (
            min(32_000, max(100, int(rng.lognormvariate(8.3, 0.9)))),
            min(120_000, max(256, int(rng.lognormvariate(9.8, 1.0)))),
        )
        for _ in containers
    ]
    return {
        "openb": openb,
        "shuffled": Trace(machines, rng.sample(list(containers), len(containers))),
        "swapped": Trace(_swapped(machines), _swapped(containers)),
        "lognormal": Trace([rng.choice(kinds) for _ in machines], drawn),
    }


def _swapped(sizes: Sequence[Size]) -> list[Size]:
    return [(memory // 4, 4 * cpu) for cpu, memory in sizes]


def compaction(trace: Trace, seeds: Sequence[int]) -> dict[str, float]:
    """Return for each policy the mean number of machines that it needs, over orders of the machines."""
    policies: dict[str, Callable[[Sequence[Size], Sequence[Size]], int]] = {
        "galaxy": galaxy,
        "best fit": best_fit,
        "first fit": first_fit,
    }
    needed: dict[str, list[int]] = {"bound": [], **{name: [] for name in policies}}
    for seed in seeds:
        machines = list(trace.machines)
        random.Random(seed).shuffle(machines)
        bound = lower_bound(machines, trace.containers)
        needed["bound"].append(bound)
        for name, placed in policies.items():
            needed[name].append(shortest(bound, machines, trace.containers, placed))
    return {name: round(statistics.mean(counts), 1) for name, counts in needed.items()}


def lower_bound(machines: Sequence[Size], containers: Sequence[Size]) -> int:
    """Return the length of the shortest prefix that has as much of each resource as is asked for."""
    sums = np.cumsum(np.array(machines), axis=0)
    enough = (sums >= np.array(containers).sum(axis=0)).all(axis=1)
    return int(np.argmax(enough)) + 1


def shortest(
    bound: int,
    machines: Sequence[Size],
    containers: Sequence[Size],
    placed: Callable[[Sequence[Size], Sequence[Size]], int],
) -> int:
    """Return the length of the shortest prefix that places enough, found by bisection, then step by step."""

    def enough(count: int) -> bool:
        return placed(machines[:count], containers) >= PLACED_SHARE * len(containers)

    low, high = bound - 20, bound + 20
    while high < len(machines) and not enough(high):
        low, high = high, high + 40
    while low < high:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle + 1
    while any(enough(low - step) for step in (1, 2, 3)):  # More machines are not always enough for more.
        low -= 1 if enough(low - 1) else 2 if enough(low - 2) else 3
    return low


def galaxy(machines: Sequence[Size], containers: Sequence[Size]) -> int:
    """Return how many containers the production scheduler places, each a group of its own."""
    view = ClusterView(creating_max=len(containers))
    for number, (cpu, memory) in enumerate(machines):
        view.join(first_record(_agent(f"m{number:05}", cpu, memory)))
    shapes: dict[Size, Shape] = {}
    count = 0
    for number, size in enumerate(containers):
        shape = shapes.get(size)
        if shape is None:
            amounts = Resources(cpu_milli=size[0], memory_bytes=size[1] * MIB, containers=1)
            shape = shapes[size] = Shape(load=Load(amounts))
        ask = Ask(group=f"g{number}", shape=shape, containers=(f"g{number}.0",))
        count += len(place(view, [ask]).placements)
    return count


def _agent(name: str, cpu_milli: int, memory_mib: int) -> AgentInfo:
    return AgentInfo(
        agent=name,
        address="",
        boot="",
        version="",
        cpu_milli=cpu_milli,
        memory_bytes=memory_mib * MIB,
        containers=10_000,
    )


def best_fit(machines: Sequence[Size], containers: Sequence[Size]) -> int:
    """Place where the least is left of the least used resource; ties by order."""
    total = np.array(machines, np.int64)
    free, count = total.copy(), 0
    for size in containers:
        left = free - size
        score = np.where((left >= 0).all(axis=1), (left / total).max(axis=1), np.inf)
        best = int(np.argmin(score))
        if score[best] < np.inf:
            free[best] = left[best]
            count += 1
    return count


def first_fit(machines: Sequence[Size], containers: Sequence[Size]) -> int:
    """Place on the first machine with room."""
    free, count = np.array(machines, np.int64), 0
    for size in containers:
        fits = (free >= size).all(axis=1)
        first = int(np.argmax(fits))
        if fits[first]:
            free[first] -= size
            count += 1
    return count


if __name__ == "__main__":
    main()
