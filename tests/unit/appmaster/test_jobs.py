"""Submit, stop, start, remove and recover: what each does to a job, its pods and its containers."""

from msgspec.structs import replace

from galaxy.appmaster.logic import AppMasterConfig
from galaxy.model.api.jobs import ListJobs, RecoverPod, RemoveJob, StopJob, SubmitJob
from galaxy.model.api.request import Request
from galaxy.model.jobspec.spec import PackageSpec
from galaxy.model.messages.agent import UsageRead
from galaxy.model.messages.container import ContainerState, GroupStatus, GroupStatuses, Reason, SlotStatus
from galaxy.model.messages.names import POD_DEPLOY
from tests.unit.appmaster.world import FOREVER_S, NEVER, World, lose_for_good, service, with_deploy, with_task


def kinds_sent(world: World) -> list[str]:
    return [send.task for send in world.sends]


def test_submitted_service_runs_and_is_discovered() -> None:
    world = World()
    job = world.submit(service())
    assert world.state(job) == "pending"
    world.settle(job)
    assert [endpoint.state for endpoint in world.endpoints("web")] == ["healthy"] * 3
    assert world.show("web").summary.healthy == 3


def test_pod_order_is_sent_as_soon_as_its_place_is_known() -> None:
    world = World()
    world.scenario.launches_take(5.0)
    job = world.submit(service(replica=1))
    world.run(0.2)
    assert POD_DEPLOY in kinds_sent(world)
    world.settle(job)


def test_submit_repeated_under_one_key_creates_one_job_and_gets_one_answer() -> None:
    world = World()
    first = world.request(SubmitJob(spec=service()), key="same")
    second = world.request(SubmitJob(spec=service()), key="same")
    assert first == second
    assert len(world.master.state.jobs) == 1


def test_submit_repeated_under_one_key_after_a_failover_creates_one_job() -> None:
    world = World()
    first = world.submit(service(), key="same")
    world.failover()
    assert world.submit(service(), key="same") == first
    assert len(world.master.state.jobs) == 1


def test_refused_submit_is_refused_again_under_the_same_key() -> None:
    world = World()
    world.submit(service())
    refused = world.request(SubmitJob(spec=service()), key="other")
    assert refused.problem is not None and refused.problem.kind == "conflict"
    job = world.master.state.jobs.where("name", "web")[0]
    world.do("remove", job)
    world.run(30)
    assert world.request(SubmitJob(spec=service()), key="other") == refused


def test_submit_under_the_name_of_a_live_job_is_a_conflict_that_names_it() -> None:
    world = World()
    job = world.submit(service())
    problem = world.request(SubmitJob(spec=service())).problem
    assert problem is not None and problem.kind == "conflict"
    assert job in problem.details[0]
    assert "galaxy job update web" in problem.hint


def test_submit_that_breaks_rules_is_refused_with_every_problem() -> None:
    world = World()
    package = PackageSpec(source="hello.tar.gz", version="1")
    spec = with_task(service(), package=package, env={"GALAXY_X": "1"})
    problem = world.request(SubmitJob(spec=spec)).problem
    assert problem is not None and problem.kind == "spec"
    assert len(problem.details) == 2
    assert len(world.master.state.jobs) == 0


def test_request_long_after_its_deadline_is_not_carried_out() -> None:
    world = World()
    late = Request(
        op="galaxy.job.submit",
        key="late",
        reply="late",
        deadline_s=world.now - 3600,
        body=SubmitJob(spec=service()),
    )
    world.feed(late)
    assert len(world.master.state.jobs) == 0
    assert world.answer(late) is None


def test_request_with_a_foreign_body_is_answered_as_wrong_usage() -> None:
    world = World()
    answer = world.request(StopJob(job="web"), op="galaxy.job.submit")
    assert answer.problem is not None and answer.problem.kind == "usage"


def test_stopped_job_keeps_its_containers_and_a_start_runs_in_them() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    places = [(pod.incarnation, pod.agent, pod.pid) for pod in world.show(job).pods]
    world.do("stop", job)
    world.settle(job, "stopped")
    assert world.programs() == {}
    assert world.endpoints("web") == ()
    assert len(world.scenario.workers()) == 3
    world.do("start", job)
    world.settle(job)
    assert [(pod.incarnation, pod.agent, pod.pid) for pod in world.show(job).pods] == places
    assert len(world.programs()) == 3


