"""A host is drained: each job's pods leave at the job's own pace, and nothing is lost, whatever dies."""

from __future__ import annotations

import itertools
from typing import Any, TypeVar

import pytest

from galaxy.model.api.body import Body
from galaxy.model.api.drains import (
    DrainAgents,
    DrainPlan,
    DrainView,
    OnlineAgents,
    PlanDrain,
    ShowDrains,
)
from galaxy.model.api.machines import (
    CordonAgents,
    CreatePool,
    ListMachines,
    MovePool,
    TagAgents,
    UncordonAgents,
    UntagAgents,
)
from galaxy.model.api.request import Request
from galaxy.model.api.safemode import EnterSafeMode, LeaveSafeMode
from galaxy.model.base import Struct, from_plain
from galaxy.model.jobspec.spec import DeploySpec
from galaxy.model.messages.container import ContainerState
from galaxy.model.messages.names import APPMASTER, RESMAN
from galaxy.model.stored.job import PodPhase
from tests.unit.appmaster.world import World, batch, lose_for_good, service, with_deploy

R = TypeVar("R", bound=Struct)
numbers = itertools.count(1)


class Machines(World):
    """A world with an operator, who asks ResMan."""

    def operator(self, body: Body[R]) -> R:
        """Return the result of ``body``; an error fails the test."""
        answer = self.answer_of(body)
        assert answer.problem is None, answer.problem
        return from_plain(answer.result, body.result)

    def answer_of(self, body: Body[Any]) -> Any:
        number = next(numbers)
        asked = Request(
            op=body.op, key=f"op{number}", reply=f"op-reply{number}", deadline_s=self.now + 60, user="root",
            body=body,
        )  # fmt: skip
        return self.scenario.request(asked, RESMAN)

    def drain(self, *hosts: str, **how: Any) -> None:
        self.operator(DrainAgents(agents=hosts, **how))

    def drained(self, host: str) -> DrainView:
        return self.operator(ShowDrains(agents=(host,))).drains[0]

    def is_empty(self, host: str) -> bool:
        view = self.drained(host)
        return bool(view.drain and view.drain.done_s) and not self.hosts[host].living

    def agents(self, job: str) -> list[str]:
        return [pod.agent for pod in self.show(job).pods if pod.state == "running"]

    def leaving(self, job: str) -> list[str]:
        """Return why pods of ``job`` that are to leave their hosts are still there."""
        return [pod.leaving.message for pod in self.show(job).pods if pod.leaving]

    def watch_clients(self, name: str, least: int = 1) -> list[str]:
        """Have clients of a service connect all the time; return what failed, which grows as time passes."""
        failures: list[str] = []

        def check() -> None:
            if self.leader.logic is None:
                return
            rows = [row for row in self.leader.table("endpoints").values() if row.service == name]
            healthy = [row for row in rows if row.state == "healthy"]
            failures.extend(
                f"{row.pod} at {row.address}" for row in healthy if not self.serves(row.address, row.port)
            )
            if len(healthy) < least:
                failures.append(f"{len(healthy)} of at least {least} endpoints")

        self.watchers.append(check)
        return failures


@pytest.fixture
def world() -> Machines:
    return Machines(hosts=4)


def test_drained_host_ends_empty_and_clients_notice_nothing(world: Machines) -> None:
    web = world.submit(service(replica=4))
    world.settle(web)
    assert sorted(world.agents(web)) == ["h1", "h2", "h3", "h4"]
    failures = world.watch_clients("web", least=3)
    world.drain("h1", reason="new disk")
    world.run_until(lambda: world.is_empty("h1"), 60)
    world.settle(web)
    assert "h1" not in world.agents(web) and len(world.agents(web)) == 4
    assert failures == []
    assert world.starts()[f"{web}.1"] == 1  # Pods elsewhere are left alone.
    world.run(30)
    assert world.is_empty("h1")


def test_pods_leave_one_after_the_other_with_the_jobs_interval(world: Machines) -> None:
    web = world.submit(with_deploy(service(replica=4), interval=8.0))
    world.settle(web)
    world.run(20)
    failures = world.watch_clients("web", least=3)
    began = world.now
    world.drain("h1", "h2")
    world.run_until(lambda: world.is_empty("h1") and world.is_empty("h2"), 60)
    assert world.now - began >= 8.0
    assert failures == []


