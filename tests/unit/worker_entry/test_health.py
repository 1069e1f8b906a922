"""When health is probed, and what verdict follows from the answers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from galaxy.model.jobspec.spec import HealthSpec, PortSpec, ServiceSpec
from galaxy.model.messages.pod import TaskState
from galaxy.worker_entry.logic import health
from galaxy.worker_entry.logic.effects import RunProbe
from galaxy.worker_entry.logic.events import ProbeAnswered

CHECK = HealthSpec(type="tcp", port="web", interval=2.0, failures=3)
SERVICE = {"ports": (PortSpec(name="web"),), "services": (ServiceSpec(name="s", port="web"),)}


def test_service_without_a_check_is_checked_by_tcp_and_other_tasks_are_not(spec):
    assert health.check_of(spec(**SERVICE), batch=False) == HealthSpec(type="tcp", port="web")
    assert health.check_of(spec(**SERVICE), batch=True) is None
    assert health.check_of(spec(), batch=False) is None
    assert health.check_of(spec(health=CHECK, **SERVICE), batch=True) == CHECK


@given(st.lists(st.booleans(), max_size=60))
def test_task_is_unhealthy_after_exactly_the_configured_failures_in_a_row(answers):
    now_s, failures, verdict = 0.0, 0, None
    state = health.begin(CHECK, now_s)
    for ok in answers:
        full = state.due_s - now_s > CHECK.interval - 1e-6
        now_s = state.due_s
        state = health.after_answer(state, CHECK, ok=ok, uptime_s=now_s, now_s=now_s)
        failures = 0 if ok else failures + full
        verdict = True if ok else False if failures >= CHECK.failures else verdict
        assert (state.verdict, state.failures) == (verdict, failures)
        assert 0 < state.due_s - now_s <= CHECK.interval + 1e-6


def test_first_probes_follow_each_other_quickly():
    state, times = health.begin(CHECK, 0.0), []
    while state.due_s < 1.0:
        times.append(state.due_s)
        state = health.after_answer(state, CHECK, ok=False, uptime_s=state.due_s, now_s=state.due_s)
    assert times[0] <= 0.02 and len(times) >= 5
    assert state.verdict is None


def test_failures_within_grace_are_not_counted():
    check = HealthSpec(type="tcp", port="web", interval=1.0, failures=1, grace=10.0)
    state = health.begin(check, 0.0)
    while state.due_s < 10.0:
        state = health.after_answer(state, check, ok=False, uptime_s=state.due_s, now_s=state.due_s)
        assert (state.verdict, state.failures) == (None, 0)
    state = health.after_answer(state, check, ok=False, uptime_s=state.due_s, now_s=state.due_s)
    assert state.verdict is False


def test_unhealthy_program_is_reported_and_left_alone(world, spec):
    world.order(spec(health=HealthSpec(type="command", command="x", interval=0.1, failures=1)))
    for _ in range(5):
        (probe,) = world.wait()
        assert isinstance(probe, RunProbe)
        event = ProbeAnswered(task="main", run=1, probe=probe.probe, ok=False, detail="exit code 1")
        assert world.feed(event) == ()
    assert (world.task.state, world.task.health.verdict) == (TaskState.RUNNING, False)
    assert world.task.reason.code == "unhealthy"


def test_program_without_a_check_is_healthy_after_the_settling_time(world, spec):
    world.order(spec())
    started_s = world.now_s
    assert world.task.health.verdict is None
    assert world.wait() == ()
    assert world.now_s - started_s == health.SETTLE_S
    assert world.task.health.verdict is True