def test_stop_withdraws_endpoints_before_programs_for_as_long_as_drain_says() -> None:
    world = World()
    job = world.submit(service(drain=3.0))
    world.settle(job)
    world.do("stop", job)
    assert world.endpoints("web") == ()
    assert {endpoint.state for endpoint in world.endpoints("web", all=True)} == {"draining"}
    world.run(2.9)
    assert len(world.programs()) == 3
    world.run(0.5)
    assert world.programs() == {}


def test_start_during_the_drain_of_a_stop_leaves_the_programs_alone() -> None:
    world = World()
    job = world.submit(service(drain=3.0))
    world.settle(job)
    world.do("stop", job)
    world.run(1)
    world.do("start", job)
    world.run(10)
    assert world.state(job) == "running"
    assert len(world.endpoints("web")) == 3
    assert world.starts().total() == 3


def test_stopped_job_that_loses_a_container_gets_one_without_a_program() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    world.do("stop", job)
    world.settle(job, "stopped")
    lost = world.host(f"{job}.0")
    lose_for_good(lost)
    world.run(20)
    assert world.programs() == {}
    assert world.state(job) == "stopped"
    assert all(pod.agent not in ("", lost.name) for pod in world.show(job).pods)
    assert len(world.scenario.workers()) == 3
    world.do("start", job)
    world.settle(job)
    assert len(world.programs()) == 3


def test_stopped_job_that_is_updated_runs_the_new_revision_when_started() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    world.do("stop", job)
    world.settle(job, "stopped")
    world.update(job, with_task(service(replica=2), start="serve v2"))
    world.run(10)
    assert world.state(job) == "stopped"
    assert world.programs() == {}
    world.do("start", job)
    world.settle(job)
    assert sorted(world.programs().values()) == ["serve v2", "serve v2"]


def test_removed_job_leaves_only_its_history() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    world.do("remove", job)
    world.run(10)
    left = {name: rows for name, rows in world.store.items() if rows}
    assert set(left) == {"answers", "history", "liveness"}
    assert world.slots(job) == []
    assert world.programs() == {}
    view = world.show("web")
    assert view.summary.state == "removed"
    assert view.settled
    assert [pod.agent for pod in view.pods] != ["", "", ""]


def test_removed_job_is_drained_and_stopped_before_its_containers_are_given_back() -> None:
    world = World()
    job = world.submit(service(drain=2.0))
    world.settle(job)
    left: list[tuple[int, int]] = []
    world.watchers.append(lambda: left.append((len(world.programs()), len(world.scenario.workers()))))
    world.do("remove", job)
    world.run(1.9)
    assert set(left) == {(3, 3)}
    world.run(10)
    assert (0, 3) in left
    assert left[-1] == (0, 0)


def test_removal_completes_although_an_agent_never_answers() -> None:
    world = World(dead_s=60.0)
    job = world.submit(service(stop_timeout=5.0))
    world.settle(job)
    world.host(f"{job}.0").cut_off(FOREVER_S)
    world.do("remove", job)
    world.run(30)
    assert world.order(job).remove
    world.run(60)
    assert job not in world.master.state.jobs


def test_remove_of_a_job_that_is_being_removed_and_of_a_removed_one_are_answered_differently() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    world.do("remove", job)
    assert world.do("remove", job).warnings == ("it is being removed already",)
    world.run(10)
    problem = world.request(RemoveJob(job=job)).problem
    assert problem is not None and problem.kind == "not-found"
    assert "has been removed" in problem.hint


def test_name_of_a_job_that_is_being_removed_is_free() -> None:
    world = World()
    old = world.submit(service())
    world.settle(old)
    world.do("remove", old)
    new = world.submit(service())
    world.settle(new)
    assert new != old
    assert world.show("web").summary.job == new


def test_removal_of_a_job_without_containers_completes_at_once() -> None:
    world = World(hosts=0)
    job = world.submit(service())
    world.run(1)
    world.do("remove", job)
    world.run(1)
    assert job not in world.master.state.jobs


def test_program_that_is_killed_counts_a_restart_and_shows_its_exit() -> None:
    world = World()
    job = world.submit(service(replica=1))
    world.settle(job)
    world.worker(f"{job}.0").end(137)
    world.run(0.5)
    assert world.endpoints("web") == ()
    world.settle(job)
    view = world.show(job)
    assert view.pods[0].restarts == 1
    assert view.pods[0].tasks[0].last_exit.code == 137
    assert any(event.kind == "pod.exited" and "exit code 137" in event.text for event in view.events)


