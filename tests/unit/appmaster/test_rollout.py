"""Rollouts: which pods are down, when the next is updated, and what a failing revision cannot do."""

import pytest
from msgspec.structs import replace

from galaxy.appmaster.logic import AppMasterConfig
from galaxy.model.api.jobs import Discover, UpdateJob
from galaxy.model.api.request import Request
from galaxy.model.api.views import EndpointView
from galaxy.model.jobspec.spec import HealthSpec, MemorySpec, RestartSpec
from galaxy.model.messages.names import APPMASTER, POD_DEPLOY
from galaxy.model.stored.job import EndpointRecord, EndpointState
from galaxy.testing.simulation.faults import message_faults
from tests.unit.appmaster.world import NEVER, World, batch, lose_for_good, service, with_deploy, with_task

POLL_S = 0.05
"""How often a client discovers a service."""


def healthy_rows(world: World) -> int:
    """Return how many healthy endpoints are committed."""
    rows = world.scenario.stored(APPMASTER, "endpoints", EndpointRecord).values()
    return sum(row.state is EndpointState.HEALTHY for row in rows)


def watch_healthy(world: World, at_least: int) -> list[int]:
    """Check from now on that every committed state has so many healthy endpoints; return the counts."""
    seen: list[int] = []

    def check() -> None:
        seen.append(healthy_rows(world))
        assert seen[-1] >= at_least, f"{seen[-1]} healthy endpoints at {world.now}"

    world.watchers.append(check)
    return seen


def poll_as_a_client(world: World, name: str, *, delay_s: float = 0.5) -> list[str]:
    """Discover the service and use its endpoints a moment later, repeatedly; return the failures.

    A request that meets no leader is not answered, and the client sends another one.
    """
    failures: list[str] = []
    body = Discover(service=name)

    def visit(endpoint: EndpointView) -> None:
        if not world.serves(endpoint.address, endpoint.port):
            failures.append(f"{endpoint} at {world.now}")

    def ask() -> None:
        key = f"poll-{world.now}"
        request = Request(op=body.op, key=key, reply=key, deadline_s=world.now + 30, user="ann", body=body)
        world.leader.receive(request)
        world.after(POLL_S / 2, lambda: read(request))
        world.after(POLL_S, ask)

    def read(request: Request) -> None:
        answer = world.answer(request)
        if answer is None:
            return
        if not answer.result.endpoints:
            failures.append(f"no endpoint at {world.now}")
        for endpoint in answer.result.endpoints:
            world.after(delay_s, lambda endpoint=endpoint: visit(endpoint))

    ask()
    return failures


@pytest.mark.parametrize("replica", [2, 3, 5])
def test_rollout_with_step_1_never_fails_a_polling_client(replica: int) -> None:
    world = World()
    job = world.submit(service(replica=replica))
    world.settle(job)
    failures = poll_as_a_client(world, "web")
    watch_healthy(world, replica - 1)
    world.update(job, with_task(service(replica=replica), start="serve v2"))
    world.settle(job)
    world.run(1)
    assert failures == []
    assert set(world.programs().values()) == {"serve v2"}


def test_rollout_keeps_containers_and_their_pid_1() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    before = [(pod.container, pod.incarnation, pod.agent, pod.pid) for pod in world.show(job).pods]
    world.update(job, with_task(service(), start="serve v2"))
    world.settle(job)
    after = [(pod.container, pod.incarnation, pod.agent, pod.pid) for pod in world.show(job).pods]
    assert before == after


def test_rollout_with_step_2_interrupts_at_most_two_pods_at_once() -> None:
    world = World(hosts=2)
    spec = service(replica=6, step=2)
    job = world.submit(spec)
    world.settle(job)
    seen = watch_healthy(world, 4)
    world.update(job, with_task(spec, start="serve v2"))
    world.settle(job)
    assert min(seen) == 4


def test_rollout_waits_for_the_interval_between_pods() -> None:
    world = World()
    spec = service(replica=3)
    job = world.submit(spec)
    world.settle(job)
    world.update(job, with_task(spec, start="serve v2"))
    quick = world.settle(job)
    world.update(job, with_task(with_deploy(spec, interval=20.0), start="serve v3"))
    slow = world.settle(job, within_s=120)
    assert slow - quick == pytest.approx(2 * (20 - world.master.config.min_healthy_s), abs=1.0)


def test_rollout_does_not_update_the_last_healthy_pod_while_another_is_down() -> None:
    world = World(hosts=2)
    spec = service(replica=2, max_per_host=1)
    job = world.submit(spec)
    world.settle(job)
    lose_for_good(world.host(f"{job}.0"))
    world.run_until(lambda: world.show(job).summary.pending == 1, 20)
    failures = poll_as_a_client(world, "web", delay_s=0.1)
    world.update(job, with_task(spec, start="serve v2"))
    world.run(30)
    assert failures == []
    assert list(world.programs().values()) == ["serve"]


