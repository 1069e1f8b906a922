"""Simulations: under every mix of faults no checker fails, and the cluster converges afterwards."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from galaxy.testing.simulation.broken import BROKEN
from galaxy.testing.simulation.faults import FREQUENT_CRASHES, NO_FAULTS, STEP_FAULTS, Faults, faults_of
from galaxy.testing.simulation.scale import EventRates, LargeCluster
from galaxy.testing.simulation.simulated_cluster import QUOTA_SEED_REST, RESIZE_SEED_REST, SimulatedCluster

REGRESSIONS = Path(__file__).with_name("regressions.txt")
FAULTS = [name for name in Faults.__struct_fields__ if not name.endswith("_s")]
PROVOKED_BY = {
    "removed groups not stored": Faults(double=0.6, late=0.5, late_s=40, leader_crash=0.05),
    "no recovery from a step that raised": STEP_FAULTS,
    "no quota": FREQUENT_CRASHES,
    "drain without regard for the jobs' pace": Faults(launch_fails=0.6, worker_dies=0.02),
}
"""Faults that show what a variant does wrong, where those of most seeds do so rarely."""
SEEDS_OF = {
    "limits reported but not set": range(RESIZE_SEED_REST, 300, 4),
    "smaller sizes count at once": range(RESIZE_SEED_REST, 300, 4),
}
"""Seeds in which users do what shows a variant, where few seeds with a quota have such users."""
SEEDS = int(os.environ.get("GALAXY_SEEDS", "100"))


@pytest.mark.timeout(600)  # Seconds at rest; runs at a low priority beside tests with time limits.
@pytest.mark.parametrize("first", range(0, SEEDS, 25))
def test_every_seed_passes_every_check(first: int) -> None:
    outcomes = [
        SimulatedCluster(seed, faults_of(seed)).run() for seed in range(first, min(first + 25, SEEDS))
    ]
    assert [(outcome.seed, outcome.failure) for outcome in outcomes if outcome.failure] == []
    struck = sum((Counter(outcome.faults) for outcome in outcomes), Counter())
    assert [fault for fault in FAULTS if not struck[fault]] == [], "a fault that never occurs"
    assert sum(outcome.starts for outcome in outcomes) > 100, "nothing ran"


@pytest.mark.parametrize("seed", [line.split()[0] for line in REGRESSIONS.read_text().splitlines() if line])
def test_seed_that_once_failed_passes_every_check(seed: str) -> None:
    assert SimulatedCluster(int(seed), faults_of(int(seed))).run().failure == ""


def test_cluster_without_faults_converges_at_once() -> None:
    outcome = SimulatedCluster(1, NO_FAULTS).run()
    assert outcome.failure == ""
    assert outcome.faults == {}
    assert outcome.settled_s <= 30


@pytest.mark.timeout(400)  # Up to a hundred seeds.
@pytest.mark.parametrize("rule", BROKEN)
def test_cluster_that_breaks_a_rule_is_caught(rule: str) -> None:
    outcomes = (
        SimulatedCluster(seed, PROVOKED_BY.get(rule, faults_of(seed)), variant=BROKEN[rule]).run()
        for seed in SEEDS_OF.get(rule, range(QUOTA_SEED_REST, 300, 3))  # All of these have a quota.
    )
    assert any(outcome.failure for outcome in outcomes)


def test_large_cluster_under_ordinary_load_passes_every_check() -> None:
    large = LargeCluster(1, hosts=100, containers=600, jobs=3)
    large.start_jobs()
    account = large.run_for(300.0, EventRates(host_lost=0.2, agent_restarts=0.1, leader_lost=40.0))
    assert account.differences == ()
    assert account.events["hosts lost"] > 0
    assert all(cost.share < 1 for cost in account.costs), account.costs


def test_same_seed_gives_the_same_log_under_every_hash_seed() -> None:
    logs = {
        subprocess.run(
            [sys.executable, "-m", "galaxy.testing.simulation", "--seed", "11", "--tail", "1"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(logs) == 1
    assert "fingerprint" in logs.pop()