def test_restarts_are_counted_across_updates_and_hosts() -> None:
    world = World()
    job = world.submit(service(replica=1))
    world.settle(job)

    def crash() -> None:
        world.worker(f"{job}.0").end(137)
        world.run(0.5)
        world.settle(job)

    crash()
    world.update(job, with_task(service(replica=1), start="serve v2"))
    world.settle(job)
    crash()
    lose_for_good(world.host(f"{job}.0"))
    world.run_until(lambda: world.show(job).pods[0].incarnation == 2, 30)
    world.settle(job)
    crash()
    assert world.show(job).pods[0].restarts == 3


def test_recovered_pod_is_deployed_again_in_its_container() -> None:
    world = World()
    job = world.submit(with_task(service(replica=2), start="fail", restart=NEVER))
    world.run(5)
    view = world.show(job)
    assert view.summary.failed == 2
    assert view.summary.state == "degraded"
    assert view.summary.reason.code == "pod-failed"
    starts = world.starts().total()
    world.recover(job)
    assert world.show(job).summary.state == "pending"
    world.run(5)
    assert world.starts().total() == starts + 2
    assert world.show(job).summary.state == "degraded"
    assert [pod.incarnation for pod in world.show(job).pods] == [1, 1]


def test_running_pod_that_is_named_is_recovered() -> None:
    world = World()
    job = world.submit(service(replica=2))
    world.settle(job)
    world.recover(pod=f"{job}.1")
    world.settle(job)
    world.run(5)
    assert world.starts() == {f"{job}.0": 1, f"{job}.1": 2}


def test_recover_of_a_healthy_job_warns_that_no_pod_failed() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    assert world.recover(job).warnings == ("no pod of it has failed",)


def test_recover_of_an_unknown_pod_names_the_known_ones() -> None:
    world = World()
    job = world.submit(service())
    problem = world.request(RecoverPod(pod=f"{job}.7")).problem
    assert problem is not None and problem.kind == "not-found"
    assert problem.details == ("its pods are 0, 1, 2",)


def test_lost_host_has_its_pods_moved_with_a_new_generation() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    before = {pod.pod: pod for pod in world.master.state.pods.values()}
    lost = world.host(f"{job}.0")
    lose_for_good(lost)
    world.run(20)
    world.settle(job)
    for pod in world.master.state.pods.values():
        old = before[pod.pod]
        moved = old.agent == lost.name
        assert (pod.incarnation, pod.generation > old.generation) == (old.incarnation + moved, moved)
    assert len(world.endpoints("web")) == 3


def test_list_shows_live_jobs_and_with_all_also_removed_ones() -> None:
    world = World()
    gone = world.submit(service("gone"))
    world.settle(gone)
    world.do("remove", gone)
    world.run(10)
    world.submit(service("stays"))
    assert [job.name for job in world.ask(ListJobs()).jobs] == ["stays"]
    every = world.ask(ListJobs(all=True)).jobs
    assert [(job.name, job.state) for job in every] == [("gone", "removed"), ("stays", "pending")]


def test_removed_job_is_shown_although_its_name_is_the_beginning_of_another() -> None:
    world = World()
    gone = world.submit(service("web"))
    world.settle(gone)
    world.do("remove", gone)
    world.run(10)
    world.settle(world.submit(service("web-canary")))
    assert world.show("web").summary.job == gone


def test_usage_of_a_pod_is_shown_as_last_measured() -> None:
    world = World()
    job = world.submit(service(replica=1))
    world.settle(job)
    pod, agent = f"{job}.0", world.show(job).pods[0].agent
    world.feed(UsageRead(agents={agent: {pod: (120, 5_000_000), "stranger-000000.0": (1, 1)}}))
    world.feed(UsageRead(agents={"dead": {pod: (9, 9)}}))  # The last sample of an earlier host.
    assert [(pod.cpu_milli, pod.memory_bytes) for pod in world.show(job).pods] == [(120, 5_000_000)]
    assert "stranger-000000.0" not in world.master.state.usage


