"""Convergence: messages get lost, doubled and delayed, and the observed state becomes the desired one."""

import itertools
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from galaxy.appmaster.logic import AppMaster
from galaxy.appmaster.logic.jobs.groups import build_order
from galaxy.model.base import WIRE_VERSION
from galaxy.model.messages.agent import Heartbeat, HeartbeatsRead
from galaxy.model.messages.container import ContainerState, GroupStatus, GroupStatuses, SlotStatus
from galaxy.model.messages.names import APPMASTER, GROUP_APPLY, POD_DEPLOY, RESMAN, appworker_queue
from galaxy.model.messages.pod import PodState
from galaxy.model.stored.job import PodRecord
from galaxy.testing.simulation.bus import REPORT
from galaxy.testing.simulation.faults import message_faults
from tests.unit.appmaster.world import FOREVER_S, NEVER, World, batch, lose_for_good, service, with_task

SCENARIO: list[tuple[str, Callable[[World, str], object]]] = [
    ("running", lambda world, job: world.settle(job, within_s=300)),
    ("updated", lambda world, job: world.update(job, with_task(service(), start="serve v2"))),
    ("running", lambda world, job: world.settle(job, within_s=300)),
    ("stopped", lambda world, job: world.do("stop", job)),
    ("stopped", lambda world, job: world.settle(job, "stopped", within_s=300)),
    ("started", lambda world, job: world.do("start", job)),
    ("running", lambda world, job: world.settle(job, within_s=300)),
    ("scaled", lambda world, job: world.update(job, with_task(service(replica=5), start="serve v2"))),
    ("running", lambda world, job: world.settle(job, within_s=300)),
    ("scaled", lambda world, job: world.update(job, with_task(service(replica=2), start="serve v2"))),
    ("running", lambda world, job: world.settle(job, within_s=300)),
]


def generations_grow(world: World) -> None:
    """Check from now on that no (pod, generation) is sent with two contents."""
    seen: dict[tuple[str, int], object] = {}

    def check() -> None:
        for send in world.sends:
            for order in getattr(send.body, "orders", ()):
                if send.task == POD_DEPLOY:
                    assert seen.setdefault((order.pod, order.generation), order) == order
        world.sends.clear()

    world.watchers.append(check)


@pytest.mark.parametrize("seed", range(16))
def test_service_on_a_faulty_bus_with_failovers_reaches_every_desired_state(seed: int) -> None:
    world = World(seed=seed, faults=message_faults(lose=0.15, double=0.15, late_s=0.6))
    world.crash_in_ticks(world.random.sample(range(1, 800), 20))
    generations_grow(world)
    job = world.submit(service())
    for _, act in SCENARIO:
        act(world, job)
    assert sorted(world.programs()) == [f"{job}.0", f"{job}.1"]
    assert set(world.programs().values()) == {"serve v2"}
    assert len(world.endpoints("web")) == 2
    world.do("remove", job)
    world.run_until(lambda: job not in world.master.state.jobs, 300)
    world.run(60)
    assert world.programs() == {}
    assert world.slots(job) == []
    assert world.scenario.workers() == {}
    assert {name for name, rows in world.store.items() if rows} <= {"answers", "history", "liveness"}


@pytest.mark.parametrize("seed", range(8))
def test_job_whose_hosts_and_leaders_are_lost_in_turn_runs_again(seed: int) -> None:
    world = World(hosts=6, seed=seed, faults=message_faults(lose=0.1, double=0.1, late_s=0.3))
    job = world.submit(service(replica=4))
    world.settle(job, within_s=300)
    for name in world.random.sample(sorted(world.hosts), 3):
        lose_for_good(world.hosts[name])
        world.run(world.random.uniform(0, 8))
        world.failover()
    world.run(30)
    world.settle(job, within_s=300)
    assert len(world.programs()) == 4
    assert len(world.endpoints("web")) == 4


def test_leader_lost_between_commit_and_send_is_replaced_without_harm_at_every_step() -> None:
    for crash in range(1, 61):
        world = World()
        world.crash_in_ticks([crash])
        job = world.submit(service(replica=2))
        world.settle(job)
        world.update(job, with_task(service(replica=2), start="serve v2"))
        world.settle(job)
        assert set(world.programs().values()) == {"serve v2"}
        assert world.starts().total() == 4


def test_unacknowledged_order_is_sent_again_with_growing_pauses() -> None:
    world = World()
    world.scenario.bus.loses = lambda send: send.task == REPORT and send.queue == APPMASTER
    world.submit(service(replica=1))
    assert _pauses(world, 60.0) == [1, 2, 4, 8, 15, 15]


