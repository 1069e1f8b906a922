"""ResMan's accounts: exact over failovers and lost hosts, across midnight, owners and pools; bounded."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from galaxy.accounting.integrals import DAY_S, day_of, held_for
from galaxy.model.messages.names import RESMAN
from galaxy.model.resource_seconds import NO_SECONDS, ResourceSeconds
from galaxy.model.resources import Resources
from galaxy.model.stored.account import EARLIER, Account, AgentMeters, DayUsage
from galaxy.resman.logic import ResMan, ResManConfig
from galaxy.resman.logic.state.accounts import Accounts
from galaxy.testing.simulation.checkers.accounting import AccountingChecker
from tests.unit.resman.cluster import GIB, Cluster, info

EACH = Resources(cpu_milli=1000, memory_bytes=GIB, disk_bytes=GIB, containers=1)


def watched(*agents: str) -> tuple[Cluster, AccountingChecker]:
    """Return a cluster of ``agents``, and a checker that knows the truth from its first container on."""
    cluster = Cluster(*(info(agent) for agent in agents))
    checker = AccountingChecker(lambda: cluster.now_s)
    cluster.nexus.on_commit = checker.committed
    for record in cluster.resman.state.agents.values():  # They joined before.
        checker.joined(record)
    return cluster, checker


def assigned(cluster: Cluster, user: str) -> ResourceSeconds:
    """Return what is accounted for a user until now, over all jobs, pools and days."""
    total = NO_SECONDS
    for row in cluster.stored(RESMAN, "usage", DayUsage).values():
        total = total.plus(row.assigned) if row.user == user else total
    for account in cluster.stored(RESMAN, "accounts", Account).values():
        if account.user == user:
            total = total.plus(held_for(account.held, cluster.now_s - account.since_s))
    return total


def test_run_with_three_failovers_and_a_lost_host_is_accounted_as_the_hosts_held_it() -> None:
    cluster, checker = watched("h1", "h2", "h3", "h4")
    on_hosts = 0.0
    cluster.order("web", 8, user="ann")
    cluster.settle()
    began_s = cluster.now_s
    for turn in range(3):
        cluster.run(100.0)
        cluster.failover(RESMAN)
        cluster.run(60.0)
        if turn == 1:
            cluster.hosts["h1"].power_off(400.0)
            cluster.run(60.0)
            cluster.failover(RESMAN)
    checker.check()
    held = assigned(cluster, "ann").containers_s
    on_hosts = 8 * (cluster.now_s - began_s)
    # The slots of the lost host count until it is declared dead, and again from their next placement.
    assert abs(held - on_hosts) < 0.001 * on_hosts + 8 * 2.0
    cluster.order("web", 0, remove=True, user="ann")
    cluster.run(60.0)
    checker.check()
    assert not cluster.stored(RESMAN, "accounts", Account)


def test_leader_that_was_away_loses_nothing() -> None:
    cluster, checker = watched("h1", "h2")
    cluster.order("web", 2, user="ann")
    cluster.settle()
    before = assigned(cluster, "ann").containers_s
    cluster.leaders[RESMAN].pause(300.0)
    cluster.run(310.0)
    cluster.order("web", 0, remove=True, user="ann")
    cluster.run(30.0)
    checker.check()
    gained = assigned(cluster, "ann").containers_s - before
    assert abs(gained - 2 * 310.0) < 2 * 30.0


def test_job_that_runs_over_midnight_is_accounted_on_both_days() -> None:
    cluster, checker = watched("h1")
    cluster.order("web", 1, user="ann")
    cluster.settle()
    started = day_of(cluster.now_s)
    cluster.run_until(lambda: day_of(cluster.now_s) > started, 100.0)
    cluster.run(20.0)
    cluster.order("web", 0, remove=True, user="ann")
    cluster.run(20.0)
    rows = list(cluster.stored(RESMAN, "usage", DayUsage).values())
    assert [row.day for row in rows] == [started, started + 1]
    checker.check()
    midnight_s = (started + 1) * DAY_S
    assert abs(rows[1].assigned.containers_s - (cluster.now_s - 20.0 - midnight_s)) < 1.0


def test_owner_and_pool_that_change_are_accounted_apart_from_then_on() -> None:
    cluster, checker = watched("h1")
    cluster.order("web", 2, user="ann")
    cluster.settle()
    cluster.run(10.0)
    cluster.order("web", 2, user="bob")
    cluster.settle()
    cluster.run(10.0)
    state = cluster.resman.state
    state.agents.put("h1", replace(state.agents["h1"], pool="far"))
    cluster.run(10.0)
    checker.check()
    accounts = cluster.stored(RESMAN, "accounts", Account)
    assert list(accounts) == ["bob/web/far"]
    assert accounts["bob/web/far"].held == EACH * 2
    assert 15.0 < assigned(cluster, "ann").containers_s < 25.0
    assert 35.0 < assigned(cluster, "bob").containers_s < 45.0


def test_container_that_did_not_change_costs_no_write() -> None:
    cluster, _ = watched("h1", "h2")
    cluster.order("web", 4, user="ann")
    cluster.settle()
    before = cluster.stored(RESMAN, "accounts", Account)
    cluster.run(60.0)
    assert cluster.stored(RESMAN, "accounts", Account) == before
    rows = cluster.stored(RESMAN, "usage", DayUsage).values()
    assert {one.assigned for one in rows} == {NO_SECONDS}, "only what was used"


def test_best_effort_job_is_accounted_for_disk_but_not_for_cpu_and_memory() -> None:
    cluster, _ = watched("h1")
    cluster.order("spare", 1, user="ann", priority=300)
    cluster.settle()
    (account,) = cluster.stored(RESMAN, "accounts", Account).values()
    assert account.held == replace(EACH, cpu_milli=0, memory_bytes=0)


# ---- bounds


def accounts_with(rows: Sequence[DayUsage], config: ResManConfig, now_s: float) -> tuple[ResMan, Accounts]:
    resman = ResMan(config)
    resman.lead(int(now_s * 1000), now_s)
    accounts = Accounts(resman.state)
    accounts.begin_step()
    for row in rows:
        accounts.add(row)
    return resman, accounts


def row(day: int, job: str, user: str = "ann") -> DayUsage:
    return DayUsage(day=day, user=user, job=job, pool="main", assigned=held_for(EACH, 60.0), peak_cpu_milli=5)


def merge_all(accounts: Accounts) -> None:
    for _ in range(1000):
        if not accounts.step():
            return
    raise AssertionError("merging does not end")


def total(resman: ResMan) -> float:
    return sum(row.assigned.containers_s for row in resman.state.usage.values())


def test_days_that_are_too_old_are_one_sum_for_each_user_and_pool() -> None:
    rows = [
        row(day, f"job{n}", user) for day in range(100, 160) for n in range(20) for user in ("ann", "bob")
    ]
    resman, accounts = accounts_with(rows, ResManConfig(usage_days_max=10), 159.5 * DAY_S)
    before = total(resman)
    merge_all(accounts)
    usage = resman.state.usage
    assert sorted({one.day for one in usage.values()}) == [EARLIER, *range(149, 160)]
    assert sorted((one.user, one.job) for one in usage.values() if one.day == EARLIER) == [
        ("ann", ""), ("bob", ""),
    ]  # fmt: skip
    assert abs(total(resman) - before) < 1e-3


def test_too_many_rows_lose_the_jobs_of_the_oldest_days_and_then_the_days() -> None:
    rows = [row(day, f"job{n}") for day in range(100, 110) for n in range(200)]
    resman, accounts = accounts_with(rows, ResManConfig(usage_rows_max=500), 109.5 * DAY_S)
    before = total(resman)
    merge_all(accounts)
    usage = resman.state.usage
    assert len(usage) <= 500
    assert len([one for one in usage.values() if one.day == 109]) == 200, "the newest day is complete"
    assert {one.job for one in usage.values() if one.day < 107} == {""}
    assert abs(total(resman) - before) < 1e-3
    resman, accounts = accounts_with(rows, ResManConfig(usage_rows_max=3), 109.5 * DAY_S)
    merge_all(accounts)
    assert len(resman.state.usage) <= 3
    assert abs(total(resman) - before) < 1e-3


# ---- what was used


def used(cluster: Cluster) -> ResourceSeconds:
    """Return what is accounted as used, over all jobs, pools and days."""
    total = NO_SECONDS
    for one in cluster.stored(RESMAN, "usage", DayUsage).values():
        total = total.plus(one.used)
    return total


def test_use_is_measured_over_failovers_restarts_of_agents_and_containers_that_end() -> None:
    cluster, _ = watched("h1", "h2")
    cluster.order("web", 4, user="ann")
    cluster.settle()
    began_s = cluster.now_s
    for _ in range(3):
        cluster.run(70.0)
        cluster.failover(RESMAN)
        cluster.hosts["h1"].restart()
    cluster.order("web", 2, user="ann")  # Two containers end, and their last seconds count as well.
    cluster.run(50.0)
    cluster.order("web", 0, remove=True, user="ann")
    ended_s = cluster.now_s
    cluster.run(90.0)
    truth_s = 4 * (ended_s - began_s) - 2 * 50.0
    measured = used(cluster)
    assert abs(measured.cpu_milli_s - truth_s * 250) < 0.02 * truth_s * 250
    assert abs(measured.memory_bytes_s - truth_s * GIB / 4) < 0.06 * truth_s * GIB / 4
    assert abs(measured.containers_s - truth_s) < 0.06 * truth_s
    assert measured.cpu_milli_s <= 1.005 * truth_s * 250, "nothing is counted twice"


def test_lost_readings_of_a_host_that_was_cut_off_count_when_it_returns() -> None:
    cluster, _ = watched("h1", "h2", "h3")
    cluster.order("web", 3, user="ann")
    cluster.settle()
    cluster.run(60.0)
    cluster.cut_off("h1")
    cluster.run(15.0)
    before = used(cluster).cpu_milli_s
    cluster.reconnect()
    cluster.run(60.0)
    gained = used(cluster).cpu_milli_s - before
    assert 60.0 * 3 * 250 * 0.8 < gained < 95.0 * 3 * 250


def test_job_shows_the_peak_of_one_container() -> None:
    cluster, _ = watched("h1")
    cluster.order("web", 2, user="ann")
    cluster.run(120.0)
    rows = cluster.stored(RESMAN, "usage", DayUsage).values()
    assert {one.peak_memory_bytes for one in rows} == {GIB // 4}
    assert {one.peak_cpu_milli for one in rows} == {250}


def test_meters_of_a_removed_agent_are_dropped_with_it() -> None:
    cluster, _ = watched("h1", "h2")
    cluster.run(60.0)
    assert set(cluster.stored(RESMAN, "meters", AgentMeters)) == {"h1", "h2"}
    cluster.resman.state.agents.drop("h2")
    cluster.run(1.0)
    assert "h2" not in cluster.stored(RESMAN, "meters", AgentMeters)
