"""Affinity, anti-affinity, marks and spread, through ResMan: what is placed, what waits, and until when."""

from __future__ import annotations

from collections import Counter

from msgspec.structs import replace

from galaxy.model.api.machines import LabelAgents, TagAgents
from galaxy.model.messages.container import Constraints, Demand
from galaxy.model.messages.names import RESMAN
from tests.unit.resman.cluster import Cluster, demand, info
from tests.unit.resman.operators import OPERATOR, as_root, tell_users

WITHIN_S = 10.0


def _demand(**constraints: object) -> Demand:
    return replace(demand(cpu=500), constraints=Constraints(**constraints))


def _cluster(hosts: int) -> Cluster:
    cluster = Cluster(*(info(f"h{n}") for n in range(1, hosts + 1)))
    tell_users(cluster, OPERATOR)
    return cluster


def _until_placed(cluster: Cluster, group: str, count: int = 1) -> None:
    cluster.run_until(lambda: len(cluster.agents_of(group)) == count, WITHIN_S)


def test_job_waits_for_the_job_that_it_wants_to_be_near_and_then_joins_it() -> None:
    cluster = _cluster(3)
    cluster.order("web-1", 2, _demand(affinity=("db",)), user="ann")
    cluster.run(3)
    assert cluster.agents_of("web-1") == []
    assert cluster.slots["web-1.0"].reason is not None
    assert cluster.slots["web-1.0"].reason.code == "affinity"
    cluster.order("db-2", 1, _demand(), user="bob")
    cluster.run(3)
    assert cluster.agents_of("web-1") == []  # Only jobs of the same owner count.
    cluster.order("db-1", 1, _demand(anti_affinity=("x",)), user="ann")
    _until_placed(cluster, "web-1", 2)
    assert set(cluster.agents_of("web-1")) == set(cluster.agents_of("db-1"))


def test_jobs_stay_apart_whichever_of_them_names_the_other() -> None:
    cluster = _cluster(3)
    cluster.order("noisy-1", 1, _demand(), user="ann")
    _until_placed(cluster, "noisy-1")
    cluster.order("db-1", 2, _demand(anti_affinity=("noisy",)), user="ann")
    _until_placed(cluster, "db-1", 2)
    cluster.order("noisy-2", 3, _demand(), user="ann")
    _until_placed(cluster, "noisy-2", 3)
    assert not set(cluster.agents_of("db-1")) & set(
        cluster.agents_of("noisy-1") + cluster.agents_of("noisy-2")
    )


def test_job_that_another_one_keeps_away_is_told_which_entry_has_to_go() -> None:
    cluster = _cluster(1)
    cluster.order("s-1", 1, _demand(anti_affinity=("t",)), user="ann")
    _until_placed(cluster, "s-1")
    cluster.order("t-1", 1, _demand(), user="ann")
    cluster.run(3)
    reason = cluster.slots["t-1.0"].reason
    assert reason is not None
    assert reason.changes == ("no t in anti_affinity of s (h1 has room then)",)


def test_job_that_stays_apart_is_placed_when_the_other_has_gone_also_after_a_failover() -> None:
    cluster = _cluster(1)
    cluster.order("noisy-1", 1, _demand(), user="ann")
    _until_placed(cluster, "noisy-1")
    cluster.order("db-1", 1, _demand(anti_affinity=("noisy",)), user="ann")
    cluster.run(3)
    assert cluster.agents_of("db-1") == []
    cluster.failover(RESMAN)
    cluster.order("noisy-1", 0, _demand(), user="ann", remove=True)
    _until_placed(cluster, "db-1")


def test_waiting_job_is_placed_when_an_operator_gives_a_host_the_required_marks() -> None:
    cluster = _cluster(2)
    cluster.order("web-1", 1, _demand(require=("ssd", "rack=r1|r2")))
    cluster.run(3)
    assert cluster.slots["web-1.0"].reason is not None
    assert cluster.slots["web-1.0"].reason.counts == {"require": 2}
    as_root(cluster, TagAgents(agents=("h2",), tags=("ssd",)))
    as_root(cluster, LabelAgents(agents=("h2",), labels={"rack": "r2"}))
    _until_placed(cluster, "web-1")
    assert cluster.agents_of("web-1") == ["h2"]


def test_pods_are_spread_over_racks_also_when_they_are_placed_one_after_the_other() -> None:
    cluster = _cluster(4)
    as_root(cluster, LabelAgents(agents=("h1", "h2", "h3"), labels={"rack": "a"}))
    as_root(cluster, LabelAgents(agents=("h4",), labels={"rack": "b"}))
    for replicas in range(1, 7):
        cluster.order("web-1", replicas, _demand(spread="rack"))
        _until_placed(cluster, "web-1", replicas)
    assert Counter(cluster.agents_of("web-1"))["h4"] == 3