def test_order_is_sent_again_less_often_while_its_container_is_created() -> None:
    world = World()
    world.scenario.launches_take(1000.0)
    world.submit(service(replica=1))
    assert _pauses(world, 60.0) == [5, 5, 5, 8, 15, 15]


def test_order_that_was_lost_is_sent_again_soon_after_its_container_is_created() -> None:
    world = World()
    world.scenario.launches_take(30.0)
    world.scenario.bus.loses = lambda send: send.task == POD_DEPLOY
    job = world.submit(service(replica=1))
    world.run_until(lambda: bool(world.scenario.workers()), 60.0)
    world.scenario.bus.loses = None
    assert world.settle(job) < 3.0


@pytest.mark.parametrize("verb", ["stop", "remove"])
@pytest.mark.parametrize("away_s", [40.0, 44.0, 48.0, 52.0])
def test_host_that_returns_after_its_orders_expired_gets_them_again_at_once(verb: str, away_s: float) -> None:
    world = World(hosts=2)  # Both are away, which is a mass loss: no pod is placed elsewhere.
    job = world.submit(service(replica=2))
    world.settle(job)
    world.run(15)
    for host in world.hosts.values():
        host.cut_off(away_s)
    world.run(10)
    world.do(verb, job)
    world.run(away_s - 10)
    assert len(world.programs()) == 2
    world.run_until(lambda: not world.programs(), within_s=4.5)


def _pauses(world: World, seconds: float) -> list[int]:
    """Return the rounded pauses between the messages with orders in the next ``seconds``."""
    sent: list[float] = []
    count = 0
    for _ in range(round(seconds / 0.05)):
        world.run(0.05)
        now = [send for send in world.sends if send.task == POD_DEPLOY and send.body.orders]
        if len(now) > count:
            count = len(now)
            sent.append(world.now)
    assert len({order.generation for send in now for order in send.body.orders}) == 1
    return [round(later - sooner) for sooner, later in itertools.pairwise(sent)]


def test_agent_with_an_unread_report_is_asked_for_nothing_and_sent_no_order_again() -> None:
    world = World(hosts=1)
    world.run(5)
    leader = world.scenario.leaders[APPMASTER]
    leader.reports_hang = True
    world.run(1.5)
    world.sends.clear()
    job = world.submit(service(replica=4))
    world.run(30)
    assert len(world.programs()) == 4
    orders = [send.body for send in world.sends if send.task == POD_DEPLOY]
    assert sum(len(order.orders) for order in orders) == 4
    assert [order for order in orders if order.report] == []
    leader.reports_hang = False
    world.settle(job)
    orders = [send.body for send in world.sends if send.task == POD_DEPLOY]
    assert sum(len(order.orders) for order in orders) == 4


def test_settled_group_is_asked_about_every_ten_seconds() -> None:
    world = World()
    world.settle(world.submit(service()))
    world.sends.clear()
    world.run(100)
    assert 9 <= sum(send.task == GROUP_APPLY for send in world.sends) <= 11


def test_settled_cluster_sends_no_pod_order() -> None:
    world = World()
    world.settle(world.submit(service()))
    world.run(5)
    world.sends.clear()
    world.run(100)
    assert [send for send in world.sends if send.task == POD_DEPLOY] == []


def test_settled_cluster_writes_nothing() -> None:
    world = World()
    world.settle(world.submit(service()))
    world.run(15)
    before = {name: dict(rows) for name, rows in world.store.items()}
    world.run(60)
    assert {name: dict(rows) for name, rows in world.store.items()} == before


def test_digest_that_differs_makes_the_leader_ask_for_a_full_report() -> None:
    world = World()
    job = world.submit(with_task(service(replica=1), restart=NEVER))
    world.settle(job)
    world.run(5)
    world.sends.clear()
    host = world.host(f"{job}.0")
    world.scenario.bus.loses = lambda send: send.task == REPORT and send.queue == APPMASTER
    world.worker(f"{job}.0").end(1)
    world.run(0.5)
    world.scenario.bus.loses = None
    assert len(world.endpoints("web")) == 1
    world.run(5)
    asked = [send for send in world.sends if send.task == POD_DEPLOY and send.body.report]
    assert [send.body.agent for send in asked] == [host.name]
    assert world.endpoints("web") == ()


def test_late_report_does_not_undo_a_newer_one() -> None:
    world = World()
    job = world.submit(service(replica=1))
    world.settle(job)
    pod = world.master.state.pods[f"{job}.0"]
    assert pod.observed is not None
    late = replace(pod.observed, state=PodState.DEPLOYING, healthy=False)
    world.feed(replace(world.last_report(pod.agent), serial=1, pods=(late,)))
    assert world.master.state.pods[pod.pod] == pod


