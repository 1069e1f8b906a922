"""An effect that could not be carried out is answered by an event of its task, and nothing waits for ever."""

from __future__ import annotations

from galaxy.model.jobspec.spec import DataSpec, HealthSpec, PackageSpec, RestartSpec
from galaxy.model.messages.pod import TaskState
from galaxy.worker_entry.logic.effects import (
    CancelDeploy,
    KillTask,
    PlacePackages,
    RunProbe,
    RunReload,
    StagePackages,
    StartProgram,
    StopProgram,
    TerminateTask,
)
from galaxy.worker_entry.logic.events import PackagesPlaced, PackagesStaged
from galaxy.worker_entry.logic.failures import failure_of

PACKAGE = PackageSpec(source="file:///p", version="1")
FULL = "cannot be carried out: Too many open files"


def fail(world, kind):
    """Feed the failure of the last effect of a kind."""
    effect = [each for each in world.effects if isinstance(each, kind)][-1]
    event = failure_of(effect, FULL, 1.0)
    return None if event is None else world.feed(event)


def test_staging_that_fails_is_tried_again_and_says_why(world, spec, kinds):
    world.order(spec(package=PACKAGE))
    fail(world, StagePackages)
    assert world.task.state is TaskState.DEPLOYING
    assert "Too many open files; next try in" in world.task.reason.message
    assert kinds(world.wait()) == ["StagePackages"]


def test_placing_that_fails_is_tried_again(world, spec, kinds):
    world.order(spec(package=PACKAGE))
    world.feed(PackagesStaged(task="main", deploy=world.task.deploy))
    fail(world, PlacePackages)
    assert kinds(world.wait()) == ["StagePackages"]  # What was moved is not known.


def test_program_that_cannot_be_started_is_restarted_and_its_exit_says_why(world, spec, kinds):
    world.order(spec())
    fail(world, StartProgram)
    assert world.task.state is TaskState.BACKOFF
    assert world.task.last_exit.code == 126
    assert "exit code 126: cannot be carried out: Too many open files" in world.task.reason.message


def test_program_that_cannot_be_started_and_is_not_restarted_has_failed(world, spec):
    world.order(spec(restart=RestartSpec(policy="never")))
    fail(world, StartProgram)
    assert world.task.state is TaskState.FAILED


def test_stop_that_fails_terminates_the_task_and_kills_it_at_the_deadline(world, spec, kinds):
    world.order(spec(stop="bye"))
    world.order(spec(stop="bye"), run=False)
    assert kinds(fail(world, StopProgram)) == ["TerminateTask"]
    assert fail(world, TerminateTask) is None
    assert kinds(world.wait()) == ["KillTask"]


def test_check_that_cannot_run_counts_as_failed_and_is_repeated(world, spec, kinds):
    world.order(spec(health=HealthSpec(type="tcp", port="web", interval=0.01, failures=1)))
    assert kinds(world.wait()) == ["RunProbe"]
    fail(world, RunProbe)
    assert world.task.health.verdict is False and "Too many open files" in world.task.reason.message
    assert kinds(world.wait()) == ["RunProbe"]


def test_reload_that_cannot_run_has_failed(world, spec):
    data = [PackageSpec(source="file:///d", version=version) for version in "12"]
    world.order(spec(data=DataSpec(packages=(data[0],), reload="r")))
    world.feed(PackagesStaged(task="main", deploy=world.task.deploy))
    world.feed(PackagesPlaced(task="main", deploy=world.task.deploy))
    world.order(spec(data=DataSpec(packages=(data[1],), reload="r")))
    world.feed(PackagesStaged(task="main", deploy=world.task.deploy))
    world.feed(PackagesPlaced(task="main", deploy=world.task.deploy))
    fail(world, RunReload)
    assert world.task.reason.code == "reload-failed" and "Too many open files" in world.task.reason.message


def test_kill_and_cancel_have_no_answer_because_the_shell_repeats_the_one_and_the_other_never_waits():
    assert failure_of(KillTask(task="main", run=1, keep_execs=True), FULL, 1.0) is None
    assert failure_of(CancelDeploy(task="main"), FULL, 1.0) is None