def test_only_replica_is_updated_although_no_other_serves() -> None:
    world = World()
    job = world.submit(service(replica=1))
    world.settle(job)
    world.update(job, with_task(service(replica=1), start="serve v2"))
    world.settle(job)
    assert list(world.programs().values()) == ["serve v2"]


@pytest.mark.parametrize("restart", [NEVER, None], ids=["fails for good", "is restarted"])
def test_failing_revision_stalls_while_the_old_pods_serve(restart: RestartSpec | None) -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    watch_healthy(world, 2)
    world.update(job, with_task(service(), start="fail", restart=restart))
    world.run_until(lambda: world.state(job) == "stalled", 60)
    world.run(120)
    view = world.show(job)
    assert view.summary.state == "stalled"
    assert sorted(world.programs().values()).count("serve") == 2
    reason = view.summary.reason
    assert reason is not None and reason.code == "rollout-stalled"
    assert reason.counts == {"failing": 1, "kept": 2}
    assert "revision 2 fails" in reason.message
    assert view.rollout_from == 1
    assert not view.settled


def test_failing_pod_stalls_the_other_slots_too() -> None:
    world = World()
    spec = with_task(service(replica=8, step=2), restart=NEVER)
    job = world.submit(spec)
    world.settle(job)
    world.update(job, with_task(spec, start="serve v2"))
    world.run_until(lambda: sorted(world.programs().values()).count("serve v2") == 2, 20)
    updated = next(pod for pod, start in world.programs().items() if start == "serve v2")
    world.worker(updated).end(1)
    world.run(120)
    assert world.state(job) == "stalled"
    assert sorted(world.programs().values()).count("serve") == 6


def test_revision_that_never_becomes_healthy_stalls_after_the_deadline() -> None:
    world = World(config=AppMasterConfig(progress_deadline_s=30.0))
    job = world.submit(service())
    world.settle(job)
    world.update(job, with_task(service(), start="deaf"))
    world.run(20)
    assert world.state(job) == "updating"
    world.run_until(lambda: world.state(job) == "stalled", 20)
    assert "no pod became healthy for 30s" in world.show(job).summary.reason.message
    assert len(world.endpoints("web")) == 2


def test_update_replaces_a_stalled_one() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    world.update(job, with_task(service(), start="fail", restart=NEVER))
    world.run_until(lambda: world.state(job) == "stalled", 30)
    watch_healthy(world, 2)
    world.update(job, with_task(service(), start="serve v3"))
    world.settle(job)
    assert set(world.programs().values()) == {"serve v3"}


def test_pod_that_drains_for_a_replaced_revision_never_gets_it() -> None:
    world = World()
    spec = service(drain=20.0, interval=30.0)
    job = world.submit(spec)
    world.settle(job)
    world.update(job, with_task(spec, start="serve v2"))
    world.run(2)
    draining = [row.pod for row in world.endpoints("web", all=True) if row.state == "draining"]
    assert draining == [f"{job}.0"]
    world.worker(f"{job}.2").end(1)  # It is updated first now, and the draining pod has to wait.
    world.run(0.1)
    world.update(job, with_task(spec, start="serve v3"))
    world.settle(job, within_s=300)
    assert "serve v2" not in [start for _, _, start in world.scenario.programs_started]


def test_update_back_to_the_old_revision_restarts_only_the_updated_pod() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    world.update(job, with_task(service(), start="fail", restart=NEVER))
    world.run_until(lambda: world.state(job) == "stalled", 30)
    starts = world.starts().total()
    world.update(job, service())
    world.settle(job)
    assert set(world.programs().values()) == {"serve"}
    assert world.starts().total() == starts + 1


def test_stalled_rollout_resumes_when_its_pod_becomes_healthy() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    world.update(job, with_task(service(), start="flaky 6"))
    world.run_until(lambda: world.state(job) == "stalled", 60)
    world.run_until(lambda: world.state(job) == "updating", 40)


def test_pod_that_loses_its_host_in_a_stalled_rollout_keeps_its_old_revision() -> None:
    world = World(hosts=4)
    job = world.submit(service())
    world.settle(job)
    world.update(job, with_task(service(), start="fail", restart=NEVER))
    world.run_until(lambda: world.state(job) == "stalled", 30)
    old = next(pod for pod in world.show(job).pods if pod.revision == 1)
    lose_for_good(world.hosts[old.agent])
    world.run(20)
    assert len(world.endpoints("web")) == 2
    assert world.programs()[old.pod] == "serve"


