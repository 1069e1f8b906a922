"""The checkers of a simulated cluster notice what has changed since they ran last."""

from __future__ import annotations

import msgspec
import pytest

from galaxy.testing.simulation.appworker import SimulatedAppWorker
from galaxy.testing.simulation.checkers.violation import Violation
from galaxy.testing.simulation.faults import NO_FAULTS
from galaxy.testing.simulation.simulated_cluster import SimulatedCluster


@pytest.fixture
def cluster() -> SimulatedCluster:
    """A cluster in which a program runs, and which was checked after its last step."""
    cluster = SimulatedCluster(1, NO_FAULTS)
    for second in range(1, 120):
        cluster.world.run(float(second), cluster.check)
        if any(host.living for host in cluster.hosts):
            return cluster
    raise AssertionError("nothing runs")


def worker_of(cluster: SimulatedCluster) -> SimulatedAppWorker:
    return next(worker for host in cluster.hosts for worker in host.living.values())


def next_steps(cluster: SimulatedCluster) -> None:
    outcome = cluster.run()
    if outcome.failure:
        raise Violation(outcome.failure)


def test_container_that_grows_beyond_its_host_is_noticed_at_once(cluster: SimulatedCluster) -> None:
    worker, before = worker_of(cluster), cluster.world.steps
    (task, *others) = worker.demand.tasks
    task = msgspec.structs.replace(task, memory_bytes=2**50)
    worker.demand = msgspec.structs.replace(worker.demand, tasks=(task, *others))
    with pytest.raises(Violation, match="memory_bytes"):
        next_steps(cluster)
    assert cluster.world.steps == before + 1


def test_host_that_shrinks_below_what_it_runs_is_noticed_at_once(cluster: SimulatedCluster) -> None:
    before = cluster.world.steps
    (host,) = (host for host in cluster.hosts if worker_of(cluster) in host.living.values())
    host.info = msgspec.structs.replace(host.info, memory_bytes=1)
    with pytest.raises(Violation, match="memory_bytes"):
        next_steps(cluster)
    assert cluster.world.steps == before + 1


def test_agent_that_forgets_an_epoch_is_noticed(cluster: SimulatedCluster) -> None:
    host = next(host for host in cluster.hosts if host.logic is not None and host.living)
    assert host.logic is not None
    epochs = host.logic.tables["epochs"]
    for key, row in list(epochs.items()):
        epochs.put(key, msgspec.structs.replace(row, epoch=0))
    with pytest.raises(Violation, match="went back to epoch"):
        next_steps(cluster)


def test_pod_that_counts_as_up_in_another_incarnation_is_noticed(cluster: SimulatedCluster) -> None:
    cluster.world.run(cluster.world.elapsed_s + 10.0, cluster.check)
    (leader,) = (one for one in cluster.leaders if one.role == "appmaster" and one.leads)
    pods = leader.table("pods")
    pod = next(pod for pod in pods.values() if pod.up)
    pods.put(pod.pod, msgspec.structs.replace(pod, incarnation=pod.incarnation + 50))
    with pytest.raises(Violation, match="as up"):
        next_steps(cluster)
