"""Batch jobs: each pod ends once and for good, whatever is lost meanwhile."""

import pytest
from msgspec.structs import replace

from galaxy.appmaster.logic import AppMasterConfig
from galaxy.model.api.jobs import ListJobs, StartJob, StopJob
from galaxy.model.api.sessions import ReadLogs
from galaxy.model.api.views import TaskView
from galaxy.model.jobspec.spec import JobSpec, RestartSpec
from galaxy.model.messages.container import GroupStatus, GroupStatuses
from galaxy.model.messages.names import POD_DEPLOY
from galaxy.model.messages.pod import PodOrders, PodState
from galaxy.model.stored.job import PodPhase
from galaxy.testing.simulation.faults import message_faults
from tests.unit.appmaster.world import NEVER, World, batch, lose_for_good, service, with_task


def test_batch_job_finishes_and_gives_its_containers_back() -> None:
    world = World()
    job = world.submit(batch())
    world.settle(job, "finished")
    world.run(1)
    view = world.show(job)
    assert view.exit_code == 0
    assert view.summary.finished == 3
    assert world.scenario.workers() == {}
    assert set(world.starts().values()) == {1}


def test_finished_pod_gives_its_container_back_while_others_run() -> None:
    world = World()
    job = world.submit(batch(start="exit 0 after 50", replica=2))
    world.settle(job)
    world.worker(f"{job}.0").end(0)
    world.run(10)
    assert [pod.phase for pod in world.master.state.job_pods(job)] == [PodPhase.FINISHED, PodPhase.RUNNING]
    assert world.order(job).release == (0,)
    assert list(world.scenario.workers()) == [f"{job}.1"]


@pytest.mark.parametrize("code", [1, 3])
def test_failed_batch_job_has_the_exit_code_of_its_program(code: int) -> None:
    world = World()
    job = world.submit(batch(start=f"exit {code} after 1", replica=1))
    world.settle(job, "failed")
    view = world.show(job)
    assert view.exit_code == code
    assert view.summary.reason.code == "pod-failed"
    world.run(100)
    assert world.starts() == {f"{job}.0": 1}


def test_job_with_a_failed_pod_fails_only_when_the_others_have_ended_too() -> None:
    world = World()
    job = world.submit(batch(start="exit 0 after 5", replica=2))
    world.settle(job)
    world.worker(f"{job}.0").end(4)
    world.run(2)
    assert world.state(job) == "running"
    assert world.show(job).summary.reason.message.startswith("1 of 2 pods failed")
    world.settle(job, "failed")
    assert world.show(job).exit_code == 4


def test_lost_host_has_its_running_pods_run_again_but_not_its_finished_ones() -> None:
    world = World()
    job = world.submit(batch(start="exit 0 after 30", replica=6))
    world.settle(job)
    lost = world.host(f"{job}.0")
    moved = {pod for pod in world.programs() if world.host(pod) is lost} - {f"{job}.0"}
    assert moved
    world.worker(f"{job}.0").end(0)
    world.run(5)
    lose_for_good(lost)
    world.settle(job, "finished", within_s=90)
    assert world.starts() == {pod: 2 if pod in moved else 1 for pod in world.starts()}


def test_finished_job_whose_hosts_are_lost_stays_finished() -> None:
    world = World(hosts=6)
    job = world.submit(batch())
    world.settle(job, "finished")
    for index in range(2):
        lose_for_good(world.hosts[world.show(job).pods[index].agent])
    world.failover()
    world.run(100)
    assert world.state(job) == "finished"
    assert set(world.starts().values()) == {1}


def test_finished_pod_whose_container_reappears_gets_no_order() -> None:
    world = World()
    job = world.submit(batch(start="exit 0 after 500", replica=2))
    world.settle(job)
    slot = world.last_slot(f"{job}.0")
    world.worker(f"{job}.0").end(0)
    world.run_until(lambda: world.show(job).pods[0].state == "finished", 5)
    world.run(5)
    done = world.master.state.pods[f"{job}.0"]
    world.sends.clear()
    elsewhere = replace(slot, incarnation=slot.incarnation + 1, agent="h3", address="10.0.0.3")
    world.feed(GroupStatuses(statuses=(GroupStatus(group=job, epoch=1, serial=1, slots=(elsewhere,)),)))
    world.run(60)
    assert [send for send in world.sends if send.task == POD_DEPLOY and send.body.orders] == []
    assert world.starts()[f"{job}.0"] == 1
    now = world.master.state.pods[f"{job}.0"]
    assert (now.agent, now.incarnation) == (done.agent, done.incarnation), "its logs are not found any more"


