"""A job of one pod that is submitted into a burst does not wait for the burst."""

from __future__ import annotations

from galaxy.appmaster.logic import AppMaster, AppMasterConfig
from galaxy.model.api.jobs import SubmitJob
from galaxy.model.api.request import Request
from galaxy.model.jobspec.parsing import load
from galaxy.model.messages.names import APPMASTER
from galaxy.model.step import Send
from galaxy.model.stored.job import PodPhase
from galaxy.resman.logic import ResMan, ResManConfig
from galaxy.resman.logic.placement.placement import SHARE_MIN
from galaxy.testing.simulation.leader import TICK_S
from galaxy.testing.simulation.scenario import Scenario

JOBS, REPLICAS, PER_STEP = 8, 150, 10
LARGE = {"cpu_milli": 1_000_000, "memory_bytes": 1 << 40, "disk_bytes": 1 << 40}
TURN_STEPS = -(-JOBS * SHARE_MIN // PER_STEP)
"""Steps in which every job of the burst has one turn. The burst needs ``JOBS * REPLICAS / PER_STEP``."""


def submit(scenario: Scenario, name: str, replica: int) -> None:
    tasks = [{"name": "main", "cpu": "10m", "memory": "16M", "start": "serve 1"}]
    spec = load({"name": name, "deploy": {"replica": replica}, "pod": {"workspace": "16M", "tasks": tasks}})
    body = SubmitJob(spec=spec)
    request = Request(op=body.op, key=name, reply=name, deadline_s=scenario.now_s + 60, user="ann", body=body)
    scenario.bus.send(Send(queue=APPMASTER, task=body.op, body=request, id=name))


def running(scenario: Scenario, name: str) -> int:
    """Return how many pods of a job AppMaster knows to run."""
    state = scenario.logic(APPMASTER).state
    return sum(pod.phase is PodPhase.RUNNING for key, pod in state.pods.items() if key.startswith(f"{name}-"))


def steps_until_it_runs(scenario: Scenario, name: str) -> int:
    """Submit a job of one pod; return after how many milliseconds it runs.

    A leader that has work takes one step in each.
    """
    submit(scenario, name, 1)
    for steps in range(1000):
        if running(scenario, name):
            return steps
        scenario.run(TICK_S)
    raise AssertionError(f"{name} does not run")


def test_job_of_one_pod_waits_for_one_turn_of_the_others_at_each_leader() -> None:
    scenario = Scenario(
        hosts=20,
        sizes=(LARGE,),
        resman=lambda: ResMan(ResManConfig(placements_max=PER_STEP)),
        appmaster=lambda: AppMaster(AppMasterConfig(orders_per_step_max=PER_STEP)),
    )
    scenario.run(15.0)
    alone = max(steps_until_it_runs(scenario, f"alone{number}") for number in range(3))
    names = [f"large{number}" for number in range(JOBS)]
    for name in names:
        submit(scenario, name, REPLICAS)
    scenario.run_until(lambda: running(scenario, names[0]) > 0, 5.0)
    in_burst = steps_until_it_runs(scenario, "small")
    assert sum(running(scenario, name) for name in names) < JOBS * REPLICAS
    assert in_burst <= alone + 2 * TURN_STEPS
