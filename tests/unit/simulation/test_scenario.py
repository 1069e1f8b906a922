"""The cluster that unit tests drive: production logic on the simulator's hosts, bus and store."""

from __future__ import annotations

from galaxy.model.api.jobs import SubmitJob
from galaxy.model.api.request import Request
from galaxy.model.jobspec.parsing import load
from galaxy.model.messages.container import ContainerOrders
from galaxy.model.messages.names import APPMASTER, RESMAN
from galaxy.model.stored.agent import AgentRecord
from galaxy.model.stored.cluster import AgentSums
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


def agent_state(scenario: Scenario, host: str) -> str:
    return str(scenario.stored(RESMAN, "agents", AgentRecord)[host].state)


def living(scenario: Scenario) -> int:
    return sum(len(host.living) for host in scenario.hosts.values())


def left(scenario: Scenario) -> dict[str, int]:
    return scenario.stored(RESMAN, "sums", AgentSums)["all"].left


def test_agent_that_is_stopped_on_purpose_gets_nothing_more_at_once_and_is_back_when_it_starts() -> None:
    scenario = Scenario()
    scenario.hosts["h1"].stop_agent(8.0)
    scenario.run_until(lambda: agent_state(scenario, "h1") == "suspect", 2.5)
    job = submit(scenario)
    assert {scenario.worker(f"{job}.{index}").host for index in range(2)} == {"h2", "h3"}
    scenario.run_until(lambda: agent_state(scenario, "h1") == "alive", 15.0)
    assert len(scenario.programs_started) == 2


def test_programs_of_a_stopped_agent_run_on_and_are_kept_when_it_returns_in_time() -> None:
    scenario = Scenario()
    job = submit(scenario)
    host = scenario.worker(f"{job}.0").host
    scenario.hosts[host].stop_agent(5.0)
    scenario.run(40.0)
    assert len(scenario.programs_started) == 2
    assert scenario.worker(f"{job}.0").host == host


def test_old_programs_on_a_host_without_an_agent_are_counted_until_it_returns() -> None:
    scenario = Scenario()
    job = submit(scenario)
    host = scenario.worker(f"{job}.0").host
    scenario.hosts[host].stop_agent(150.0)
    scenario.run_until(lambda: left(scenario) == {host: 1}, 120.0)
    scenario.run_until(lambda: living(scenario) == 3, 10.0)
    scenario.run_until(lambda: agent_state(scenario, host) == "alive", 200.0)
    scenario.run_until(lambda: left(scenario) == {}, 30.0)
    scenario.run_until(lambda: living(scenario) == 2, 60.0)


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
