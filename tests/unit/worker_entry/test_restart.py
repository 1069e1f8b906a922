"""Decisions about restarts by policy, attempts, back-off and reset."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxy.model.jobspec.spec import RestartSpec
from galaxy.model.messages.pod import Exit, TaskState
from galaxy.worker_entry.logic.events import TaskEmptied
from galaxy.worker_entry.logic.restart import (
    BATCH,
    DEPLOY_RETRIES,
    SERVICE,
    Complete,
    GiveUp,
    RetryAfter,
    decide_after_exit,
    decide_after_failed_deploy,
    policy_of,
)

SUCCESS = Exit(at_s=0, code=0)
FAILURE = Exit(at_s=0, code=1)
KILLED = Exit(at_s=0, signal=9)


@pytest.mark.parametrize(
    ("policy", "batch", "exit_", "decision"),
    [
        ("always", False, SUCCESS, RetryAfter),
        ("always", False, FAILURE, RetryAfter),
        ("always", False, KILLED, RetryAfter),
        ("always", True, SUCCESS, Complete),
        ("always", True, FAILURE, RetryAfter),
        ("on-failure", False, SUCCESS, Complete),
        ("on-failure", False, FAILURE, RetryAfter),
        ("on-failure", True, SUCCESS, Complete),
        ("on-failure", True, KILLED, RetryAfter),
        ("never", False, SUCCESS, Complete),
        ("never", False, FAILURE, GiveUp),
        ("never", True, SUCCESS, Complete),
        ("never", True, KILLED, GiveUp),
    ],
)
def test_policy_and_exit_give_the_decision(policy, batch, exit_, decision):
    restart = RestartSpec(policy=policy)
    assert isinstance(decide_after_exit(restart, exit_, batch=batch, failures=0, uptime_s=1.0), decision)


def test_default_policy_depends_on_the_type_of_job(spec):
    assert policy_of(spec(), batch=False) == SERVICE == RestartSpec(policy="always", attempts=-1)
    assert policy_of(spec(), batch=True) == BATCH == RestartSpec(policy="on-failure", attempts=3)
    own = RestartSpec(policy="never")
    assert policy_of(spec(restart=own), batch=True) == own


restarts = st.builds(
    RestartSpec,
    policy=st.sampled_from(["always", "on-failure"]),
    attempts=st.integers(0, 50),
    delay=st.floats(0.01, 100),
    delay_max=st.floats(0, 1000),
    reset=st.floats(1, 1000),
)


@given(restarts)
def test_program_that_fails_quickly_gets_exactly_its_attempts_with_delays_that_never_shrink(restart):
    delays = []
    decision = decide_after_exit(restart, FAILURE, batch=False, failures=0, uptime_s=0.0)
    while isinstance(decision, RetryAfter):
        delays.append(decision.delay_s)
        assert len(delays) <= restart.attempts
        decision = decide_after_exit(restart, FAILURE, batch=False, failures=decision.failures, uptime_s=0.0)
    assert len(delays) == restart.attempts
    assert delays == sorted(delays)
    assert all(delay <= max(restart.delay, restart.delay_max) for delay in delays)
    assert delays[:1] in ([], [restart.delay])


@given(restarts, st.integers(0, 10**9))
def test_program_that_stayed_up_gets_all_its_attempts_again(restart, failures):
    decision = decide_after_exit(restart, FAILURE, batch=False, failures=failures, uptime_s=restart.reset)
    again = RetryAfter(delay_s=restart.delay, failures=1)
    assert decision == (again if restart.attempts else GiveUp(retries=0))


def test_service_is_restarted_any_number_of_times():
    decision = decide_after_exit(SERVICE, FAILURE, batch=False, failures=10**9, uptime_s=0.0)
    assert decision == RetryAfter(delay_s=60.0, failures=10**9 + 1)


def test_failed_deployment_is_retried_also_with_policy_never():
    never = RestartSpec(policy="never")
    assert isinstance(decide_after_failed_deploy(never, DEPLOY_RETRIES - 1), RetryAfter)
    assert isinstance(decide_after_failed_deploy(never, DEPLOY_RETRIES), GiveUp)


def test_restart_waits_for_the_delay_and_until_the_task_has_no_processes(world, spec, kinds):
    world.order(spec(restart=RestartSpec(delay=2.0)))
    assert kinds(world.exit(code=1)) == ["KillTask"]
    assert world.task.state == TaskState.BACKOFF
    world.now_s += 3.0
    assert kinds(world.feed(TaskEmptied(task="main", run=1))) == ["StartProgram"]
    assert (world.task.state, world.task.restarts, world.task.run) == (TaskState.RUNNING, 1, 2)
    started_s = world.now_s
    world.exit(code=1)
    assert world.feed(TaskEmptied(task="main", run=2)) == ()
    assert "StartProgram" in kinds(world.wait())
    assert world.now_s == started_s + 4.0