def test_late_report_of_a_program_that_an_order_stops_does_not_publish_it_again() -> None:
    world = World()
    spec = service(replica=1, drain=0.0)
    job = world.submit(spec)
    world.settle(job)
    pod = world.master.state.pods[f"{job}.0"]
    world.update(job, with_task(spec, start="serve v2"))
    assert world.endpoints("web") == ()
    assert pod.observed is not None
    old_and_well = replace(pod.observed, pid=1)
    world.feed(replace(world.last_report(pod.agent), pods=(old_and_well,)))
    assert world.endpoints("web") == ()


def test_late_report_of_an_earlier_agent_process_changes_nothing() -> None:
    world = World()
    job = world.submit(service(replica=1))
    world.settle(job)
    pod = world.master.state.pods[f"{job}.0"]
    last = world.last_report(pod.agent)
    world.hosts[pod.agent].crash()
    world.run(10)
    assert world.hosts[pod.agent].info.boot != last.boot
    assert pod.observed is not None
    stale = replace(pod.observed, state=PodState.FAILED, healthy=False)
    world.feed(replace(last, serial=999, pods=(stale,)))
    assert world.master.state.pods[pod.pod] == pod


def test_late_report_of_an_earlier_incarnation_changes_nothing() -> None:
    world = World(hosts=1)
    job = world.submit(service(replica=1))
    world.settle(job)
    before = world.master.state.pods[f"{job}.0"]
    assert before.observed is not None
    world.worker(before.pod).die()
    world.run(10)
    now = world.master.state.pods[before.pod]
    assert now.incarnation == before.incarnation + 1
    failed = replace(before.observed, state=PodState.FAILED)
    assert now.agent == before.agent
    world.feed(replace(world.last_report(before.agent), serial=999, pods=(failed,)))
    assert world.master.state.pods[before.pod] == now


def test_container_reported_lost_and_then_ready_serves_on_without_a_restart() -> None:
    world = World()
    job = world.submit(service(replica=1))
    world.settle(job)
    pod = world.master.state.pods[f"{job}.0"]

    def report(state: ContainerState, agent: str) -> None:
        slot = SlotStatus(
            container=pod.pod,
            incarnation=pod.incarnation,
            state=state,
            agent=agent,
            address=agent,
            ports=pod.ports,
        )
        world.feed(GroupStatuses(statuses=(GroupStatus(group=job, epoch=1, serial=1, slots=(slot,)),)))

    report(ContainerState.PENDING, "")
    assert world.endpoints("web") == ()
    assert world.state(job) == "running"
    report(ContainerState.READY, pod.agent)
    world.settle(job)
    assert len(world.endpoints("web")) == 1
    assert world.starts().total() == 1


def test_late_status_of_an_earlier_incarnation_changes_nothing() -> None:
    world = World()
    job = world.submit(service(replica=1))
    world.settle(job)
    old = world.last_slot(f"{job}.0")
    lose_for_good(world.hosts[old.agent])
    world.run(20)
    world.settle(job)
    before = world.master.state.pods[f"{job}.0"]
    assert before.incarnation == 2
    world.feed(GroupStatuses(statuses=(GroupStatus(group=job, epoch=1, serial=1, slots=(old,)),)))
    assert world.master.state.pods[f"{job}.0"] == before


def test_full_report_without_a_pod_withdraws_its_endpoint_until_it_is_reported_again() -> None:
    world = World()
    job = world.submit(service(replica=1))
    world.settle(job)
    pod: PodRecord = world.master.state.pods[f"{job}.0"]
    last = world.last_report(pod.agent)
    world.feed(replace(last, serial=last.serial + 1, full=True, pods=()))
    assert world.endpoints("web") == ()
    world.settle(job)
    assert world.starts().total() == 1


def test_agent_without_heartbeats_and_pods_is_dropped() -> None:
    world = World()
    world.feed(
        HeartbeatsRead(
            now_s=world.now,
            heartbeats=(Heartbeat(agent="gone", at_s=world.now, boot="b", wire=WIRE_VERSION),),
        )
    )
    world.run(3)
    assert set(world.master.agents) <= set(world.hosts)


def test_silent_agent_is_sent_no_more_orders() -> None:
    world = World()
    job = world.submit(service(replica=3))
    world.settle(job)
    silent = world.host(f"{job}.0")
    silent.cut_off(FOREVER_S)
    world.scenario.leaders[RESMAN].pause(FOREVER_S)  # So that the pod is not placed elsewhere.
    world.update(job, with_task(service(replica=3, step=3), start="serve v2"))
    world.run(60)
    world.sends.clear()
    world.run(600)
    assert [send for send in world.sends if send.queue == appworker_queue(silent.name)] == []