def test_step_of_two_moves_two_at_once(world: Machines) -> None:
    web = world.submit(with_deploy(service(replica=4), step=2, interval=20.0))
    world.settle(web)
    world.run(25)
    world.drain("h1", "h2")
    world.run_until(lambda: world.is_empty("h1") and world.is_empty("h2"), 18)


def test_pods_of_several_jobs_do_not_wait_for_each_other(world: Machines) -> None:
    jobs = [world.submit(with_deploy(service(f"web{n}", replica=4), interval=30.0)) for n in range(3)]
    for job in jobs:
        world.settle(job)
    world.run(40)
    world.drain("h1")
    world.run_until(lambda: world.is_empty("h1"), 25)


def test_pod_without_room_elsewhere_keeps_running_and_says_why() -> None:
    world = Machines(hosts=2)
    web = world.submit(with_deploy(service(replica=2), max_per_host=1))
    world.settle(web)
    failures = world.watch_clients("web", least=2)
    world.drain("h1")
    world.run(60)
    assert failures == []
    view = world.drained("h1")
    assert view.containers == 1 and view.left[0].to == ""
    assert view.left[0].reason is not None and view.left[0].reason.counts["max-per-host"] == 1
    assert "1 of 2 holds as many of this group as one host may" in world.leaving(web)[0]


def test_pod_moves_as_soon_as_there_is_room() -> None:
    world = Machines(hosts=3)
    world.operator(CordonAgents(agents=("h3",)))
    web = world.submit(with_deploy(service(replica=2), max_per_host=1))
    world.settle(web)
    world.drain("h1")
    world.run(10)
    assert world.drained("h1").containers == 1
    world.operator(UncordonAgents(agents=("h3",)))
    world.run_until(lambda: world.is_empty("h1"), 20)
    world.settle(web)
    assert sorted(world.agents(web)) == ["h2", "h3"]


def test_deadline_evicts_what_cannot_move_with_the_reason() -> None:
    world = Machines(hosts=2)
    web = world.submit(with_deploy(service(replica=2), max_per_host=1))
    world.settle(web)
    world.drain("h1", deadline_s=30.0, reason="power")
    world.run(25)
    assert world.drained("h1").containers == 1
    world.run_until(lambda: world.is_empty("h1"), 20)
    pod = next(pod for pod in world.show(web).pods if pod.state == "pending")
    assert pod.reason is not None and pod.reason.counts["max-per-host"] == 1
    texts = [event.text for event in world.show(web).events if event.kind == "pod.evacuates"]
    assert texts == [
        "is evicted from h1, although no other has room: h1 is drained by root: power; the deadline is over"
    ]
    world.operator(OnlineAgents(agents=("h1",)))
    world.settle(web)
    assert sorted(world.agents(web)) == ["h1", "h2"]


def test_force_evicts_all_pods_at_once() -> None:
    world = Machines(hosts=2)
    web = world.submit(with_deploy(service(replica=4), interval=300.0))
    world.settle(web)
    world.drain("h1", force=True)
    world.run_until(lambda: world.is_empty("h1"), 10)
    world.settle(web)
    assert world.agents(web) == 4 * ["h2"]


def test_batch_pod_stays_until_it_has_ended_and_runs_once(world: Machines) -> None:
    job = world.submit(batch(start="work 40", replica=4))
    world.run(5)
    world.drain("h1")
    world.run(20)
    assert world.drained("h1").containers == 1
    assert "leaves when it has ended" in world.leaving(job)[0]
    world.run_until(lambda: world.is_empty("h1"), 60)
    world.settle(job, "finished")
    assert set(world.starts().values()) == {1}


def test_batch_pod_is_evicted_at_the_deadline_and_runs_elsewhere(world: Machines) -> None:
    job = world.submit(batch(start="work 60", replica=4))
    world.run(5)
    world.drain("h1", deadline_s=10.0)
    world.run_until(lambda: world.is_empty("h1"), 30)
    world.settle(job, "finished", within_s=120)
    assert sorted(world.starts().values()) == [1, 1, 1, 2]