def test_pending_pod_has_no_usage_of_its_lost_container() -> None:
    world = World()
    job = world.submit(service(replica=1))
    world.settle(job)
    pod, agent = f"{job}.0", world.show(job).pods[0].agent
    used = UsageRead(agents={agent: {pod: (120, 5_000_000)}})
    world.feed(used)
    reason = Reason(code="dead", message="its host is dead")
    slot = SlotStatus(container=pod, incarnation=1, state=ContainerState.PENDING, reason=reason)
    world.feed(GroupStatuses(statuses=(GroupStatus(group=job, epoch=1, serial=1, slots=(slot,)),)))
    world.feed(used)
    shown = world.show(job).pods[0]
    assert (shown.state, shown.cpu_milli, shown.memory_bytes) == ("pending", 0, 0)


def test_pending_job_shows_the_reason_and_counts_of_resman() -> None:
    world = World(resman=False)
    job = world.submit(service(replica=1))
    reason = Reason(code="no-room", message="no agent fits", counts={"memory": 3}, nearest=("h1: 1 GiB",))
    slot = SlotStatus(container=f"{job}.0", incarnation=0, state=ContainerState.PENDING, reason=reason)
    world.feed(GroupStatuses(statuses=(GroupStatus(group=job, epoch=1, serial=1, slots=(slot,)),)))
    shown = world.show(job).summary.reason
    assert shown is not None
    assert (shown.code, shown.counts, shown.nearest) == ("no-room", {"memory": 3}, ("h1: 1 GiB",))
    assert "1 of 1 pods pending" in shown.message


def test_container_that_its_agent_refused_is_lost_with_the_reason() -> None:
    world = World()
    job = world.submit(service(replica=1))
    world.settle(job)
    reason = Reason(code="port-in-use", message="port 8080 is in use by a socket of the host")
    slot = SlotStatus(container=f"{job}.0", incarnation=1, state=ContainerState.PENDING, reason=reason)
    world.feed(GroupStatuses(statuses=(GroupStatus(group=job, epoch=1, serial=1, slots=(slot,)),)))
    lost = [event.text for event in world.show(job).events if event.kind == "pod.lost"]
    assert len(lost) == 1 and lost[0].endswith(f"is gone: {reason.message}")


def test_history_answers_and_events_are_bounded() -> None:
    config = AppMasterConfig(history_max=3, answers_max=10, events_max=4)
    world = World(config=config)
    for _ in range(6):
        job = world.submit(service(replica=1))
        world.settle(job)
        world.do("remove", job)
        world.run(10)
    assert len(world.store["history"]) == 3
    assert len(world.store["answers"]) <= 10
    assert len(world.show("web").events) == 4


def test_old_answers_are_dropped() -> None:
    world = World(config=AppMasterConfig(answers_s=60.0))
    world.submit(service(replica=0), key="old")
    world.run(61)
    world.do("stop", "web")
    assert "old" not in world.store["answers"]


def test_job_without_replicas_is_running_at_once_and_scales() -> None:
    world = World()
    job = world.submit(service(replica=0))
    world.settle(job, within_s=1)
    world.update(job, service(replica=2))
    world.settle(job)
    assert len(world.programs()) == 2


def test_changed_stop_timeout_reaches_the_pods() -> None:
    world = World()
    job = world.submit(service(replica=1))
    world.settle(job)
    world.update(job, with_deploy(service(replica=1), stop_timeout=7.0))
    world.settle(job)
    orders = [send.body.orders for send in world.sends if send.task == POD_DEPLOY]
    assert [order.stop_timeout for order in orders[-1]] == [7.0]


def test_user_of_a_request_is_recorded() -> None:
    world = World()
    job = world.submit(service())
    assert world.show(job).summary.user == "ann"
    assert replace(world.show(job).events[0], at_s=0.0).text == "3 pods by ann"


def test_service_whose_pods_failed_for_good_runs_again_after_an_update() -> None:
    world = World()
    job = world.submit(service(replica=2))
    world.settle(job)
    world.update(job, with_task(service(replica=2, step=2), start="fail", restart=NEVER))
    world.run(60)
    assert world.show(job).summary.failed == 2
    world.update(job, with_task(service(replica=2, step=2), start="serve again"))
    world.settle(job)
    assert world.state(job) == "running"


def test_start_is_counted_in_the_order_to_resman() -> None:
    world = World()
    job = world.submit(service(replica=1))
    world.settle(job)
    world.do("stop", job)
    world.settle(job, "stopped")
    world.do("start", job)
    world.settle(job)
    assert world.order(job).starts == 1