def test_late_report_of_a_finished_pod_changes_nothing() -> None:
    world = World()
    job = world.submit(with_task(service(replica=2), restart=NEVER))
    world.settle(job)
    pod = world.master.state.pods[f"{job}.0"]
    world.worker(pod.pod).end(0)
    world.run(1)
    done = world.master.state.pods[pod.pod]
    assert (done.phase, done.placed) == (PodPhase.FINISHED, True)
    assert done.observed is not None
    late = replace(done.observed, state=PodState.RUNNING, tasks=())
    world.feed(replace(world.last_report(pod.agent), pods=(late,)))
    assert world.master.state.pods[pod.pod] == done


def test_late_report_of_an_earlier_incarnation_does_not_finish_the_present_one() -> None:
    world = World(hosts=1)
    job = world.submit(batch(start="exit 0 after 50", replica=1))
    world.settle(job)
    before = world.master.state.pods[f"{job}.0"]
    world.scenario.launches_take(5.0)  # So that the new incarnation has not reported yet.
    world.worker(f"{job}.0").die()
    world.run_until(lambda: world.show(job).pods[0].incarnation == 2, 10)
    world.run(1)
    assert before.observed is not None
    late = replace(before.observed, state=PodState.FINISHED)
    report = world.last_report("h1")
    world.feed(replace(report, serial=report.serial + 9, pods=(late,)))
    now = world.master.state.pods[f"{job}.0"]
    assert (now.agent, now.incarnation, now.phase) == ("h1", 2, PodPhase.DEPLOYING)


def test_job_submitted_under_the_name_of_a_finished_one_replaces_it_and_keeps_its_logs() -> None:
    world = World()
    first = world.submit(batch())
    world.settle(first, "finished")
    second = world.submit(batch())
    world.settle(second, "finished")
    world.run(5)
    past = world.show(first)
    assert (past.summary.state, past.exit_code) == ("finished", 0)
    opened = world.ask(ReadLogs(target=first))
    assert opened.pods == tuple(f"{first}.{index}" for index in range(3))
    assert world.show("crunch").summary.job == second


def test_finished_job_cannot_be_started_or_updated() -> None:
    world = World()
    job = world.submit(batch())
    world.settle(job, "finished")
    for change in (StartJob, StopJob):
        problem = world.request(change(job=job)).problem
        assert problem is not None and problem.kind == "conflict"
    assert set(world.starts().values()) == {1}


def test_started_batch_job_runs_its_stopped_pods_again_but_not_its_finished_ones() -> None:
    world = World()
    job = world.submit(batch(start="exit 0 after 5", replica=2))
    world.settle(job)
    world.worker(f"{job}.0").end(0)
    world.run(1)
    world.do("stop", job)
    world.settle(job, "stopped")
    world.do("start", job)
    world.settle(job, "finished")
    assert world.starts() == {f"{job}.0": 1, f"{job}.1": 2}


def test_recovered_batch_job_gets_containers_again_and_has_no_exit_code() -> None:
    world = World()
    job = world.submit(batch(start="exit 2 after 1", replica=1))
    world.settle(job, "failed")
    world.run(5)
    world.recover(job)
    assert world.state(job) == "pending"
    assert world.show(job).exit_code is None
    world.settle(job, "failed")
    assert world.starts() == {f"{job}.0": 2}


def test_list_leaves_out_finished_jobs_unless_all_are_asked_for() -> None:
    world = World()
    job = world.submit(batch())
    world.settle(job, "finished")
    assert world.ask(ListJobs()).jobs == ()
    assert [line.job for line in world.ask(ListJobs(all=True)).jobs] == [job]


def test_jobs_that_are_over_move_to_the_history_by_age_and_by_number() -> None:
    world = World(config=AppMasterConfig(ended_s=100.0, ended_max=2))
    ids = []
    for name in ("one", "two", "three"):
        ids.append(world.submit(batch(name)))
        world.settle(ids[-1], "finished")
    world.run(5)
    assert set(world.master.state.history) == {ids[0]}
    world.run(120)
    assert set(world.master.state.history) == set(ids)
    assert len(world.master.state.jobs) == 0


