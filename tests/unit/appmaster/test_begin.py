"""A new leadership of AppMaster reconciles all jobs in pieces, so that it answers requests meanwhile."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.appmaster.logic import AppMaster, AppMasterConfig
from galaxy.model.api.jobs import StopJob
from galaxy.model.messages.agent import Heartbeat, HeartbeatsRead
from galaxy.model.messages.digest import digest_of_pod
from galaxy.model.messages.names import APPMASTER, POD_DEPLOY
from galaxy.model.stored.job import PodRecord
from galaxy.testing.simulation.bus import REPORT
from tests.unit.appmaster.world import NEVER, World, service, with_task

JOBS = 5
CONFIG = AppMasterConfig(begin_pods_max=4)
"""Two jobs of two pods are more than that, with one more for each job."""


def world() -> World:
    world = World(config=CONFIG)
    for number in range(JOBS):
        world.submit(with_task(service(f"web{number}", replica=2), restart=NEVER))
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


def test_no_agent_is_asked_for_a_report_because_its_pods_are_not_taken_up_yet() -> None:
    cluster = world()
    cluster.run(5.0)
    successor = AppMaster(cluster.config)
    cluster.scenario.nexus.load(APPMASTER, successor.tables.values())
    successor.lead(cluster.leader.epoch + 1, cluster.now)
    for _ in range(JOBS):
        step = successor.step(cluster.now, [cluster.scenario.nexus.heartbeats(APPMASTER)])
        assert not [send for send in step.sends if send.task == POD_DEPLOY and send.body.report]


def test_report_that_was_lost_during_a_failover_is_asked_for() -> None:
    cluster = world()
    cluster.run(5.0)
    (pod,) = (
        key for key in cluster.master.state.pods if key.startswith(f"web{JOBS - 1}-") and key[-1] == "1"
    )
    cluster.scenario.bus.loses = lambda send: send.task == REPORT and send.queue == APPMASTER
    cluster.worker(pod).end(1)
    cluster.failover()
    cluster.scenario.bus.loses = None
    assert cluster.master.state.pods[pod].up
    cluster.run_until(lambda: not cluster.master.state.pods[pod].up, 10.0)


def test_digest_has_what_was_reported_before_a_pod_was_taken_up() -> None:
    """The pod's record does not: the report is about an order before its last one."""
    cluster = world()
    pod = cluster.master.state.pods[next(reversed(tuple(cluster.master.state.pods)))]
    assert pod.observed is not None
    successor = AppMaster(cluster.config)
    cluster.scenario.nexus.load(APPMASTER, successor.tables.values())
    successor.lead(cluster.leader.epoch + 1, cluster.now)
    late = replace(pod.observed, generation=pod.observed.generation - 1, healthy=False)
    report = replace(cluster.last_report(pod.agent), boot="later", pods=(late,))
    digest = digest_of_pod(late.pod, late.incarnation, late.generation, late.state, False)
    successor.step(cluster.now, [report])
    for _ in range(JOBS):
        successor.step(cluster.now, [])
    assert successor.state.pods[pod.pod].observed == pod.observed
    beat = Heartbeat(agent=pod.agent, at_s=cluster.now, boot="later", pods=digest ^ others(cluster, pod))
    later_s = cluster.now + cluster.config.digest_settle_s + 1.0
    step = successor.step(later_s, [HeartbeatsRead(now_s=cluster.now, heartbeats=(beat,))])
    assert not [send for send in step.sends if send.task == POD_DEPLOY and send.body.report]


def others(cluster: World, pod: PodRecord) -> int:
    """Return the digest of what the agent of ``pod`` has reported about its other pods."""
    digest = 0
    for other in cluster.master.state.pods.values():
        seen = other.observed
        if other.agent == pod.agent and other.pod != pod.pod and seen is not None:
            digest ^= digest_of_pod(seen.pod, seen.incarnation, seen.generation, seen.state, seen.healthy)
    return digest