def test_status_of_an_unknown_group_and_unknown_events_change_nothing() -> None:
    world = World()
    before = {name: dict(rows) for name, rows in world.store.items()}
    world.feed(GroupStatuses(statuses=(GroupStatus(group="x-1", epoch=1, serial=1, full=True),)))
    world.feed(object())
    assert {name: dict(rows) for name, rows in world.store.items()} == before


def test_resman_without_the_group_is_sent_its_order_again() -> None:
    world = World()
    job = world.submit(service(replica=1))
    world.settle(job)
    world.sends.clear()
    world.feed(GroupStatuses(statuses=(GroupStatus(group=job, epoch=1, serial=0, known=False),)))
    assert [send.body.orders[0].group for send in world.sends if send.task == GROUP_APPLY] == [job]


def test_leader_recovers_from_a_step_that_raised() -> None:
    world = World()
    job = world.submit(service(replica=1))
    broken = GroupStatuses(statuses=(None,))  # type: ignore[arg-type]
    world.feed(broken)
    assert world.leader.poisonous == 1
    world.settle(job)


def test_leader_that_recovers_and_a_new_one_derive_the_same_from_the_same_tables() -> None:
    world = World(hosts=4)
    world.settle(world.submit(service("steady")))
    updated = world.submit(service("updated"))
    world.settle(updated)
    world.update(updated, with_task(service("updated"), start="fail", restart=NEVER))
    world.run_until(lambda: world.state(updated) == "stalled", 30)
    world.settle(world.submit(batch()), "finished")
    cut = world.host(f"{updated}.0")
    cut.cut_off(FOREVER_S)  # So that orders stay unacknowledged.
    world.do("stop", updated)
    world.run(3)

    def sends(leader: AppMaster) -> list[tuple[int, str, object]]:
        """Return what ``leader`` sends within 20 seconds in which nothing but heartbeats arrives."""
        sent = []
        for second in range(20):
            now_s = world.now + second
            heartbeats = tuple(
                replace(heartbeat, at_s=now_s) for heartbeat in world.scenario.nexus.heartbeats().heartbeats
            )
            step = leader.step(now_s, [HeartbeatsRead(now_s=now_s, heartbeats=heartbeats)])
            sent += [(second, send.queue, send.body) for send in step.sends]
        return sent

    new = AppMaster(world.config)
    for name, table in new.tables.items():
        table.load(world.store.get(name, {}).items())
    new.lead(world.leader.epoch, world.now)
    world.master.recover(world.now)
    expected = sends(new)
    assert {queue for _, queue, _ in expected} >= {"resman", appworker_queue(cut.name)}
    assert sends(world.master) == expected


def test_gap_in_the_statuses_of_a_group_makes_the_next_order_ask_for_everything() -> None:
    world = World()
    job = world.submit(service(replica=2))
    world.settle(job)
    pod = world.master.state.pods[f"{job}.0"]
    slot = SlotStatus(
        container=pod.pod, incarnation=pod.incarnation, state=ContainerState.READY, agent=pod.agent,
        address=pod.agent, ports=pod.ports,
    )  # fmt: skip

    epoch = world.scenario.leaders[RESMAN].epoch + 1

    def seen_after(since: int, version: int, *, full: bool = False) -> tuple[int, int]:
        slots = tuple(world.last_slot(pod) for pod in (f"{job}.0", f"{job}.1")) if full else (slot,)
        status = GroupStatus(
            group=job, epoch=epoch, serial=1, slots=slots, full=full, since=since, version=version
        )
        world.feed(GroupStatuses(statuses=(status,)))
        order = build_order(world.master.state, world.master.state.jobs[job])
        return order.seen_epoch, order.seen

    assert seen_after(5, 5, full=True) == (epoch, 5)
    assert seen_after(5, 6) == (epoch, 6)
    assert seen_after(5, 6) == (epoch, 6), "the same twice is once"
    assert seen_after(7, 8) == (0, 0)
    assert seen_after(8, 9) == (0, 0), "the gap is not closed by what comes after it"
    assert seen_after(9, 9, full=True) == (epoch, 9)


def test_late_status_does_not_undo_a_newer_one() -> None:
    world = World()
    job = world.submit(service(replica=1))
    world.settle(job)
    pod = world.master.state.pods[f"{job}.0"]
    there = world.last_slot(f"{job}.0")
    epoch = world.scenario.leaders[RESMAN].epoch + 1
    late = replace(there, state=ContainerState.PENDING, agent="")
    for version, slot in ((7, there), (6, late)):
        status = GroupStatus(
            group=job, epoch=epoch, serial=1, slots=(slot,), full=True, since=version, version=version
        )
        world.feed(GroupStatuses(statuses=(status,)))
    assert world.master.state.pods[pod.pod].placed
