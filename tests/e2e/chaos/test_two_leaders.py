"""Of two leaders one is killed, stopped or cut off: the standby takes over, and the old leader is refused."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from galaxy.testing.chaos.failover import VERBS, LeaderPair
from galaxy.testing.chaos.real_cluster import ROLES, RealCluster
from galaxy.testing.chaos.witness_listener import WitnessListener
from galaxy.testing.chaos.workload import WITNESS, Workload

FAILOVER_S = 3.0


class ObservedCluster:
    """A cluster with two leaders of each role, witness programs, and a client that submits jobs."""

    def __init__(self, cluster: RealCluster) -> None:
        self.listener = WitnessListener()
        self.workload = Workload(cluster, self.listener, random.Random(1), print)
        self.workload.submit_witnesses()
        self._cluster = cluster

    def leaders(self, role: str) -> LeaderPair:
        return LeaderPair(self._cluster, role, self.workload, self.listener)

    def violations(self) -> list[str]:
        return self.listener.violations() + self.workload.violations

    def witness_count(self) -> int:
        with self.listener.lock:
            return self.listener.log.counted(WITNESS)


@pytest.fixture(scope="module")
def observed() -> Iterator[ObservedCluster]:
    with RealCluster(leaders=2) as cluster:
        one = ObservedCluster(cluster)
        yield one
        one.workload.close()
        one.listener.close()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("role", ROLES)
def test_failed_leader_is_replaced_in_time_and_refused_when_it_returns(
    role: str, verb: str, observed: ObservedCluster, slower: float
) -> None:
    failover = observed.leaders(role).fail(verb)
    print(failover)
    assert failover.committed_s < FAILOVER_S * slower
    assert verb == "kill" or "was not renewed in time" in failover.refusal or "any more" in failover.refusal
    assert not observed.violations()
    assert observed.witness_count() > 0


@pytest.mark.parametrize("role", ROLES)
def test_commit_that_reaches_redis_after_another_leader_took_over_is_refused(
    role: str, observed: ObservedCluster
) -> None:
    """The leader receives but cannot send: its commit reaches Redis late, and the fence refuses it."""
    failover = observed.leaders(role).fail("cut", direction="out")
    print(failover)
    assert f"does not lead {role} in epoch" in failover.refusal
    assert not observed.violations()
