"""Jobs take turns when pods are ordered, so that nobody waits for all pods of a large job."""

from __future__ import annotations

from collections import Counter

from galaxy.appmaster.logic import AppMasterConfig
from galaxy.model.messages.names import APPMASTER, POD_DEPLOY
from galaxy.testing.simulation.bus import REPORT
from tests.unit.appmaster.world import World, batch, service, with_deploy

LARGE = {"cpu_milli": 1_000_000, "memory_bytes": 1 << 40, "disk_bytes": 1 << 40}
REPLICAS = 200


def world(orders: int) -> World:
    return World(hosts=8, sizes=(LARGE,), config=AppMasterConfig(orders_per_step_max=orders))


def ordered(world: World) -> Counter[str]:
    """Return how many pods of each job were ordered, by its name."""
    pods = {order.pod for send in world.sends if send.task == POD_DEPLOY for order in send.body.orders}
    return Counter(pod.rpartition("-")[0] for pod in pods)


def test_pod_of_a_small_job_is_ordered_while_pods_of_a_large_one_wait() -> None:
    shared = world(orders=2)
    large = shared.submit(batch("large", start="serve", replica=REPLICAS))
    shared.run_until(lambda: ordered(shared)["large"] > 0, 2.0)
    small = shared.submit(batch("small", start="serve", replica=1))
    shared.run_until(lambda: ordered(shared)["small"] > 0, 2.0)
    assert ordered(shared)["large"] < REPLICAS
    shared.settle(small)
    shared.settle(large)


def test_first_pods_of_a_large_job_run_while_others_wait_for_their_orders() -> None:
    shared = world(orders=2)
    large = shared.submit(batch("large", start="serve", replica=REPLICAS))
    shared.run_until(lambda: bool(shared.programs()), 2.0)
    assert ordered(shared)["large"] < REPLICAS
    shared.settle(large)


def test_stop_of_a_large_job_reaches_every_pod_in_turns() -> None:
    shared = world(orders=16)
    job = shared.submit(service("web", replica=REPLICAS, drain=0.0))
    shared.settle(job)
    shared.do("stop", job)
    shared.settle(job, "stopped")
    assert not shared.programs()


def test_pods_of_a_removed_job_that_wait_for_orders_are_forgotten() -> None:
    shared = world(orders=1)
    job = shared.submit(service("web", replica=REPLICAS))
    shared.run_until(lambda: ordered(shared)["web"] > 0, 2.0)
    shared.do("remove", job)
    shared.run_until(lambda: job not in shared.master.state.jobs, 60.0)
    shared.run(1.0)
    assert not shared.master.state.awaiting_order
    assert not shared.programs()


def test_pods_that_wait_for_orders_get_them_from_the_next_leader() -> None:
    shared = world(orders=4)
    job = shared.submit(service("web", replica=REPLICAS))
    shared.run_until(lambda: ordered(shared)["web"] > 0, 2.0)
    shared.failover()
    shared.settle(job)


def test_update_of_a_large_job_is_ordered_in_turns() -> None:
    shared = world(orders=16)
    job = shared.submit(service("web", replica=REPLICAS, drain=0.0, step=REPLICAS))
    shared.settle(job)
    shared.update(job, with_deploy(service("web", start="serve v2", replica=REPLICAS), step=REPLICAS))
    shared.settle(job)
    assert set(shared.programs().values()) == {"serve v2"}


def test_orders_whose_acknowledgements_are_lost_are_sent_again_a_few_at_a_time() -> None:
    config = AppMasterConfig(resends_per_step_max=10)
    lossy = World(hosts=8, sizes=(LARGE,), config=config)
    lossy.scenario.bus.loses = lambda send: send.task == REPORT and send.queue == APPMASTER
    job = lossy.submit(batch("large", start="serve", replica=REPLICAS))
    lossy.run_until(lambda: len(lossy.programs()) == REPLICAS, 10.0)
    lossy.sends.clear()
    steps = lossy.leader.ticks
    lossy.run(2.5)
    sent = sum(len(send.body.orders) for send in lossy.sends if send.task == POD_DEPLOY)
    assert 0 < sent <= 10 * (lossy.leader.ticks - steps)
    lossy.scenario.bus.loses = None
    lossy.settle(job)