def test_pods_of_a_stopped_job_and_failed_pods_leave_at_once(world: Machines) -> None:
    web = world.submit(with_deploy(service("web", replica=4), interval=300.0))
    down = world.submit(service("down", start="broken", replica=4))
    world.settle(web)
    world.do("stop", web)
    world.settle(web, "stopped")
    world.run_until(lambda: world.state(down) == "degraded", 120)
    world.drain("h1")
    world.run_until(lambda: world.is_empty("h1"), 10)
    world.do("start", web)
    world.settle(web)
    assert "h1" not in world.agents(web)
    assert all(pod.agent != "h1" for pod in world.show(down).pods)


def test_pod_that_is_only_being_restarted_waits_while_its_job_lacks_healthy_pods() -> None:
    world = Machines(hosts=2)
    web = world.submit(service(replica=2))
    world.settle(web)
    for pod in (f"{web}.0", f"{web}.1"):
        world.worker(pod).program_dies()
    world.drain("h1", "h2", reason="both")
    world.operator(OnlineAgents(agents=("h2",)))
    world.run(0.5)
    assert world.drained("h1").containers == 1
    assert not [event for event in world.show(web).events if event.kind == "pod.evacuates"]
    world.run_until(lambda: world.is_empty("h1"), 30)


def test_online_stops_a_drain_and_what_is_left_stays(world: Machines) -> None:
    web = world.submit(with_deploy(service(replica=8), interval=10.0))
    world.settle(web)
    world.run(15)
    world.drain("h1")
    world.run_until(lambda: world.drained("h1").containers == 1, 30)
    world.operator(OnlineAgents(agents=("h1",)))
    world.run(40)
    assert world.agents(web).count("h1") == 1
    assert world.leaving(web) == []
    assert world.drained("h1").drain is None
    again = world.submit(service("again", replica=4))
    world.settle(again)
    assert "h1" in world.agents(again)


@pytest.mark.parametrize("after_s", [0.1, 0.5, 1.2, 2.0, 3.0])
def test_online_at_any_moment_leaves_every_pod_running_once(world: Machines, after_s: float) -> None:
    web = world.submit(service(replica=4, drain=1.0))
    world.settle(web)
    world.drain("h1")
    world.run(after_s)
    world.operator(OnlineAgents(agents=("h1",)))
    world.settle(web)
    assert len(world.programs()) == 4
    assert world.drained("h1").drain is None
    slots = [row for row in world.slots(web) if row.state is ContainerState.READY]
    assert len(slots) == 4 and all(row.leave is None for row in slots)


def test_drained_host_gets_nothing_and_its_cordon_is_apart(world: Machines) -> None:
    world.operator(CordonAgents(agents=("h1",), reason="noise"))
    world.drain("h1")
    world.run(5)
    assert world.answer_of(UncordonAgents(agents=("h1",))).problem.kind == "conflict"
    world.operator(OnlineAgents(agents=("h1",)))
    view = world.operator(ListMachines(agent="h1")).agents[0]
    assert view.drain is None and view.cordon is not None
    assert world.answer_of(OnlineAgents(agents=("h1",))).problem.kind == "conflict"


def test_offline_hosts_may_be_switched_off_without_safe_mode(world: Machines) -> None:
    web = world.submit(service(replica=4))
    world.settle(web)
    world.drain("h1", "h2", "h3", offline=True)
    world.run_until(lambda: all(world.is_empty(host) for host in ("h1", "h2", "h3")), 120)
    for host in ("h1", "h2", "h3"):
        lose_for_good(world.hosts[host])
    world.run(60)
    assert world.scenario.logic(RESMAN).safe_mode is None
    assert {view.agent: view.state for view in world.operator(ListMachines()).agents} == {
        "h1": "dead", "h2": "dead", "h3": "dead", "h4": "alive",
    }  # fmt: skip
    assert world.agents(web) == 4 * ["h4"]


def test_host_that_dies_while_it_is_drained_ends_empty(world: Machines) -> None:
    web = world.submit(with_deploy(service(replica=8), interval=10.0))
    world.settle(web)
    world.drain("h1")
    world.run(1.0)
    lose_for_good(world.hosts["h1"])
    world.run_until(lambda: bool((view := world.drained("h1")).drain and view.drain.done_s), 60)
    world.settle(web)
    assert "h1" not in world.agents(web)


