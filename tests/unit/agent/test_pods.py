"""Orders of AppMaster, and what AppWorkers say."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.agent.logic.effects import DeliverOrder
from galaxy.agent.logic.events import (
    ContainerDestroyed,
    HostInspected,
    RedisClockRead,
    ReportPublished,
    RunningContainer,
    UsageMeasured,
    WorkerLost,
    WorkerReported,
)
from galaxy.model.base import encode
from galaxy.model.jobspec.spec import CpuSpec, MemorySpec, TaskSpec
from galaxy.model.messages.digest import digest_of_pod
from galaxy.model.messages.names import APPMASTER, RESMAN
from galaxy.model.messages.pod import ObservedPod, PodState
from galaxy.model.stored.secret import EnvFrom, Secret
from tests.unit.agent.build import (
    POD,
    Driven,
    connected,
    create,
    creates,
    destroys,
    kinds,
    launched,
    order,
    orders,
    reported,
)


def ready() -> Driven:
    agent = Driven().begin()
    agent.step(creates(create()))
    agent.step(launched())
    agent.step(connected())
    agent.reports()
    return agent


def delivered(agent: Driven) -> list[int]:
    return [effect.order.generation for effect in agent.effects if isinstance(effect, DeliverOrder)]


def pods(agent: Driven) -> list[ObservedPod]:
    return [pod for report in agent.reports() for pod in report.pods]


def test_order_that_is_early_waits_until_container_and_worker_are_there() -> None:
    agent = Driven().begin()
    agent.step(orders(order()))
    agent.step(creates(create()))
    agent.step(launched())
    assert delivered(agent) == []
    agent.step(connected())
    assert delivered(agent) == [1]


def test_only_the_newest_generation_is_delivered() -> None:
    agent = ready()
    agent.step(orders(order(2)))
    assert delivered(agent) == [2]
    agent.step(orders(order(1)))
    assert delivered(agent) == []


def test_order_is_delivered_again_until_the_worker_says_that_it_obeyed() -> None:
    agent = ready()
    agent.step(orders(order(2)))
    agent.step(orders(order(2)))
    assert delivered(agent) == [2]
    agent.step(reported(PodState.RUNNING, 2))
    agent.step(orders(order(2)))
    assert delivered(agent) == []


def test_order_that_came_too_late_is_void_until_it_is_sent_again() -> None:
    agent = ready()
    agent.step(RedisClockRead(redis_s=1000.0))
    late = replace(orders(order(2)), until_s=999.0)
    agent.step(late)
    assert delivered(agent) == []
    agent.step(replace(late, until_s=1025.0))
    assert delivered(agent) == [2]


def test_order_is_refused_while_redis_clock_is_not_known() -> None:
    agent = Driven()
    agent.step(HostInspected(running=(RunningContainer(container=POD, incarnation=1, pid=4711),)))
    agent.step(connected())
    agent.step(orders(order(2)))
    assert delivered(agent) == []


def test_order_without_an_expiry_is_refused() -> None:
    agent = ready()
    agent.step(replace(orders(order(2)), until_s=0.0), replace(creates(create("other.0")), until_s=0.0))
    assert delivered(agent) == []
    assert [held.container for held in agent.logic.hosted_containers()] == [POD]


def test_container_that_was_ordered_too_late_is_not_made() -> None:
    agent = Driven().begin()
    agent.step(RedisClockRead(redis_s=1000.0))
    agent.step(replace(creates(create()), until_s=999.0))
    assert agent.logic.hosted_containers() == ()


def test_order_that_a_restart_found_on_disk_waits_until_it_is_sent_again() -> None:
    agent = Driven().begin()
    agent.step(creates(create()), launched(), orders(order(2)))
    agent = agent.restart()
    agent.step(RedisClockRead(redis_s=1000.0))
    agent.step(HostInspected(running=(RunningContainer(container=POD, incarnation=1, pid=4711),)))
    agent.step(connected())
    assert delivered(agent) == []
    agent.step(orders(order(2)))
    assert delivered(agent) == [2]


def test_values_of_secrets_are_handed_over_and_never_written_down() -> None:
    env = {"DB": EnvFrom(secret="db", value=Secret(text="s3cr3t")), "PLAIN": "p"}
    task = TaskSpec(
        name="main", cpu=CpuSpec(millicores=10), memory=MemorySpec(size=4 << 20), start="x", env=env
    )
    whole = replace(order(2), tasks=(task,))
    agent = ready()
    for _ in range(2):
        agent.step(orders(whole))
        assert [effect.order for effect in agent.effects if isinstance(effect, DeliverOrder)] == [whole]
        tables = agent.logic.tables.values()
        assert b"s3cr3t" not in b"".join(encode(row) for table in tables for row in table.values())
        assert agent.logic.tables["orders"][POD].tasks[0].env["DB"] == EnvFrom(secret="db")
        agent = agent.restart()
        agent.step(RedisClockRead(redis_s=1000.0))
        agent.step(HostInspected(running=(RunningContainer(container=POD, incarnation=1, pid=4711),)))
        agent.step(connected())


def test_order_of_an_earlier_incarnation_is_not_delivered() -> None:
    agent = Driven().begin()
    agent.step(creates(create(incarnation=2)))
    agent.step(launched(incarnation=2), connected(incarnation=2))
    agent.step(orders(order(9, incarnation=1)))
    assert delivered(agent) == []
    agent.step(orders(order(3, incarnation=2)))
    assert delivered(agent) == [3]


def test_worker_that_comes_back_is_given_the_order_again() -> None:
    agent = ready()
    agent.step(orders(order()))
    agent.step(WorkerLost(container=POD, incarnation=1))
    agent.step(connected())
    assert delivered(agent) == [1]


def test_order_repeated_is_answered_with_the_pod_again() -> None:
    agent = ready()
    agent.step(orders(order()))
    agent.step(reported(PodState.RUNNING))
    assert len(pods(agent)) == 1
    agent.step(orders(order()))
    assert [pod.state for pod in pods(agent)] == [PodState.RUNNING]


def test_report_repeated_by_the_worker_is_not_told_again() -> None:
    agent = ready()
    agent.step(reported(PodState.RUNNING))
    assert len(pods(agent)) == 1
    agent.step(reported(PodState.RUNNING))
    assert pods(agent) == []


def test_worker_is_not_believed_about_another_pod() -> None:
    agent = ready()
    lie = WorkerReported(
        container=POD,
        incarnation=1,
        pod=ObservedPod(pod="other-1.0", incarnation=1, generation=1, state=PodState.RUNNING),
    )
    assert kinds(agent.step(lie)) == ["WriteLog"]
    assert pods(agent) == []


def test_pid_is_the_launchers_word_and_usage_rides_along_without_a_report_of_its_own() -> None:
    agent = ready()
    agent.step(reported(PodState.RUNNING))
    agent.reports()
    digests = agent.logic.digests()
    agent.step(UsageMeasured(container=POD, incarnation=1, cpu_milli=70, memory_bytes=5000))
    assert agent.reports() == []
    assert agent.logic.digests() == digests
    agent.step(orders(report=True))
    (pod,) = pods(agent)
    assert (pod.pid, pod.cpu_milli, pod.memory_bytes) == (4711, 70, 5000)


def test_pod_digest_is_what_was_last_told() -> None:
    agent = ready()
    agent.step(reported(PodState.RUNNING, healthy=True))
    assert agent.logic.digests()[1] == digest_of_pod(POD, 1, 1, PodState.RUNNING, True)
    agent.step(destroys())
    agent.step(ContainerDestroyed(container=POD, incarnation=1))
    assert agent.logic.digests() == (0, 0)


def test_finished_batch_pod_never_runs_again_in_a_later_incarnation() -> None:
    agent = ready()
    agent.step(orders(order(batch=True)))
    agent.step(reported(PodState.FINISHED))
    agent.step(destroys())
    agent.step(ContainerDestroyed(container=POD, incarnation=1))
    agent = agent.restart()
    agent.step(RedisClockRead(redis_s=1000.0))
    agent.step(HostInspected(running=()))
    agent.reports()
    agent.step(creates(create(incarnation=2)))
    agent.step(launched(incarnation=2), connected(incarnation=2))
    agent.step(orders(order(2, incarnation=2, batch=True)))
    assert delivered(agent) == []
    assert [(pod.incarnation, pod.generation, pod.state) for pod in pods(agent)] == [
        (2, 2, PodState.FINISHED)
    ]


def test_finished_batch_pod_runs_again_only_when_told_to_deploy_anew() -> None:
    agent = ready()
    agent.step(orders(order(batch=True)))
    agent.step(reported(PodState.FINISHED))
    agent.step(orders(order(2, batch=True)))
    assert delivered(agent) == []
    agent.step(orders(order(3, batch=True, redeploy=True)))
    assert delivered(agent) == [3]
    agent.step(reported(PodState.RUNNING, 3))
    assert [pod.state for pod in pods(agent)] == [PodState.RUNNING]


def test_finished_pod_is_not_overwritten_by_a_worker_that_is_behind() -> None:
    agent = ready()
    agent.step(orders(order(batch=True)))
    agent.step(reported(PodState.FINISHED))
    agent.reports()
    agent.step(reported(PodState.PENDING, 0))
    assert pods(agent) == []


def test_orders_without_a_container_are_bounded() -> None:
    agent = Driven().begin()
    for start in range(0, 3000, 500):
        agent.step(orders(*(order(pod=f"p-1.{index}") for index in range(start, start + 500))))
    assert len(agent.logic.tables["orders"]) == 1000
    assert "p-1.2999" in agent.logic.tables["orders"]


# ---- reports


def told_once(state: PodState) -> Driven:
    """Return an agent whose first report of a pod left 3 ms ago, and which is in ``state`` now."""
    agent = ready()
    agent.now_s += 1
    agent.step(reported(PodState.DEPLOYING))
    assert len(agent.logic.flush(agent.now_s).reports) == 1
    agent.step(ReportPublished(role=APPMASTER, ok=True))
    agent.now_s += 0.003
    agent.step(reported(state, 2))
    assert agent.logic.flush(agent.now_s).reports == ()
    return agent


def test_first_report_leaves_at_once_and_what_is_on_the_way_is_gathered() -> None:
    agent = told_once(PodState.DEPLOYING)
    wake_s = agent.logic.wake_s()
    assert wake_s is not None
    assert abs(wake_s - agent.now_s - 0.017) < 1e-6
    agent.step(reported(PodState.STOPPING, 2))
    assert [pod.state for pod in pods(agent)] == [PodState.STOPPING]


def test_state_that_somebody_waits_for_is_told_sooner() -> None:
    agent = told_once(PodState.RUNNING)
    wake_s = agent.logic.wake_s()
    assert wake_s is not None
    assert abs(wake_s - agent.now_s - 0.002) < 1e-6
    agent.step(reported(PodState.RUNNING, 2, healthy=True))
    told = pods(agent)
    assert [(pod.state, pod.healthy) for pod in told] == [(PodState.RUNNING, True)]


def test_one_report_is_on_its_way_at_most() -> None:
    agent = ready()
    agent.now_s += 1
    agent.step(reported(PodState.DEPLOYING))
    assert len(agent.logic.flush(agent.now_s).reports) == 1
    agent.step(reported(PodState.RUNNING))
    agent.now_s += 60
    assert agent.logic.flush(agent.now_s).reports == ()


def test_report_that_did_not_leave_is_said_again_with_the_newest_state() -> None:
    agent = ready()
    agent.now_s += 1
    agent.step(reported(PodState.DEPLOYING))
    assert len(agent.reports(ok=False)) == 1
    agent.step(reported(PodState.RUNNING))
    assert agent.logic.flush(agent.now_s).reports == ()
    agent.now_s += 0.5
    assert [pod.state for pod in pods(agent)] == [PodState.RUNNING]


def test_full_report_that_did_not_leave_is_full_again() -> None:
    agent = Driven()
    agent.step(HostInspected(running=()))
    assert [report.full for report in agent.reports(ok=False)] == [True, True]
    agent.now_s += 1
    assert [report.full for report in agent.reports()] == [True, True]


def test_serials_grow_and_reports_carry_the_epoch_obeyed() -> None:
    agent = ready()
    agent.step(creates(create("b-2.0"), epoch=5))
    agent.step(orders(order(), epoch=3))
    agent.step(reported(PodState.RUNNING))
    told = agent.reports()
    assert [report.serial for report in told] == sorted({report.serial for report in told})
    assert {bool(report.containers): report.epoch for report in told} == {True: 5, False: 3}


def test_full_report_is_made_on_request_and_names_all() -> None:
    agent = ready()
    agent.step(reported(PodState.RUNNING))
    agent.reports()
    agent.step(replace(creates(), report=True))
    (report,) = agent.reports()
    assert (report.full, report.info, len(report.containers)) == (True, agent.logic.info, 1)


def test_losing_the_launcher_is_no_end_for_what_lives() -> None:
    agent = ready()
    agent.step(HostInspected(running=(RunningContainer(container=POD, incarnation=1, pid=4711),)))
    assert agent.reported_states() == {f"{POD}/1": "ready"}


def test_first_reports_to_both_leaders_are_full() -> None:
    agent = Driven()
    agent.step(HostInspected(running=()))
    due = agent.logic.flush(agent.now_s).reports
    assert [(one.role, one.report.full, one.replaces) for one in due] == [
        (RESMAN, True, False),
        (APPMASTER, True, False),
    ]


def test_pod_that_leaves_a_settled_state_is_told_as_soon_as_one_that_reaches_it() -> None:
    agent = told_once(PodState.RUNNING)
    agent.now_s += 0.01
    assert len(agent.logic.flush(agent.now_s).reports) == 1
    agent.step(ReportPublished(role=APPMASTER, ok=True))
    agent.step(reported(PodState.STOPPING, 3))
    wake_s = agent.logic.wake_s()
    assert wake_s is not None
    assert wake_s <= agent.now_s + 0.006