def test_change_of_health_check_and_stop_timeout_touches_no_program() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    starts = world.starts().total()
    watch_healthy(world, 3)
    health = HealthSpec(type="tcp", port="http")
    world.update(job, with_deploy(with_task(service(), health=health), stop_timeout=5.0))
    world.settle(job)
    assert world.starts().total() == starts
    assert world.show(job).summary.revision == 2


def test_change_of_step_alone_sends_no_pod_order() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    sent = [send for send in world.sends if send.task == POD_DEPLOY]
    world.update(job, with_deploy(service(), step=2, interval=1.0, drain=3.0))
    world.settle(job)
    assert [send for send in world.sends if send.task == POD_DEPLOY] == sent


def test_update_without_changes_warns_and_creates_no_revision() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    done = world.update(job, service())
    assert done.revision == 1
    assert done.warnings == ("nothing changed",)
    assert world.show(job).settled


def test_change_of_the_container_is_refused_naming_every_field() -> None:
    world = World()
    job = world.submit(service())
    task = service().pod.tasks[0]
    ports = (replace(task.ports[0], port=8080),)
    spec = with_deploy(with_task(service(), ports=ports, memory=MemorySpec(size=128 << 20)), tag="ssd")
    problem = world.request(UpdateJob(job=job, spec=spec)).problem
    assert problem is not None and problem.kind == "not-supported"
    assert problem.details == (
        "deploy.tag: none -> ssd",
        "pod.tasks.main.ports: http=dynamic -> http=8080",
    )
    assert world.show(job).summary.revision == 1


def test_scaling_leaves_the_other_pods_alone() -> None:
    world = World()
    job = world.submit(service(replica=2))
    world.settle(job)
    before = {pod.pod: (pod.incarnation, pod.pid) for pod in world.show(job).pods}
    failures = poll_as_a_client(world, "web")
    world.update(job, service(replica=5))
    world.settle(job)
    assert len(world.endpoints("web")) == 5
    world.update(job, service(replica=2))
    world.settle(job)
    view = world.show(job)
    assert {pod.pod: (pod.incarnation, pod.pid) for pod in view.pods} == before
    assert failures == []
    assert len(world.programs()) == 2


def test_pod_created_again_after_scaling_down_repeats_no_generation() -> None:
    world = World()
    job = world.submit(service(replica=2))
    world.settle(job)
    world.update(job, service(replica=1))
    world.settle(job)
    floor = world.master.state.jobs[job].generation_floor
    assert floor >= 2
    world.update(job, service(replica=2))
    world.settle(job)
    assert world.master.state.pods[f"{job}.1"].generation > floor


def test_revisions_are_kept_up_to_their_bound() -> None:
    world = World(config=AppMasterConfig(revisions_max=3))
    job = world.submit(service())
    world.settle(job)
    for number in range(2, 9):
        world.update(job, with_deploy(service(), interval=float(number)))
        world.settle(job)
    kept = sorted(row.revision for row in world.master.state.revisions.values())
    assert len(kept) <= 4
    assert kept[-1] == 8


@pytest.mark.parametrize("seed", range(12))
def test_rollout_on_a_faulty_bus_with_failovers_never_interrupts_two_pods(seed: int) -> None:
    world = World(seed=seed, faults=message_faults(lose=0.1, double=0.1, late_s=0.3))
    job = world.submit(service())
    world.settle(job, within_s=200)
    world.crash_in_ticks(world.random.sample(range(1, 400), 6))
    failures = poll_as_a_client(world, "web")
    watch_healthy(world, 2)
    world.update(job, with_task(service(), start="serve v2"))
    world.run_until(
        lambda: not world.master.state.jobs[job].rollout and set(world.programs().values()) == {"serve v2"},
        400,
    )
    assert failures == []
    assert set(world.starts().values()) == {2}


# ---- restarts count for the revision that they happened on


def crash_looping(world: World, *, replica: int = 1, restarts: int = 6) -> str:
    """Return a job whose pods run a bad revision and were restarted at least so often."""
    job = world.submit(service(replica=replica, start="broken"))
    world.run_until(lambda: all(pod.restarts >= restarts for pod in world.show(job).pods), 400)
    return job


def states_from_now(world: World, job: str) -> list[str]:
    """Return a list that collects every committed state of ``job`` from now on."""
    seen: list[str] = []
    world.watchers.append(lambda: seen.append(str(world.master.state.jobs[job].state)))
    return seen


@pytest.mark.parametrize("replica", [1, 3])
def test_update_of_a_crash_looping_job_to_a_good_revision_never_stalls(replica: int) -> None:
    world = World()
    job = crash_looping(world, replica=replica)
    seen = states_from_now(world, job)
    world.update(job, service(replica=replica))
    world.settle(job)
    assert set(seen) <= {"updating", "running"}
    assert {pod.revision_restarts for pod in world.show(job).pods} == {0}
    assert all(pod.restarts >= 6 for pod in world.show(job).pods)


