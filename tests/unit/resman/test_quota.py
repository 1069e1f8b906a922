"""Quotas as ResMan enforces them: what a user's containers take never grows beyond a ceiling."""

from __future__ import annotations

import pytest

from galaxy.model.messages.container import ContainerState, GroupOrders
from galaxy.model.messages.identity import IdentityAck, IdentityOrder
from galaxy.model.messages.names import GROUP_STATUS, RESMAN
from galaxy.model.resources import Ceiling, Resources
from galaxy.model.stored.quota import Quota
from galaxy.resman.logic.state.state import ResManState
from tests.unit.resman.cluster import GIB, Cluster, demand, info

HALF = demand(cpu=500, memory=GIB // 2, disk=GIB)


def limit(cluster: Cluster, *quotas: Quota, serial: int = 1) -> None:
    order = IdentityOrder(epoch=1, serial=serial, quotas=quotas)
    cluster.receive(GroupOrders(orders=(), identity=order))


def ann(pool: str = "*", **ceiling: int) -> Quota:
    return Quota(user="ann", pool=pool, ceiling=Ceiling(**ceiling))


def check_sums(state: ResManState) -> None:
    """Assert that the sums are those of the rows, however they came about."""
    successor = ResManState(state.config)
    for table, copy in ((state.groups, successor.groups), (state.containers, successor.containers)):
        for key in table:
            copy.put(key, table[key])
    successor.begin(1, 0.0)
    assert successor.quota_usage._used == state.quota_usage._used


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(info("h1"), info("h2"))


def reasons(cluster: Cluster, group: str) -> list[str]:
    return [row.reason.code if row.reason else "" for row in cluster.current(group)]


def test_slots_beyond_the_ceiling_wait_with_the_quota_as_their_reason(cluster: Cluster) -> None:
    limit(cluster, ann(memory_bytes=GIB, containers=5))
    cluster.order("web-1", 4, HALF, user="ann")
    cluster.order("db-1", 2, HALF, user="bob")
    cluster.settle()
    assert sorted(cluster.ready()) == ["db-1.0", "db-1.1", "web-1.0", "web-1.1"]
    assert reasons(cluster, "web-1") == ["", "", "quota", "quota"]
    assert cluster.slots["web-1.2"].reason.message == (
        'memory quota of user "ann" is used up: 512 MiB each, 1 GiB in all'
    )
    check_sums(cluster.resman.state)


def test_higher_ceiling_admits_slots_that_waited(cluster: Cluster) -> None:
    limit(cluster, ann(containers=1))
    cluster.order("web-1", 3, HALF, user="ann")
    cluster.run(1.0)
    assert len(cluster.ready()) == 1
    limit(cluster, ann(containers=2), serial=2)
    cluster.settle()
    assert len(cluster.ready()) == 2
    limit(cluster, serial=3)
    cluster.settle()
    assert len(cluster.ready()) == 3


def test_quota_is_free_again_only_when_the_container_is_gone(cluster: Cluster) -> None:
    limit(cluster, ann(containers=2))
    cluster.order("web-1", 2, HALF, user="ann")
    cluster.settle()
    cluster.cut_off("h1", "h2")
    cluster.order("web-1", 1, HALF, user="ann")
    cluster.order("db-1", 1, HALF, user="ann")
    cluster.settle()
    assert reasons(cluster, "db-1") == ["quota"]
    cluster.reconnect()
    cluster.run(5.0)
    assert sorted(cluster.ready()) == ["db-1.0", "web-1.0"]


def test_lower_ceiling_evicts_nothing_even_when_a_host_dies(cluster: Cluster) -> None:
    cluster.order("web-1", 4, HALF, user="ann")
    cluster.settle()
    limit(cluster, ann(containers=2))
    cluster.order("db-1", 1, HALF, user="ann")
    cluster.run(5.0)
    assert len(cluster.agents_of("web-1")) == 4
    assert reasons(cluster, "db-1") == ["quota"]
    cluster.cut_off("h1")
    cluster.run(60.0)
    assert cluster.agents_of("web-1") == ["h2"] * 4
    assert reasons(cluster, "db-1") == ["quota"]
    check_sums(cluster.resman.state)


def test_container_that_dies_is_created_again_under_its_own_claim(cluster: Cluster) -> None:
    limit(cluster, ann(containers=1))
    cluster.order("web-1", 1, HALF, user="ann")
    cluster.settle()
    cluster.order("db-1", 1, HALF, user="ann", priority=0)
    cluster.worker("web-1.0").die()
    cluster.run(10.0)
    assert cluster.ready() == {"web-1.0": 2}
    assert reasons(cluster, "db-1") == ["quota"]


def test_group_counts_against_each_pool_where_it_is_allowed() -> None:
    cluster = Cluster(info("h1", pool="far"), info("h2", pool="near"))
    limit(cluster, ann("far", containers=2))
    cluster.order("near-1", 2, demand(cpu=100, pools=("near",)), user="ann")
    cluster.order("any-1", 1, demand(cpu=100), user="ann")
    cluster.order("both-1", 2, demand(cpu=100, pools=("near", "far")), user="ann")
    cluster.settle()
    assert reasons(cluster, "near-1") == ["", ""]
    assert sorted(reasons(cluster, "any-1") + reasons(cluster, "both-1")) == ["", "", "quota"]
    assert cluster.resman.state.quota_usage.used("ann", "far").containers == 2
    assert cluster.resman.state.quota_usage.used("ann", "*").containers == 4


def test_old_or_repeated_quotas_change_nothing_and_are_acknowledged(cluster: Cluster) -> None:
    limit(cluster, ann(containers=1), serial=5)
    cluster.settle()
    for serial in (4, 5):
        order = IdentityOrder(epoch=1, serial=serial, quotas=(ann(containers=9),))
        sends = cluster.step(GroupOrders(orders=(), identity=order))
        acks = [send.body.identity for send in sends if send.task == GROUP_STATUS]
        assert acks == [IdentityAck(epoch=1, serial=5)]
    cluster.order("web-1", 3, HALF, user="ann")
    cluster.settle()
    assert len(cluster.ready()) == 1


def test_new_leader_counts_as_the_last_one_did(cluster: Cluster) -> None:
    limit(cluster, ann(cpu_milli=1000))
    cluster.order("web-1", 3, HALF, user="ann")
    cluster.run(1.0)
    cluster.failover(RESMAN)
    cluster.run(15.0)
    assert sorted(cluster.ready()) == ["web-1.0", "web-1.1"]
    used = cluster.resman.state.quota_usage.used("ann", "*")
    assert used == Resources(cpu_milli=1000, memory_bytes=GIB, disk_bytes=2 * GIB, containers=2)


def test_new_demand_of_a_group_without_containers_is_checked_against_the_quota_again(
    cluster: Cluster,
) -> None:
    limit(cluster, ann(memory_bytes=GIB))
    cluster.order("web-1", 1, demand(memory=4 * GIB), user="ann")
    cluster.settle()
    assert reasons(cluster, "web-1") == ["quota"]
    cluster.order("web-1", 1, demand(memory=GIB), user="ann")
    cluster.settle()
    assert [row.state for row in cluster.current("web-1")] == [ContainerState.READY]
    cluster.order("web-1", 0, demand(memory=GIB), user="ann", remove=True)
    cluster.run(1.0)
    assert cluster.resman.state.quota_usage._used == {}


def test_group_without_a_user_is_not_limited(cluster: Cluster) -> None:
    limit(cluster, ann(containers=0))
    cluster.order("web-1", 2, HALF)
    cluster.settle()
    assert len(cluster.ready()) == 2
