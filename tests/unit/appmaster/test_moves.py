"""A pod that its host fails moves to another host, each host being tried once, before it fails for good."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from galaxy.model.jobspec.spec import JobSpec, PackageSpec
from tests.unit.appmaster.world import World, batch, service, with_task


@pytest.fixture
def world() -> World:
    return World(hosts=4)


def needing(source: str, spec: JobSpec | None = None, **changes: Any) -> JobSpec:
    package = PackageSpec(source=source, version="1")
    return with_task(spec or service(replica=2), package=package, **changes)


def agents(world: World, job: str) -> set[str]:
    return {pod.agent for pod in world.show(job).pods}


def reasons(world: World, job: str) -> list[str]:
    return [pod.reason.message for pod in world.show(job).pods if pod.reason]


def events(world: World, job: str, kind: str) -> list[str]:
    return [event.text for event in world.show(job).events if event.kind == kind]


@pytest.mark.parametrize("source", ["file:///on/h3/app", "http://for/h3/app"])
def test_pod_whose_package_only_one_host_can_deploy_ends_up_there(world: World, source: str) -> None:
    web = world.submit(needing(source))
    world.settle(web, within_s=120)
    assert agents(world, web) == {"h3"}
    assert reasons(world, web) == []
    world.run(30)
    assert set(world.programs()) == {f"{web}.0", f"{web}.1"}
    assert len(world.slots(web)) == 2  # What was left is destroyed.


def test_move_is_an_event_that_names_the_host_and_the_cause(world: World) -> None:
    web = world.submit(needing("file:///on/h3/app", service(replica=1)))
    world.settle(web)
    assert events(world, web, "pod.leaves")[0] == (
        "leaves h1: on h1: task main: cannot fetch file:///on/h3/app"
    )


def test_batch_pod_moves_and_finishes_once(world: World) -> None:
    job = world.submit(needing("file:///on/h4/app", batch(start="work 2", replica=3)))
    world.settle(job, "finished", within_s=90)
    assert sum(world.starts().values()) == 3


def test_package_that_no_host_can_deploy_fails_for_good_and_names_the_hosts(world: World) -> None:
    web = world.submit(needing("file:///on/h9/app", service(replica=1)))
    world.run_until(lambda: world.state(web) == "degraded", 90)
    (reason,) = reasons(world, web)
    assert reason.count("cannot fetch") == 1
    assert all(host in reason for host in ("h1", "h2", "h3", "h4"))
    before = world.slots(web)[0].incarnation
    world.run(120)
    assert world.slots(web)[0].incarnation == before == 4


def test_temporary_failure_on_all_hosts_is_tried_again_where_it_is(world: World) -> None:
    web = world.submit(needing("http://for/h9/app", service(replica=1)))
    world.run(120)
    incarnation = world.slots(web)[0].incarnation
    world.run(120)
    assert world.slots(web)[0].incarnation == incarnation == 4
    assert "next try in" in reasons(world, web)[0]
    assert world.show(web).pods[0].state != "failed"


def test_pod_stays_where_it_is_when_there_is_no_other_host() -> None:
    world = World(hosts=1)
    web = world.submit(needing("file:///on/h9/app", service(replica=1)))
    world.run_until(lambda: world.state(web) == "degraded", 30)
    world.run(30)
    assert world.slots(web)[0].incarnation == 1


def test_pod_whose_other_hosts_have_no_room_fails_after_one_more_try(world: World) -> None:
    for name in ("h2", "h3", "h4"):
        world.hosts[name].trouble = "cannot create"
    world.run(5)
    web = world.submit(needing("file:///on/h9/app", service(replica=1)))
    world.run_until(lambda: world.state(web) == "degraded", 60)
    world.run(60)
    assert world.slots(web)[0].incarnation == 2
    assert agents(world, web) == {"h1"}


def test_running_program_is_not_given_up_for_an_update_that_cannot_be_fetched_now(world: World) -> None:
    web = world.submit(service(replica=1))
    world.settle(web)
    host = agents(world, web)
    world.update(web, needing("http://for/h9/app", service(replica=1)))
    world.run(90)
    assert agents(world, web) == host
    assert set(world.programs()) == {f"{web}.0"}
    assert world.slots(web)[0].incarnation == 1


@pytest.mark.parametrize("leader", ["appmaster", "resman"])
@pytest.mark.parametrize("at_s", [0.2, 0.5, 1.0, 2.0])
def test_move_survives_the_loss_of_a_leader_at_any_moment(world: World, leader: str, at_s: float) -> None:
    web = world.submit(needing("file:///on/h3/app"))
    world.run(at_s)
    world.scenario.failover(leader)
    world.settle(web, within_s=120)
    assert agents(world, web) == {"h3"}
    world.run(30)
    assert len(world.slots(web)) == 2


def test_owner_who_recovers_a_failed_pod_has_every_host_tried_again(world: World) -> None:
    web = world.submit(needing("file:///on/h9/app", service(replica=1)))
    world.run_until(lambda: world.state(web) == "degraded", 90)
    world.recover(web)
    world.run(10)
    world.run_until(lambda: world.state(web) == "degraded", 90)
    assert world.slots(web)[0].incarnation == 7


def test_removal_during_a_move_leaves_nothing(world: World) -> None:
    web = world.submit(needing("file:///on/h9/app", service(replica=2)))
    world.run(0.6)
    world.do("remove", web)
    world.run(60)
    assert world.slots(web) == []
    assert all(not host.living for host in world.hosts.values())


# ---- hosts that join later


def join(world: World, name: str) -> None:
    info = next(iter(world.hosts.values())).info
    world.scenario.add_host(msgspec.structs.replace(info, agent=name, address="10.0.9.9"))


def wait_until_degraded(world: World, job: str) -> None:
    world.run_until(lambda: world.state(job) == "degraded", 90)


@pytest.mark.parametrize("hosts", [1, 3, 7])
def test_pod_that_failed_on_every_host_is_tried_on_one_that_joins(hosts: int) -> None:
    world = World(hosts=hosts)
    web = world.submit(needing("file:///on/h9/app", service(replica=1)))
    wait_until_degraded(world, web)
    world.run(60)
    before = world.slots(web)[0].incarnation
    join(world, "h9")
    if hosts < 7:  # Of seven hosts it has tried five, and the next is any of the others.
        world.settle(web, within_s=60)
        assert agents(world, web) == {"h9"}
        assert "another host has joined" in events(world, web, "pod.leaves")[-1]
    else:
        world.run_until(lambda: world.slots(web)[0].incarnation > before, 60)


def test_pod_whose_failure_may_pass_moves_to_a_host_that_joins_too(world: World) -> None:
    web = world.submit(needing("http://for/h9/app", service(replica=2)))
    world.run(120)
    join(world, "h9")
    world.settle(web, within_s=120)
    assert agents(world, web) == {"h9"}


def test_host_that_joins_and_fails_too_is_tried_once(world: World) -> None:
    web = world.submit(needing("file:///on/h9/app", service(replica=1)))
    wait_until_degraded(world, web)
    join(world, "h5")
    world.run(120)
    assert world.slots(web)[0].incarnation == 5
    assert world.state(web) == "degraded"
    assert "h5" in reasons(world, web)[0]
    world.run(120)
    assert world.slots(web)[0].incarnation == 5


def test_host_that_returns_from_the_dead_is_tried_like_a_new_one(world: World) -> None:
    world.hosts["h4"].power_off(120)
    world.run(30)
    web = world.submit(needing("file:///on/h4/app", service(replica=1)))
    wait_until_degraded(world, web)
    world.settle(web, within_s=200)
    assert agents(world, web) == {"h4"}


@pytest.mark.parametrize("leader", ["appmaster", "resman"])
@pytest.mark.parametrize("at_s", [0.5, 2.0, 5.5, 6.0])
def test_host_that_joins_is_tried_also_when_a_leader_is_lost_then(leader: str, at_s: float) -> None:
    world = World(hosts=2)
    web = world.submit(needing("file:///on/h9/app", service(replica=1)))
    wait_until_degraded(world, web)
    join(world, "h9")
    world.run(at_s)
    world.scenario.failover(leader)
    world.settle(web, within_s=120)
    assert agents(world, web) == {"h9"}


def test_stopped_or_failed_batch_job_does_not_move_to_a_host_that_joins(world: World) -> None:
    web = world.submit(needing("file:///on/h9/app", service(replica=1)))
    crunch = world.submit(needing("file:///on/h9/app", batch(replica=2)))
    wait_until_degraded(world, web)
    world.run_until(lambda: world.state(crunch) == "failed", 90)
    world.do("stop", web)
    world.run(20)
    join(world, "h9")
    world.run(60)
    assert world.slots(web)[0].incarnation == 4
    assert world.state(crunch) == "failed"


def test_pods_that_run_do_not_move_to_a_host_that_joins(world: World) -> None:
    web = world.submit(needing("file:///on/h3/app"))
    world.settle(web, within_s=120)
    before = [slot.incarnation for slot in world.slots(web)]
    join(world, "h9")
    world.run(60)
    assert [slot.incarnation for slot in world.slots(web)] == before