def test_update_of_a_stalled_rollout_to_a_good_revision_never_stalls_again() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    world.update(job, with_task(service(), start="broken"))
    world.run_until(lambda: world.state(job) == "stalled", 200)
    seen = states_from_now(world, job)
    world.update(job, with_task(service(), start="serve v3"))
    world.settle(job)
    assert set(seen) <= {"updating", "running"}


def test_update_of_pods_that_failed_for_good_retries_them_even_if_only_the_pace_changes() -> None:
    world = World()
    job = world.submit(with_task(service(replica=2), start="flaky 1", restart=NEVER))
    world.run_until(lambda: world.state(job) == "degraded", 30)
    world.update(job, with_deploy(with_task(service(replica=2), start="flaky 1", restart=NEVER), step=2))
    world.settle(job)


def test_change_that_leaves_the_program_alone_starts_a_count_of_its_own() -> None:
    world = World()
    job = crash_looping(world)
    before = world.show(job).pods[0].restarts
    world.update(job, with_deploy(with_task(service(replica=1), start="broken"), step=2))
    (pod,) = world.show(job).pods
    assert (pod.revision, pod.restarts, pod.revision_restarts) == (2, before, 0)
    health = HealthSpec(type="tcp", port="http")
    world.update(job, with_deploy(with_task(service(replica=1), start="broken", health=health), step=2))
    world.run(1)
    (pod,) = world.show(job).pods
    assert pod.revision == 3
    assert pod.revision_restarts <= 1


def test_restarts_of_a_task_that_stays_are_not_counted_twice() -> None:
    world = World()
    spec = service(replica=1)
    second = replace(spec.pod.tasks[0], name="side", start="flaky 3", ports=(), services=())
    spec = replace(spec, pod=replace(spec.pod, tasks=(*spec.pod.tasks, second)))
    job = world.submit(spec)
    world.run_until(lambda: world.show(job).pods[0].restarts == 3, 60)
    world.settle(job)
    changed = replace(spec.pod.tasks[0], start="serve v2")
    world.update(job, replace(spec, pod=replace(spec.pod, tasks=(changed, second))))
    world.settle(job)
    (pod,) = world.show(job).pods
    assert (pod.restarts, pod.revision_restarts) == (3, 0)


def test_reason_of_a_stalled_rollout_says_how_the_program_ends_and_never_its_state() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    reasons: set[str] = set()

    def look() -> None:
        rollout = world.master.state.jobs[job].rollout
        if rollout is not None and rollout.stalled is not None:
            reasons.add(rollout.stalled.message.partition("fails: ")[2].partition(": ")[2])

    world.update(job, with_task(service(), start="fail 3"))
    world.watchers.append(look)
    world.run(300)
    assert reasons
    assert all("exit code 1" in reason for reason in reasons), reasons


# ---- a job without a rollout that restarts again and again


@pytest.mark.parametrize("start", ["broken", "fail 3"], ids=["at once", "after a while"])
def test_new_job_that_crash_loops_is_degraded_and_says_why(start: str) -> None:
    world = World()
    job = world.submit(service(replica=2, start=start))
    world.run_until(lambda: world.state(job) == "degraded", 200)
    seen = states_from_now(world, job)
    for _ in range(60):
        world.run(1)
        view = world.show(job)
        assert view.summary.reason is not None and "exit code 1" in view.summary.reason.message
        assert all(pod.healthy or (pod.reason and "exit code 1" in pod.reason.message) for pod in view.pods)
    assert set(seen) == {"degraded"}, "its state changes with every restart"


def test_job_that_stops_crash_looping_runs_once_it_has_been_steady() -> None:
    world = World()
    job = world.submit(service(replica=1, start="flaky 6"))
    world.run_until(lambda: world.state(job) == "degraded", 200)
    world.run_until(lambda: world.show(job).pods[0].healthy, 100)
    assert world.state(job) == "degraded"
    took = world.settle(job, within_s=60)
    assert took == pytest.approx(world.config.steady_s, abs=1.5)


def test_batch_that_crash_loops_is_degraded_and_still_finishes() -> None:
    world = World()
    restart = RestartSpec(policy="on-failure")
    job = world.submit(with_task(batch(replica=1, start="fail 1"), restart=restart))
    world.run_until(lambda: world.state(job) == "degraded", 200)
    world.worker(f"{job}.0")
    world.run_until(lambda: f"{job}.0" in world.programs(), 100)
    world.worker(f"{job}.0").end(0)
    world.settle(job, "finished")
