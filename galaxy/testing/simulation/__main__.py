"""Run seeds: ``python -m galaxy.testing.simulation --seeds 0:500`` or ``--seed 7`` with its log."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter

from galaxy.testing.simulation.faults import Faults, faults_of
from galaxy.testing.simulation.scale import LargeCluster
from galaxy.testing.simulation.simulated_cluster import SimulatedCluster


def main(argv: list[str] | None = None) -> int:
    """Return 0 when every seed passed, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m galaxy.testing.simulation", description=__doc__)
    parser.add_argument("--seeds", metavar="A:B", help="run seeds A to B-1 and name those that fail")
    parser.add_argument("--seed", type=int, help="replay one seed and print its log")
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument(
        "--tail", type=int, default=0, help="print only this many lines, from the end of the log"
    )
    parser.add_argument(
        "--scale", metavar="HOSTS:CONTAINERS:SECONDS", help="what a tick costs in a large cluster"
    )
    options = parser.parse_args(argv)
    logging.disable()  # Steps that raise on purpose would fill the log.
    if options.scale:
        hosts, containers, seconds = (int(part) for part in options.scale.split(":"))
        return _scale(hosts, containers, seconds)
    if options.seed is not None:
        return _replay(options.seed, options.hosts, options.tail)
    first, _, last = (options.seeds or "0:100").partition(":")
    return _range(range(int(first), int(last or first)), options.hosts)


def _replay(seed: int, hosts: int, tail: int) -> int:
    cluster = SimulatedCluster(seed, faults_of(seed), hosts=hosts)
    outcome = cluster.run()
    for line in list(cluster.world.log)[-tail:]:
        print(line)
    print(f"seed {seed}: {outcome.failure or 'all checks passed'}")
    print(
        f"fingerprint {outcome.fingerprint}, {outcome.steps} steps, settled after {outcome.settled_s:.0f} s"
    )
    return 1 if outcome.failure else 0


def _range(seeds: range, hosts: int) -> int:
    began_s = time.perf_counter()
    failing = []
    slowest = 0.0
    fault_counts: Counter[str] = Counter()
    messages = starts = 0
    for seed in seeds:
        outcome = SimulatedCluster(seed, faults_of(seed), hosts=hosts).run()
        slowest = max(slowest, outcome.settled_s)
        fault_counts.update(outcome.faults)
        messages, starts = messages + outcome.messages, starts + outcome.starts
        if outcome.failure:
            failing.append(seed)
            print(f"seed {seed}: {outcome.failure}", flush=True)
    took_s = time.perf_counter() - began_s
    print(f"{messages} messages, {starts} starts of programs; faults: {_counts(fault_counts)}")
    print(
        f"{len(seeds)} seeds in {took_s:.1f} s ({len(seeds) / took_s:.1f}/s), "
        f"settled within {slowest:.0f} s, failing: {failing or 'none'}"
    )
    return 1 if failing else 0


def _counts(fault_counts: Counter[str]) -> str:
    return (
        ", ".join(f"{fault_counts[name]} {name}" for name in Faults.__struct_fields__ if fault_counts[name])
        or "none"
    )


def _scale(hosts: int, containers: int, seconds: int) -> int:
    began_s = time.perf_counter()
    large = LargeCluster(1, hosts=hosts, containers=containers, jobs=max(1, containers // 1000))
    up_s = large.start_jobs()
    print(
        f"{hosts} hosts, {containers} containers: all running after {up_s:.0f} s of cluster time, "
        f"{time.perf_counter() - began_s:.0f} s of real time",
        flush=True,
    )
    account = large.run_for(seconds)
    for cost in account.costs:
        loads = ", ".join(f"{load_s:.2f}" for load_s in cost.loads_s) or "none"
        print(
            f"{cost.role}: {cost.ticks} ticks, median {cost.median_s * 1e3:.2f} ms, "
            f"p99 {cost.p99_s * 1e3:.2f} ms, worst {cost.worst_s * 1e3:.0f} ms, "
            f"{cost.share:.1%} of a core; loads by new leaders, in s: {loads}"
        )
    print("; ".join(f"{count} {what}" for what, count in account.events.items()))
    print(f"{account.messages_per_s:.0f} messages/s; the whole simulator took {account.memory_mib:.0f} MiB")
    for line in account.differences:
        print(f"differs: {line[:200]} ... {line[-60:]}")
    took_s = time.perf_counter() - began_s
    kept = "all checks passed" if not account.differences else "not converged"
    print(f"{large.world.steps} steps in {took_s:.0f} s; {kept}")
    return 1 if account.differences else 0


if __name__ == "__main__":
    sys.exit(main())