def test_host_for_which_room_was_kept_and_that_dies_is_replaced_by_another(world: Machines) -> None:
    web = world.submit(with_deploy(service(replica=2), max_per_host=1, interval=300.0))
    world.settle(web)
    first, _ = sorted(world.agents(web))
    world.drain(first)
    world.run(0.5)
    kept = world.drained(first).left[0].to
    assert kept
    lose_for_good(world.hosts[kept])
    world.run_until(lambda: world.drained(first).left[0].to not in ("", kept), 60)


@pytest.mark.parametrize("leader", [APPMASTER, RESMAN])
@pytest.mark.parametrize("at_s", [0.05, 0.5, 1.1, 1.6, 2.5, 4.0])
def test_drain_survives_the_loss_of_a_leader_at_any_moment(world: Machines, leader: str, at_s: float) -> None:
    web = world.submit(service(replica=8))
    world.settle(web)
    failures = world.watch_clients("web", least=7)
    world.drain("h1")
    on_host = len(world.hosts["h1"].living)
    world.run(at_s)
    world.scenario.failover(leader)
    world.run_until(lambda: world.is_empty("h1"), 90)
    world.settle(web)
    assert len(world.programs()) == 8
    assert sum(world.starts().values()) == 8 + on_host  # No pod was started again where it was.
    assert failures == []


def test_new_resman_does_not_cancel_the_moves_that_have_begun(world: Machines) -> None:
    web = world.submit(service(replica=4, drain=6.0))
    world.settle(web)
    world.run(3.0)
    world.drain("h1")
    world.run(0.5)
    (pod,) = [pod for pod in world.show(web).pods if pod.state == "draining"]
    states: set[str] = set()

    def watch() -> None:
        record = world.master.state.pods[pod.pod]
        if record.incarnation == pod.incarnation and record.placed:
            states.add(record.phase)

    world.watchers.append(watch)
    world.scenario.failover(RESMAN)
    world.run_until(lambda: world.is_empty("h1"), 30)
    assert states == {"draining", "stopping", "stopped"}


def test_drain_survives_the_loss_of_both_leaders_again_and_again(world: Machines) -> None:
    web = world.submit(service(replica=8))
    world.settle(web)
    failures = world.watch_clients("web", least=7)
    world.drain("h1", "h2")
    for _ in range(6):
        world.run(1.3)
        world.scenario.failover(RESMAN)
        world.scenario.failover(APPMASTER)
    world.run_until(lambda: world.is_empty("h1") and world.is_empty("h2"), 120)
    assert failures == []
    assert set(world.agents(web)) == {"h3", "h4"}


def test_crash_of_appmaster_between_any_commit_and_its_messages_loses_no_pod(world: Machines) -> None:
    web = world.submit(service(replica=4))
    world.settle(web)
    world.crash_in_ticks((2, 6, 12, 25, 40))
    world.drain("h1")
    world.run_until(lambda: world.is_empty("h1"), 120)
    world.settle(web)
    assert len(world.programs()) == 4


def test_update_and_drain_together_keep_the_jobs_minimum(world: Machines) -> None:
    web = world.submit(service(replica=8))
    world.settle(web)
    failures = world.watch_clients("web", least=7)
    world.drain("h1", "h2")
    world.run(0.5)
    world.update(web, service(replica=8, start="serve 2"))
    world.run_until(lambda: world.is_empty("h1") and world.is_empty("h2"), 180)
    world.settle(web, within_s=180)
    assert failures == []
    assert set(world.programs().values()) == {"serve 2"}


def test_job_that_is_removed_while_its_pods_leave_leaves_nothing(world: Machines) -> None:
    web = world.submit(service(replica=4))
    world.settle(web)
    world.drain("h1")
    world.run(1.2)
    world.do("remove", web)
    world.run_until(lambda: world.slots(web) == [], 60)
    world.run_until(lambda: world.is_empty("h1"), 10)


def test_nothing_leaves_in_safe_mode(world: Machines) -> None:
    web = world.submit(service(replica=4))
    world.settle(web)
    world.operator(EnterSafeMode(reason="hold"))
    world.drain("h1", deadline_s=5.0)
    world.run(30)
    assert "h1" in world.agents(web) and world.drained("h1").containers == 1
    assert "hold" in world.leaving(web)[0]
    world.operator(LeaveSafeMode())
    world.run_until(lambda: world.is_empty("h1"), 30)