@pytest.mark.parametrize("seed", range(12))
def test_batch_job_on_a_faulty_bus_with_failovers_runs_each_pod_once(seed: int) -> None:
    world = World(seed=seed, faults=message_faults(lose=0.15, double=0.15, late_s=0.5))
    world.crash_in_ticks(world.random.sample(range(1, 60), 6))
    job = world.submit(batch(replica=5))
    world.settle(job, "finished", within_s=300)
    world.run(100)
    assert world.state(job) == "finished"
    assert world.starts() == {f"{job}.{index}": 1 for index in range(5)}
    assert world.scenario.workers() == {}


def test_new_leader_sends_an_agent_no_order_before_it_has_read_its_heartbeat() -> None:
    world = World()
    world.scenario.launches_take(1000.0)  # No AppWorker acknowledges the order.
    job = world.submit(service(replica=1))
    world.run_until(lambda: world.show(job).pods[0].agent != "", 5.0)
    agent = world.show(job).pods[0].agent
    world.leader.crash()
    world.sends.clear()
    world.run_until(lambda: bool(pod_orders(world)), 10.0)
    (order,) = pod_orders(world)
    assert (order.agent, len(order.orders)) == (agent, 1)
    assert order.until_s > world.now


def pod_orders(world: World) -> list[PodOrders]:
    """Return the messages to agents that have orders for pods."""
    return [send.body for send in world.sends if isinstance(send.body, PodOrders) and send.body.orders]


def test_exit_code_is_that_of_the_first_failed_pod_however_often_it_is_recovered() -> None:
    world = World()
    job = world.submit(batch(start="exit 0 after 50", replica=4))

    def fail_in_order(*codes: tuple[int, int]) -> int | None:
        for index, code in codes:
            world.run_until(lambda index=index: f"{job}.{index}" in world.programs(), 30)
            world.worker(f"{job}.{index}").end(code)
            world.run(1)
        world.settle(job, "failed", within_s=120)
        return world.show(job).exit_code

    assert fail_in_order((1, 3), (2, 2)) == 3
    world.recover(job)
    assert fail_in_order((2, 2), (1, 3)) == 3


def test_exit_code_is_not_that_of_a_program_that_was_restarted_and_finished() -> None:
    world = World()
    spec = batch(start="exit 3 after 5", replica=1)
    side = replace(spec.pod.tasks[0], name="aside", start="flaky 1", restart=RestartSpec(policy="on-failure"))
    job = world.submit(replace(spec, pod=replace(spec.pod, tasks=(side, *spec.pod.tasks))))
    world.run_until(lambda: {task.state for task in tasks_of(world, job)} == {"running", "failed"}, 60)
    world.worker(f"{job}.0").end(0, task="aside")
    world.settle(job, "failed", within_s=120)
    assert world.show(job).exit_code == 3


def tasks_of(world: World, job: str) -> tuple[TaskView, ...]:
    return world.show(job).pods[0].tasks


def test_finished_batch_job_is_settled_while_its_containers_are_still_there() -> None:
    world = World()
    job = world.submit(batch())
    world.run_until(lambda: len(world.programs()) == 3, 30)
    while world.state(job) != "finished":
        world.run(0.01)
    view = world.show(job)
    assert world.scenario.workers(), "its containers are gone already"
    assert view.settled
    assert (view.summary.finished, view.summary.pending) == (3, 0)


@pytest.mark.parametrize("spec", [batch(start="exit 0 after 50"), service()], ids=["batch", "service"])
def test_pods_of_a_removed_job_are_removed_and_never_pending(spec: JobSpec) -> None:
    world = World()
    job = world.submit(spec)
    world.settle(job)
    seen: set[str] = set()
    world.do("remove", job)
    for _ in range(100):
        world.run(0.1)
        view = world.show(job)
        seen.update(pod.state for pod in view.pods)
        assert view.summary.pending == 0
        if view.summary.state == "removed":
            break
    assert "pending" not in seen
    assert {pod.state for pod in world.show(job).pods} == {"removed"}


def test_pods_that_ended_before_their_job_was_removed_still_say_how() -> None:
    world = World()
    job = world.submit(batch(start="exit 0 after 50", replica=3))
    world.settle(job)
    world.worker(f"{job}.0").end(0)
    world.worker(f"{job}.1").end(4)
    world.run(3)
    world.do("remove", job)
    world.run_until(lambda: world.state(job) == "removed", 60)
    assert [pod.state for pod in world.show(job).pods] == ["finished", "failed", "removed"]


def test_job_is_not_settled_between_a_recovery_and_its_deployment() -> None:
    world = World()
    job = world.submit(service(replica=2))
    world.settle(job)
    world.recover(pod=f"{job}.1")
    starts = world.starts().total()
    world.settle(job)
    assert world.starts().total() == starts + 1
