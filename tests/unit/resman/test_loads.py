"""What is stored of the load of each agent, and of all together, so that queries read a few rows."""

from __future__ import annotations

from collections import Counter

from msgspec.structs import replace

from galaxy.model.messages.agent import AgentState
from galaxy.model.messages.names import RESMAN
from galaxy.model.resources import NOTHING
from galaxy.resman.logic.state.loads import RECORDED_MAX
from galaxy.testing.simulation.faults import NO_FAULTS
from tests.unit.resman.cluster import Cluster, demand, info


def check(cluster: Cluster) -> None:
    """Compare every stored load and the sums with the containers."""
    state = cluster.resman.state
    for name, record in state.agents.items():
        load = state.loads[name]
        rows = [(key, state.containers[key]) for key in state.containers.where("agent", name)]
        assert load.containers == tuple(sorted({row.container for _, row in rows}))
        assert load.assigned == sum((state.load_of(*pair).resources for pair in rows), start=NOTHING)
        assert (load.state, load.total) == (record.state, record.info.resources)
    alive = [load for load in state.loads.values() if load.state is not AgentState.DEAD]
    stored = state.sums["all"]
    assert stored.agents == dict(Counter(str(record.state) for record in state.agents.values()))
    assert stored.total == sum((load.total for load in alive), start=NOTHING)
    assert stored.assigned == sum((load.assigned for load in alive), start=NOTHING)


def test_loads_follow_containers_that_come_and_go() -> None:
    cluster = Cluster(info("h1"), info("h2"))
    check(cluster)
    cluster.order("web", 5, demand(cpu=500, ports=(0, 7000)))
    cluster.settle()
    check(cluster)
    assert cluster.resman.state.sums["all"].assigned.containers == len(cluster.agents_of("web"))
    cluster.order("web", 1)
    cluster.settle()
    check(cluster)
    cluster.order("web", 0, remove=True)
    cluster.settle()
    check(cluster)
    assert cluster.resman.state.sums["all"].assigned == NOTHING


def test_dead_agent_does_not_count_and_counts_again_when_it_returns() -> None:
    cluster = Cluster(*(info(f"h{number}") for number in range(1, 5)))
    cluster.order("web", 4)
    cluster.settle()
    cluster.cut_off("h1")
    cluster.run_until(lambda: cluster.resman.state.sums["all"].agents.get("dead") == 1, 60.0)
    check(cluster)
    cluster.reconnect()
    cluster.run_until(lambda: cluster.resman.state.sums["all"].agents == {"alive": 4}, 60.0)
    cluster.settle()
    check(cluster)


def test_loads_are_right_after_failover() -> None:
    cluster = Cluster(info("h1"), info("h2"))
    for round_ in range(3):
        cluster.order("web", 2 + round_)
        cluster.run(0.01 * round_)
        cluster.failover(RESMAN)
        cluster.run(3.0)
        check(cluster)


def test_loads_are_right_after_steps_that_raise() -> None:
    faults = replace(NO_FAULTS, step_fault=0.2)
    cluster = Cluster(info("h1"), info("h2"), seed=5, faults=faults)
    for replicas in (3, 1, 4):
        cluster.order("web", replicas, demand(cpu=500))
        cluster.run(5.0)
    cluster.world.end_faults()
    cluster.run(10.0)
    check(cluster)


def test_loads_of_more_agents_than_one_step_records_follow_soon() -> None:
    agents = [info(f"h{number}") for number in range(1, 2 * RECORDED_MAX + 20)]
    cluster = Cluster(*agents)
    cluster.order("web", len(agents), demand(cpu=10))
    cluster.settle()
    cluster.run(0.3)
    check(cluster)