def test_move_to_another_pool_drains_what_no_longer_matches_at_the_jobs_pace(world: Machines) -> None:
    web = world.submit(with_deploy(service("web", replica=4), pools=("main",)))
    free = world.submit(service("free", replica=4))
    world.settle(web)
    world.settle(free)
    failures = world.watch_clients("web", least=3)
    world.operator(CreatePool(pool="far"))
    world.operator(MovePool(agents=("h1",), pool="far"))
    world.run_until(lambda: "h1" not in world.agents(web) and len(world.agents(web)) == 4, 60)
    assert failures == []
    assert "h1" in world.agents(free)


def test_taken_tag_drains_what_no_longer_matches_and_a_given_one_stops_it(world: Machines) -> None:
    world.operator(TagAgents(tags=("ssd",), agents=("h1", "h2")))
    web = world.submit(with_deploy(service("web", replica=2), tag="ssd", max_per_host=1))
    world.settle(web)
    world.operator(UntagAgents(tags=("ssd",), agents=("h1",)))
    world.run(10)
    assert "h1 lacks tag ssd" in world.leaving(web)[0]
    assert sorted(world.agents(web)) == ["h1", "h2"]
    world.operator(TagAgents(tags=("ssd",), agents=("h3",)))
    world.run_until(lambda: sorted(world.agents(web)) == ["h2", "h3"], 30)
    world.operator(TagAgents(tags=("ssd",), agents=("h1",)))
    world.run(5)
    assert world.leaving(web) == []


def test_plan_says_where_each_container_would_go_and_which_job_is_short() -> None:
    world = Machines(hosts=3)
    web = world.submit(service("web", replica=3))
    pinned = world.submit(with_deploy(service("pinned", replica=3), max_per_host=1))
    crunch = world.submit(batch("crunch", start="work 500", replica=3))
    for job in (web, pinned):
        world.settle(job)
    world.run(5)
    before = world.drained("h1").containers
    plan: DrainPlan = world.operator(PlanDrain(agents=("h1",)))
    by_job = {move.job: move for move in plan.moves}
    assert by_job[web].to in ("h2", "h3")
    assert by_job[pinned].to == "" and by_job[crunch].to == ""
    assert by_job[crunch].reason is not None and by_job[crunch].reason.code == "batch"
    (short,) = plan.short
    assert (short.job, short.count, short.replica) == (pinned, 1, 3)
    assert any("would be drained as well" in text for text in short.reason.nearest), short.reason
    assert not any("h1" in text for text in short.reason.changes), short.reason
    evicted: DrainPlan = world.operator(PlanDrain(agents=("h1",), evict=True))
    assert {move.job: move for move in evicted.moves}[crunch].to in ("h2", "h3")
    world.run(10)
    assert world.drained("h1").containers == before == 3
    assert len(world.programs()) == 9
    assert evicted.safe_mode is None
    world.operator(EnterSafeMode(reason="hold"))
    held: DrainPlan = world.operator(PlanDrain(agents=("h1",)))
    assert held.safe_mode is not None and "hold" in held.safe_mode.message


def test_pod_that_is_placed_again_forgets_that_it_was_evacuated(world: Machines) -> None:
    web = world.submit(service(replica=4))
    world.settle(web)
    world.drain("h1")
    world.run_until(lambda: world.is_empty("h1"), 60)
    world.settle(web)
    world.operator(OnlineAgents(agents=("h1",)))
    world.drain("h2")
    world.run_until(lambda: world.is_empty("h2"), 60)
    world.settle(web)
    pods = world.master.state.job_pods(web)
    assert [(pod.leave, pod.is_evacuating, pod.phase) for pod in pods] == 4 * [
        (None, False, PodPhase.RUNNING)
    ]


def test_single_pod_is_stopped_only_when_its_new_place_is_kept(world: Machines) -> None:
    db = world.submit(service("db", replica=1))
    world.settle(db)
    (host,) = world.agents(db)
    world.drain(host)
    world.run_until(lambda: world.is_empty(host), 30)
    world.settle(db)
    assert world.agents(db) != [host]
    assert DeploySpec().step == 1
