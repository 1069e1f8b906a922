"""Two leaders of each kind: one is killed, stopped or cut off; another soon works, and it is refused."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from galaxy.testing.chaos.failover import VERBS, Pair
from galaxy.testing.chaos.real_cluster import ROLES, RealCluster
from galaxy.testing.chaos.witness_listener import WitnessListener
from galaxy.testing.chaos.workload import WITNESS, Workload

FAILOVER_S = 3.0


class Two:
    """A cluster with two leaders of each kind, a witness on it, and somebody who submits."""

    def __init__(self, cluster: RealCluster) -> None:
        self.watch = WitnessListener()
        self.load = Workload(cluster, self.watch, random.Random(1), print)
        self.load.witnesses()
        self._cluster = cluster

    def pair(self, role: str) -> Pair:
        return Pair(self._cluster, role, self.load, self.watch)


@pytest.fixture(scope="module")
def two() -> Iterator[Two]:
    with RealCluster(leaders=2) as cluster:
        one = Two(cluster)
        yield one
        one.load.close()
        one.watch.close()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("role", ROLES)
def test_leader_that_goes_is_replaced_in_time_and_refused_when_it_is_back(
    role: str, verb: str, two: Two, allowance: float
) -> None:
    done = two.pair(role).fail(verb)
    print(done)
    assert done.committed_s < FAILOVER_S * allowance
    assert verb == "kill" or "was not renewed in time" in done.refused or "any more" in done.refused
    assert not two.watch.wrong() + two.load.wrong
    assert two.watch.ledger.counted(WITNESS) > 0


@pytest.mark.parametrize("role", ROLES)
def test_commit_that_arrives_after_another_leads_is_refused_by_redis(role: str, two: Two) -> None:
    """It hears and cannot speak: what it had sent reaches Redis late, and the fence is there."""
    done = two.pair(role).fail("cut", way="out")
    print(done)
    assert f"does not lead {role} in epoch" in done.refused
    assert not two.watch.wrong() + two.load.wrong
