"""The effects of an order on each task, by the task's state and the changes of its spec."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from galaxy.model.jobspec.spec import (
    CpuSpec,
    DataSpec,
    HealthSpec,
    PackageSpec,
    PortSpec,
    RestartSpec,
    ServiceSpec,
    Ulimit,
)
from galaxy.model.jobspec.task_diff import TaskChange, compare
from galaxy.model.messages.container import HOST_FAILED, Reason
from galaxy.model.messages.pod import Exit, PodState, TaskState
from galaxy.worker_entry.logic.effects import PlacePackages, StagePackages, StartProgram, StopProgram
from galaxy.worker_entry.logic.events import (
    DeployFailed,
    PackagesPlaced,
    PackagesStaged,
    ProbeAnswered,
    ProgramEnded,
    ProgramStarted,
    QuitRequested,
    ReloadEnded,
    TaskEmptied,
)
from galaxy.worker_entry.logic.records import AfterStop, ReloadPhase
from galaxy.worker_entry.logic.report import observe, state_of

PACKAGE = PackageSpec(source="http://x/a", version="1")
NEWER = PackageSpec(source="http://x/a", version="2")


def same(value):
    return Ulimit(soft=value, hard=value)


def data(version, reload="reload"):
    return DataSpec(packages=(PackageSpec(source="http://x/d", version=version),), reload=reload)


def report(world):
    return observe(world.pod, pod_id="web.0", incarnation=1, pid=1, ports={})


def deploy(world):
    """Complete the deployment that is in progress."""
    world.feed(PackagesStaged(task="main", deploy=world.task.deploy))
    if world.task.state is TaskState.STOPPING:
        leave(world)
    world.feed(PackagesPlaced(task="main", deploy=world.task.deploy))


def leave(world):
    world.exit(signal=15)
    world.feed(TaskEmptied(task="main", run=world.task.run))


@pytest.mark.parametrize(
    ("more", "change"),
    [
        ({"start": "other"}, TaskChange.REDEPLOY),
        ({"package": NEWER}, TaskChange.REDEPLOY),
        ({"package": None}, TaskChange.REDEPLOY),
        ({"env": {"A": "2"}}, TaskChange.REDEPLOY),
        ({"data": data("2")}, TaskChange.RELOAD),
        ({"data": data("2", reload="")}, TaskChange.REDEPLOY),
        ({"data": None}, TaskChange.REDEPLOY),
        ({"data": data("1", reload="other")}, TaskChange.NONE),
        ({"stop": "other"}, TaskChange.NONE),
        ({"health": HealthSpec(type="command", command="x")}, TaskChange.NONE),
        ({"restart": RestartSpec(policy="never")}, TaskChange.NONE),
        ({"cpu": CpuSpec(millicores=500)}, TaskChange.NONE),
        (
            {"ports": (PortSpec(name="web"),), "services": (ServiceSpec(name="s", port="web"),)},
            TaskChange.NONE,
        ),
        ({"data": data("2"), "start": "other"}, TaskChange.REDEPLOY),
        ({}, TaskChange.NONE),
    ],
)
def test_program_is_redeployed_only_for_changes_that_affect_it(spec, more, change):
    base = {"start": "run", "package": PACKAGE, "env": {"A": "1"}, "data": data("1")}
    assert compare(spec(**base), spec(**{**base, **more})) == change


def test_task_without_packages_starts_at_once(world, spec, kinds):
    assert kinds(world.order(spec())) == ["StartProgram"]
    assert world.task.state == TaskState.RUNNING


def test_task_with_a_package_is_staged_placed_and_started(world, spec, kinds):
    assert world.order(spec(package=PACKAGE)) == (StagePackages(task="main", deploy=1, packages=(PACKAGE,)),)
    placing = world.feed(PackagesStaged(task="main", deploy=1))
    assert placing == (PlacePackages(task="main", deploy=1, required=(PACKAGE,)),)
    assert kinds(world.feed(PackagesPlaced(task="main", deploy=1))) == ["StartProgram"]


@pytest.mark.parametrize("generation", [0, 3, 5])
def test_order_that_is_not_newer_changes_nothing(world, spec, generation):
    world.order(spec(), generation=5)
    before = world.pod
    assert world.order(spec("other"), generation=generation) == ()
    assert world.pod == before


def test_unchanged_task_keeps_running_after_a_new_order(world, spec):
    world.order(spec())
    before = world.task
    assert world.order(spec()) == ()
    assert world.task == before
    assert report(world).generation == 2


def test_changed_health_check_is_used_without_restarting_the_program(world, spec):
    world.order(spec())
    check = HealthSpec(type="command", command="true")
    assert world.order(spec(health=check)) == ()
    assert world.task.run == 1
    assert world.wait()[0].check == check


def test_old_program_is_stopped_only_when_the_new_package_is_staged(world, spec, kinds):
    world.order(spec(package=PACKAGE, stop="old stop"))
    deploy(world)
    assert kinds(world.order(spec(package=NEWER, stop="new stop"))) == ["StagePackages"]
    assert report(world).state == PodState.DEPLOYING
    assert report(world).tasks[0].version == "1"
    stop = world.feed(PackagesStaged(task="main", deploy=2))
    assert [(type(each), each.spec.stop) for each in stop] == [(StopProgram, "old stop")]
    world.exit(signal=15)
    assert kinds(world.feed(TaskEmptied(task="main", run=1))) == ["PlacePackages"]
    start = world.feed(PackagesPlaced(task="main", deploy=2))
    assert [type(each) for each in start] == [StartProgram]
    assert report(world).tasks[0].version == "2"


def test_old_program_that_dies_while_the_new_package_is_staged_is_not_restarted(world, spec, kinds):
    world.order(spec(package=PACKAGE))
    deploy(world)
    world.order(spec(package=NEWER))
    assert kinds(world.exit(code=1)) == ["KillTask"]
    assert world.task.state == TaskState.DEPLOYING
    world.feed(TaskEmptied(task="main", run=1))
    assert kinds(world.feed(PackagesStaged(task="main", deploy=2))) == ["PlacePackages"]


def test_package_that_cannot_be_fetched_stops_the_old_program_and_fails_the_task(world, spec, kinds):
    world.order(spec(package=PACKAGE))
    deploy(world)
    world.order(spec(package=NEWER))
    reason = Reason(code="deploy-failed", message="no such file")
    assert "StopProgram" in kinds(world.feed(DeployFailed(task="main", deploy=2, reason=reason, retry=False)))
    leave(world)
    assert (world.task.state, world.task.reason) == (TaskState.FAILED, reason)


def test_rollback_while_the_new_package_is_staged_keeps_the_old_files(world, spec, kinds):
    world.order(spec(package=PACKAGE))
    deploy(world)
    world.order(spec(package=NEWER))
    effects = world.order(spec(package=PACKAGE))
    assert "StagePackages" not in kinds(effects)
    assert world.feed(PackagesStaged(task="main", deploy=2)) == ()
    leave(world)
    assert world.task.state == TaskState.RUNNING
    assert world.task.running_spec.package == PACKAGE


def test_rollback_during_the_replacement_of_files_stages_the_old_package_again(world, spec):
    world.order(spec(package=PACKAGE))
    deploy(world)
    world.order(spec(package=NEWER))
    world.feed(PackagesStaged(task="main", deploy=2))
    leave(world)  # Files of version 2 are being moved in place now.
    effects = world.order(spec(package=PACKAGE))
    assert effects == (StagePackages(task="main", deploy=3, packages=(PACKAGE,)),)


def test_fetch_is_retried_with_growing_delays(world, spec):
    world.order(spec(package=PACKAGE, restart=RestartSpec(delay=1.0, attempts=2)))
    for delay_s in (1.0, 2.0):
        at_s = world.now_s
        reason = Reason(code="deploy-failed", message="away")
        event = DeployFailed(task="main", deploy=world.task.deploy, reason=reason, retry=True)
        assert world.feed(event) == ()
        assert "next try in" in world.task.reason.message
        assert [type(each) for each in world.wait()] == [StagePackages]
        assert world.now_s == at_s + delay_s
    world.feed(DeployFailed(task="main", deploy=world.task.deploy, reason=reason, retry=True))
    assert world.task.state == TaskState.FAILED


@pytest.mark.parametrize(("elsewhere", "code"), [(True, HOST_FAILED), (False, "deploy-failed")])
def test_final_failure_of_a_deployment_says_whether_another_host_may_succeed(world, spec, elsewhere, code):
    world.order(spec(package=PACKAGE))
    reason = Reason(code="deploy-failed", message="no such file")
    world.feed(DeployFailed(task="main", deploy=1, reason=reason, retry=False, elsewhere=elsewhere))
    assert (world.task.state, world.task.reason.code) == (TaskState.FAILED, code)


def test_host_is_blamed_only_after_some_tries_and_never_while_the_old_program_runs(world, spec):
    def fail() -> str:
        reason = Reason(code="deploy-failed", message="away")
        deploy = world.task.deploy
        world.feed(DeployFailed(task="main", deploy=deploy, reason=reason, retry=True, elsewhere=True))
        code = world.task.reason.code
        world.wait()
        return code

    world.order(spec(package=PACKAGE))
    assert [fail() for _ in range(4)] == ["deploy-failed", "deploy-failed", HOST_FAILED, HOST_FAILED]
    world.feed(PackagesStaged(task="main", deploy=world.task.deploy))
    world.feed(PackagesPlaced(task="main", deploy=world.task.deploy))
    world.order(spec(package=NEWER))
    assert [fail() for _ in range(4)] == ["deploy-failed"] * 4


def test_new_data_is_reloaded_and_the_task_is_healthy_once_the_command_has_ended(world, spec, kinds):
    world.order(spec(data=data("1")))
    deploy(world)
    world.wait()
    assert report(world).healthy
    assert kinds(world.order(spec(data=data("2")))) == ["StagePackages"]
    assert not report(world).healthy and report(world).state == PodState.RUNNING
    assert kinds(world.feed(PackagesStaged(task="main", deploy=2))) == ["PlacePackages"]
    assert kinds(world.feed(PackagesPlaced(task="main", deploy=2))) == ["RunReload"]
    assert not report(world).healthy
    world.feed(ReloadEnded(task="main", run=1, status=0))
    assert report(world).healthy
    assert world.task.run == 1


def test_program_that_crashes_during_a_reload_starts_with_the_new_data(world, spec, kinds):
    world.order(spec(data=data("1")))
    deploy(world)
    world.order(spec(data=data("2")))
    world.exit(code=1)
    world.feed(TaskEmptied(task="main", run=1))
    assert kinds(world.wait()) == ["StagePackages"]
    deploy(world)
    assert world.task.state == TaskState.RUNNING
    assert world.task.reload is ReloadPhase.NONE
    assert [package.version for package in world.task.placed] == ["2"]


def test_start_ordered_before_the_stop_is_complete_deploys_after_it(world, spec, kinds):
    world.order(spec())
    world.order(spec(), run=False)
    assert world.order(spec()) == ()
    world.exit(signal=15)
    assert kinds(world.feed(TaskEmptied(task="main", run=1))) == ["StartProgram"]


def test_program_that_does_not_stop_is_killed_at_the_timeout(world, spec, kinds):
    world.order(spec())
    at_s = world.now_s
    world.order(spec(), run=False, stop_timeout=7.0)
    assert kinds(world.wait()) == ["KillTask"]
    assert world.now_s == at_s + 7.0
    world.exit(signal=9)
    world.feed(TaskEmptied(task="main", run=1))
    assert state_of(world.pod) == PodState.STOPPED


def test_stop_during_an_update_leaves_the_pod_stopped(world, spec):
    world.order(spec())
    world.order(spec("other"))
    assert world.task.after_stop is AfterStop.PLACE
    world.order(spec("other"), run=False)
    leave(world)
    assert state_of(world.pod) == PodState.STOPPED


def test_finished_batch_program_stays_finished_through_stop_start_and_new_generations(world, spec):
    world.order(spec(), batch=True)
    world.exit(code=0)
    world.feed(TaskEmptied(task="main", run=1))
    for run in (True, False, True):
        assert world.order(spec(), batch=True, run=run) == ()
        assert state_of(world.pod) == PodState.FINISHED


def test_finished_batch_program_runs_again_if_it_is_redeployed_or_changed(world, spec, kinds):
    world.order(spec(), batch=True)
    for more in ({"redeploy": True}, {"revision": 9}):
        world.exit(code=0)
        world.feed(TaskEmptied(task="main", run=world.task.run))
        tasks = spec("other") if "revision" in more else spec()
        assert kinds(world.order(tasks, batch=True, **more)) == ["StartProgram"]


def test_failed_task_is_tried_again_by_a_new_revision_but_not_by_the_same(world, spec, kinds):
    world.order(spec(restart=RestartSpec(policy="never")), revision=1)
    world.exit(code=1)
    world.feed(TaskEmptied(task="main", run=1))
    assert world.order(spec(restart=RestartSpec(policy="never")), revision=1) == ()
    assert world.task.state == TaskState.FAILED
    assert kinds(world.order(spec(restart=RestartSpec(policy="never")), revision=2)) == ["StartProgram"]


def test_redeploy_stages_the_package_that_is_already_in_place(world, spec):
    world.order(spec(package=PACKAGE))
    deploy(world)
    assert [type(each) for each in world.order(spec(package=PACKAGE), redeploy=True)] == [StagePackages]


def test_task_that_is_no_longer_in_the_order_is_stopped_and_removed(make_world, spec):
    world = make_world("main", "side")
    world.order(spec(), spec(name="side"))
    world.order(spec(name="side"))
    names = {task.name: task for task in world.pod.tasks}
    assert names["main"].state == TaskState.STOPPING
    exit_ = Exit(at_s=0.0, signal=15)
    world.feed(ProgramEnded(task="main", run=1, exit=exit_))
    world.feed(TaskEmptied(task="main", run=1))
    assert [task.name for task in world.pod.tasks] == ["side"]


def test_quit_ends_the_container_once_nothing_is_left(world, spec, kinds):
    world.order(spec())
    assert kinds(world.feed(QuitRequested(stop_timeout_s=5.0))) == ["StopProgram"]
    world.exit(signal=15)
    assert kinds(world.feed(TaskEmptied(task="main", run=1))) == ["EndContainer"]
    assert world.order(spec()) == ()


def test_quit_of_an_idle_container_ends_it_at_once(world, kinds):
    assert kinds(world.feed(QuitRequested(stop_timeout_s=5.0))) == ["EndContainer"]


def test_late_event_of_an_earlier_run_changes_nothing(world, spec):
    world.order(spec())
    world.exit(code=1)
    world.feed(TaskEmptied(task="main", run=1))
    world.wait()
    before = world.pod
    for event in (
        ProgramStarted(task="main", run=1, at_s=1.0),
        TaskEmptied(task="main", run=1),
        ProbeAnswered(task="main", run=1, probe=1, ok=False),
        PackagesPlaced(task="main", deploy=0),
    ):
        world.feed(event)
        assert world.pod == before


def test_limits_above_what_the_host_gives_fail_the_task_with_the_numbers(world, spec, kinds):
    world.pod = replace(world.pod, ceilings={"nofile": 20_000, "nproc": -1, "core": 100})
    own = {"nofile": same(20_001), "nproc": same(-1), "core": Ulimit(soft=0, hard=-1)}
    assert kinds(world.order(spec(ulimits=own))) == []
    assert world.task.state is TaskState.FAILED and world.task.reason.code == "ulimit"
    message = world.task.reason.message
    assert "nofile 20001 (at most 20000)" in message and "core unlimited (at most 100)" in message
    assert "nproc" not in message
    assert kinds(world.order(spec(ulimits={"nofile": same(20_000), "core": same(100)}))) == ["StartProgram"]


def test_running_task_is_stopped_when_its_new_limits_cannot_be_given(world, spec, kinds):
    world.pod = replace(world.pod, ceilings={"nofile": 1000})
    world.order(spec())
    assert kinds(world.order(spec(ulimits={"nofile": same(2000)}))) == ["StopProgram"]
    world.exit(code=0)
    world.feed(TaskEmptied(task="main", run=world.task.run))
    assert world.task.state is TaskState.FAILED and "at most 1000" in world.task.reason.message


def test_changed_limits_start_the_program_again(world, spec, kinds):
    world.order(spec())
    assert kinds(world.order(spec(ulimits={"nofile": same(1000)}))) == ["StopProgram"]
