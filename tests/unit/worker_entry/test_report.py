"""The state and health of a pod, derived from its tasks."""

from __future__ import annotations

import itertools

import pytest

from galaxy.model.messages.pod import PodOrder, PodState, TaskState
from galaxy.worker_entry.logic.records import Health, ReloadPhase, SupervisedPod, SupervisedTask
from galaxy.worker_entry.logic.report import WORST_FIRST, observe, state_of


def pod_of(spec, *tasks, run=True):
    order = PodOrder(
        pod="p", incarnation=1, generation=3, job="j", index=0, revision=1, run=run,
        tasks=tuple(task.spec for task in tasks),
    )  # fmt: skip
    return SupervisedPod(known=("a", "b"), order=order, tasks=tasks)


@pytest.mark.parametrize(("first", "second"), list(itertools.product(TaskState, TaskState)))
def test_pod_is_in_the_state_of_its_worst_task(spec, first, second):
    tasks = [
        SupervisedTask(spec=spec(name=name), state=state) for name, state in (("a", first), ("b", second))
    ]
    pod = pod_of(spec, *tasks)
    worst = min(first, second, key=WORST_FIRST.index)
    assert state_of(pod) == worst.value
    assert set(WORST_FIRST) == set(TaskState)


def test_pod_without_an_order_is_pending_at_generation_0():
    report = observe(SupervisedPod(known=()), pod_id="p", incarnation=2, pid=7, ports={"x": 1})
    assert (report.state, report.generation, report.incarnation, report.pid) == (PodState.PENDING, 0, 2, 7)
    assert not report.healthy


@pytest.mark.parametrize(
    ("states", "verdicts", "healthy"),
    [
        ("running running", (True, True), True),
        ("running running", (True, None), False),
        ("running running", (True, False), False),
        ("running finished", (True, None), True),
        ("running backoff", (True, True), False),
        ("finished finished", (None, None), False),
    ],
)
def test_pod_is_healthy_when_every_running_program_is_healthy(spec, states, verdicts, healthy):
    tasks = [
        SupervisedTask(spec=spec(name=name), state=TaskState(state), health=Health(verdict=verdict))
        for name, state, verdict in zip("ab", states.split(), verdicts, strict=True)
    ]
    assert observe(pod_of(spec, *tasks), pod_id="p", incarnation=1, pid=1, ports={}).healthy == healthy


def test_program_whose_new_data_is_not_loaded_is_not_healthy(spec):
    task = SupervisedTask(
        spec=spec(name="a"), state=TaskState.RUNNING, health=Health(verdict=True), reload=ReloadPhase.COMMAND
    )
    report = observe(pod_of(spec, task), pod_id="p", incarnation=1, pid=1, ports={})
    assert (report.state, report.healthy, report.tasks[0].healthy) == (PodState.RUNNING, False, False)
