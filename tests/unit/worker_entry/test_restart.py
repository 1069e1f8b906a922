"""When a program gets another try: policies, attempts, back-off, reset."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxy.model.jobspec.spec import RestartSpec
from galaxy.model.messages.pod import Exit, TaskState
from galaxy.worker_entry.logic.events import Emptied
from galaxy.worker_entry.logic.restart import (
    BATCH,
    DEPLOY_ATTEMPTS,
    SERVICE,
    Again,
    Finish,
    GiveUp,
    after_exit,
    after_failed_deploy,
    rule,
)

WELL = Exit(at_s=0, code=0)
BADLY = Exit(at_s=0, code=1)
KILLED = Exit(at_s=0, signal=9)


@pytest.mark.parametrize(
    ("policy", "batch", "exit_", "verdict"),
    [
        ("always", False, WELL, Again),
        ("always", False, BADLY, Again),
        ("always", False, KILLED, Again),
        ("always", True, WELL, Finish),
        ("always", True, BADLY, Again),
        ("on-failure", False, WELL, Finish),
        ("on-failure", False, BADLY, Again),
        ("on-failure", True, WELL, Finish),
        ("on-failure", True, KILLED, Again),
        ("never", False, WELL, Finish),
        ("never", False, BADLY, GiveUp),
        ("never", True, WELL, Finish),
        ("never", True, KILLED, GiveUp),
    ],
)
def test_policy_and_exit_give_the_verdict(policy, batch, exit_, verdict):
    assert isinstance(after_exit(RestartSpec(policy=policy), batch, exit_, 0, 1.0), verdict)


def test_default_rule_is_by_kind_of_job(spec):
    assert rule(spec(), batch=False) == SERVICE == RestartSpec(policy="always", attempts=-1)
    assert rule(spec(), batch=True) == BATCH == RestartSpec(policy="on-failure", attempts=3)
    own = RestartSpec(policy="never")
    assert rule(spec(restart=own), batch=True) == own


restarts = st.builds(
    RestartSpec,
    policy=st.sampled_from(["always", "on-failure"]),
    attempts=st.integers(0, 50),
    delay=st.floats(0.01, 100),
    delay_max=st.floats(0, 1000),
    reset=st.floats(1, 1000),
)


@given(restarts)
def test_quick_failures_get_exactly_the_attempts_with_delays_that_never_shrink(restart):
    failures, delays = 0, []
    while isinstance(verdict := after_exit(restart, False, BADLY, failures, 0.0), Again):
        failures = verdict.failures
        delays.append(verdict.delay_s)
        assert len(delays) <= restart.attempts
    assert len(delays) == restart.attempts
    assert delays == sorted(delays)
    assert all(delay <= max(restart.delay, restart.delay_max) for delay in delays)
    assert delays[:1] in ([], [restart.delay])


@given(restarts, st.integers(0, 10**9))
def test_program_that_stayed_up_has_all_its_attempts_back(restart, failures):
    verdict = after_exit(restart, False, BADLY, failures, restart.reset)
    assert verdict == (Again(delay_s=restart.delay, failures=1) if restart.attempts else GiveUp(tries=0))


def test_service_is_restarted_without_end():
    verdict = after_exit(SERVICE, False, BADLY, 10**9, 0.0)
    assert verdict == Again(delay_s=60.0, failures=10**9 + 1)


def test_failed_deployment_is_retried_even_if_the_program_never_is():
    never = RestartSpec(policy="never")
    assert isinstance(after_failed_deploy(never, DEPLOY_ATTEMPTS - 1), Again)
    assert isinstance(after_failed_deploy(never, DEPLOY_ATTEMPTS), GiveUp)


def test_restart_waits_for_the_delay_and_for_what_the_program_left(world, spec, kinds):
    world.order(spec(restart=RestartSpec(delay=2.0)))
    assert kinds(world.exit(code=1)) == ["KillTask"]
    assert world.task.state == TaskState.BACKOFF
    world.now_s += 3.0
    assert kinds(world.feed(Emptied(task="main", run=1))) == ["StartProgram"]
    assert (world.task.state, world.task.restarts, world.task.run) == (TaskState.RUNNING, 1, 2)
    started_s = world.now_s
    world.exit(code=1)
    assert world.feed(Emptied(task="main", run=2)) == ()
    assert "StartProgram" in kinds(world.wait())
    assert world.now_s == started_s + 4.0
