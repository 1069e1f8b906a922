"""The cluster that unit tests drive: production logic on the simulator's hosts, bus and store."""

from __future__ import annotations

from galaxy.model.api.jobs import SubmitJob
from galaxy.model.api.request import Request
from galaxy.model.jobspec.parsing import load
from galaxy.model.messages.container import ContainerOrders
from galaxy.model.messages.names import APPMASTER, RESMAN
from galaxy.testing.simulation.scenario import Scenario

WEB = load(
    {
        "name": "web",
        "deploy": {"replica": 2, "max_per_host": 1},
        "pod": {"tasks": [{"name": "main", "cpu": "100m", "memory": "64M", "start": "serve 1"}]},
    }
)


def submit(scenario: Scenario) -> str:
    """Submit ``WEB`` and run until both of its programs run; return the job's id."""
    body = SubmitJob(spec=WEB)
    answer = scenario.request(
        Request(op=body.op, key="k1", reply="r1", deadline_s=scenario.now_s + 30, user="ann", body=body)
    )
    assert answer.problem is None, answer.problem
    scenario.run_until(lambda: len(scenario.programs()) == 2, 10.0)
    return str(answer.result["job"])


def test_submitted_job_runs_on_the_hosts() -> None:
    scenario = Scenario()
    job = submit(scenario)
    assert scenario.programs() == {f"{job}.0": "serve 1", f"{job}.1": "serve 1"}


def test_failover_of_each_leader_leaves_programs_running() -> None:
    scenario = Scenario()
    submit(scenario)
    scenario.failover(RESMAN)
    scenario.failover(APPMASTER)
    scenario.run(60.0)
    assert len(scenario.programs()) == 2
    assert len(scenario.programs_started) == 2


def test_lost_host_is_replaced() -> None:
    scenario = Scenario()
    job = submit(scenario)
    lost = scenario.worker(f"{job}.0").host
    scenario.hosts[lost].power_off(1e6)
    scenario.run_until(lambda: len(scenario.programs()) == 2, 120.0)
    assert scenario.worker(f"{job}.0").host != lost


def test_failed_launch_is_retried_on_another_host() -> None:
    scenario = Scenario()
    scenario.hosts["h1"].machine.launch_fails = lambda container, incarnation: True
    job = submit(scenario)
    assert {scenario.worker(f"{job}.{index}").host for index in range(2)} == {"h2", "h3"}


def test_new_leader_sends_no_order_before_it_has_read_heartbeats() -> None:
    scenario = Scenario()
    for host in scenario.hosts.values():
        host.machine.launch_s = 1000.0
    body = SubmitJob(spec=WEB)
    scenario.request(
        Request(op=body.op, key="k1", reply="r1", deadline_s=scenario.now_s + 30, user="ann", body=body)
    )
    scenario.run(1.0)
    scenario.sends.clear()
    scenario.failover(RESMAN)
    scenario.run(1.0)
    orders = [send.body for send in scenario.sends if isinstance(send.body, ContainerOrders)]
    assert sum(len(order.create) for order in orders) == 2
    assert all(order.until_s > scenario.now_s for order in orders)
