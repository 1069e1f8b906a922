"""How long a cluster is without a leader that was killed, stopped, or cut off from Redis.

``python bench/failover.py [--rounds N]``, as root. Two leaders of each kind run on one cluster; each
round injects a fault into the one that leads, and submits a batch job at that moment. Figures, from
the fault on: another process holds the lock; it has committed its first tick; the job's program runs.
The peer, in the same run and on the same Redis: two processes and redis-py's own ``Lock`` (SET NX PX)
with the same 2 s lease, renewed as often, whose holder is killed. It has no state to load, no epoch and
no fence, so it is the lower bound for a lease of 2 s.

``python bench/failover.py --large [--rounds N] [--agents N]`` measures the leaders of a large cluster
instead (``failover_large.py``); it needs no root.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import failover_large
import redis
from load import AGENTS
from redis.exceptions import LockError

from galaxy.testing.chaos.failover import VERBS, Failover, LeaderPair
from galaxy.testing.chaos.real_cluster import ROLES, RealCluster
from galaxy.testing.chaos.witness_listener import WitnessListener
from galaxy.testing.chaos.workload import Workload

ROUNDS = 20
LARGE_ROUNDS = 5
LEASE_S = 2.0
RENEWALS = 4
AIM_S = 3.0
PEER = "bench-failover-peer"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, help=f"{ROUNDS}, or {LARGE_ROUNDS} with --large")
    options.add_argument(
        "--large", action="store_true", help="only leaders, with the state of a large cluster"
    )
    options.add_argument("--agents", type=int, default=AGENTS, help="hosts of the large cluster")
    options.add_argument("--peer-holder", metavar="URL", help=argparse.SUPPRESS)
    given = options.parse_args()
    given.rounds = given.rounds or (LARGE_ROUNDS if given.large else ROUNDS)
    if given.large:
        failover_large.main(given.agents, given.rounds)
        return
    if given.peer_holder:
        hold(given.peer_holder)
        return
    with RealCluster(leaders=2) as cluster:
        rounds = fail_over(cluster, given.rounds)
        peer = [peer_wait(cluster.admin.url) for _ in range(given.rounds)]
    figures = {
        f"{role} {verb}": {
            name: figure([pick(one) for one in rounds if (one.role, one.verb) == (role, verb)])
            for name, pick in PICKS.items()
        }
        for role in ROLES
        for verb in VERBS
    }
    print(f"{'':<18}" + "".join(f"{name:>22}" for name in PICKS) + f"   median / worst of {given.rounds}, s")
    for row, by_name in figures.items():
        cells = (f"{one['median']:.2f} / {one['worst']:.2f}" for one in by_name.values())
        print(f"{row:<18}" + "".join(f"{cell:>22}" for cell in cells))
    lock = figure(peer)
    print(f"{'redis-py Lock':<18}{lock['median']:>15.2f} / {lock['worst']:.2f}")
    worst = max(by_name["committed"]["worst"] for by_name in figures.values())
    found = {"bench": "failover", "unit": "s", "rounds": given.rounds, "aim": AIM_S, "worst": worst}
    print(json.dumps(found | {"ours": figures, "peers": {"redis-py Lock, 2 s, holder killed": lock}}))


PICKS: dict[str, Callable[[Failover], float]] = {
    "lock": lambda one: one.led_s,
    "committed": lambda one: one.committed_s,
    "program runs": lambda one: one.program_s,
}


def figure(times: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(times), 3), "worst": round(max(times), 3)}


def fail_over(cluster: RealCluster, rounds: int) -> list[Failover]:
    listener = WitnessListener()
    workload = Workload(cluster, listener, random.Random(1), lambda _: None)
    done = []
    try:
        workload.submit_witnesses()
        for number in range(rounds):
            for role in ROLES:
                for verb in VERBS:
                    one = LeaderPair(cluster, role, workload, listener).fail(verb)
                    done.append(one)
                    print(
                        f"{number + 1:>3} {verb:<5}{role:<10} lock {one.led_s:5.2f}  committed"
                        f" {one.committed_s:5.2f}  program {one.program_s:5.2f}   {one.refusal}",
                        flush=True,
                    )
        assert not listener.violations(), listener.violations()
    finally:
        workload.close()
        listener.close()
    return done


def peer_wait(url: str) -> float:
    """Return how long the next holder waits after the last one is killed, at a random time."""
    client = redis.Redis.from_url(url)
    with subprocess.Popen([sys.executable, str(Path(__file__)), "--peer-holder", url]) as holder:
        while not client.exists(PEER):
            time.sleep(0.01)
        time.sleep(random.uniform(1.0, 1.0 + LEASE_S / RENEWALS))
        holder.kill()
        began = time.monotonic()
        lock = client.lock(PEER, timeout=LEASE_S)
        assert lock.acquire(blocking_timeout=10 * LEASE_S)
        took = time.monotonic() - began
        lock.release()
    return took


def hold(url: str) -> None:
    lock = redis.Redis.from_url(url).lock(PEER, timeout=LEASE_S)
    assert lock.acquire(blocking_timeout=10)
    while True:
        time.sleep(LEASE_S / RENEWALS)
        try:
            lock.reacquire()
        except LockError:
            return


if __name__ == "__main__":
    main()
