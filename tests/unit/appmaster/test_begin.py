"""A new leadership of AppMaster reconciles all jobs in pieces, so that it answers requests meanwhile."""

from __future__ import annotations

from galaxy.appmaster.logic import AppMaster, AppMasterConfig
from galaxy.model.api.jobs import StopJob
from galaxy.model.messages.names import APPMASTER
from tests.unit.appmaster.world import World, service

JOBS = 5
CONFIG = AppMasterConfig(begin_pods_max=4)
"""Two jobs of two pods are more than that, with one more for each job."""


def world() -> World:
    world = World(config=CONFIG)
    for number in range(JOBS):
        world.submit(service(f"web{number}", replica=2))
    world.run_until(lambda: all(pod.up for pod in world.master.state.pods.values()), 60.0)
    return world


def test_each_step_of_a_new_leadership_takes_a_few_jobs_and_asks_for_the_next_step_at_once() -> None:
    cluster = world()
    successor = AppMaster(cluster.config)
    cluster.scenario.nexus.load(APPMASTER, successor.tables.values())
    successor.lead(cluster.leader.epoch + 1, cluster.now)
    wakes = [successor.step(cluster.now, []).wake_s for _ in range(4)]
    assert wakes[:2] == [cluster.now, cluster.now]
    assert wakes[3] is None or wakes[3] > cluster.now


def test_every_job_reaches_its_desired_state_after_a_failover() -> None:
    cluster = world()
    for number in range(JOBS):
        cluster.crash_in_ticks([1])
        cluster.request(StopJob(job=f"web{number}"))
    cluster.failover()
    cluster.run_until(lambda: all(not pod.up for pod in cluster.master.state.pods.values()), 60.0)
    assert len(cluster.master.state.pods) == 2 * JOBS
