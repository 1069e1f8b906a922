"""Runs: the record of one execution of a batch job, from its submission to its outcome."""

import pytest

from galaxy.appmaster.logic.batch.runs import runs_of, start
from galaxy.model.stored.run import RunRecord, RunState
from tests.unit.appmaster.world import World, batch, service


def only_run(world: World, job: str) -> RunRecord:
    (run,) = runs_of(world.master.state, job)
    return run


def test_submitted_batch_job_has_an_active_run_that_its_pods_name() -> None:
    world = World()
    job = world.submit(batch())
    submitted_s = pytest.approx(world.now, abs=0.01)
    world.run(0.5)
    run = only_run(world, job)
    assert (run.run, run.state, run.attempts, run.exit_code) == (1, RunState.ACTIVE, 1, None)
    assert (run.started_s, run.ended_s) == (submitted_s, None)
    assert [pod.run for pod in world.master.state.job_pods(job)] == [1, 1, 1]


def test_service_has_no_run() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    assert runs_of(world.master.state, job) == ()
    assert [pod.run for pod in world.master.state.job_pods(job)] == [0, 0, 0]


def test_finished_batch_job_ends_its_run_with_the_same_outcome() -> None:
    world = World()
    job = world.submit(batch())
    world.settle(job, "finished")
    run = only_run(world, job)
    assert (run.state, run.exit_code) == (RunState.FINISHED, 0)
    assert run.ended_s == world.master.state.jobs[job].since_s
    (shown,) = world.show(job).runs
    assert (shown.run, shown.state, shown.exit_code) == (1, "finished", 0)


def test_failed_run_has_the_exit_code_and_is_active_again_after_a_recovery() -> None:
    world = World()
    job = world.submit(batch(start="exit 3 after 1", replica=1))
    world.settle(job, "failed")
    assert (only_run(world, job).state, only_run(world, job).exit_code) == (RunState.FAILED, 3)
    world.recover(job)
    run = only_run(world, job)
    assert (run.state, run.ended_s, run.exit_code, run.attempts) == (RunState.ACTIVE, None, None, 2)
    world.settle(job, "failed")
    assert (only_run(world, job).state, only_run(world, job).attempts) == (RunState.FAILED, 2)


def test_stopped_job_keeps_its_run_active() -> None:
    world = World()
    job = world.submit(batch(start="exit 0 after 9"))
    world.run(2)
    world.do("stop", job)
    world.settle(job, "stopped")
    assert only_run(world, job).state is RunState.ACTIVE
    world.do("start", job)
    world.settle(job, "finished")
    assert (only_run(world, job).run, only_run(world, job).state) == (1, RunState.FINISHED)


def test_job_removed_while_it_runs_leaves_its_run_as_removed_in_the_history_only() -> None:
    world = World()
    job = world.submit(batch(start="exit 0 after 90"))
    world.run(2)
    world.do("remove", job)
    world.run(10)
    assert runs_of(world.master.state, job) == ()
    (run,) = world.show(job).runs
    assert (run.state, run.ended_s is not None) == ("removed", True)


def test_run_survives_a_change_of_leaders() -> None:
    world = World()
    job = world.submit(batch(start="exit 0 after 9"))
    world.run(1)
    before = only_run(world, job)
    world.failover()
    assert only_run(world, job) == before
    world.settle(job, "finished")
    assert only_run(world, job).started_s == before.started_s


def test_runs_of_one_job_are_kept_up_to_their_bound() -> None:
    world = World()
    job = world.submit(batch())
    state = world.master.state
    for _ in range(state.config.runs_max + 4):
        start(state, state.jobs[job])
    numbers = [run.run for run in runs_of(state, job)]
    assert numbers == list(range(6, 6 + state.config.runs_max))
