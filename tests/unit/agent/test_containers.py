"""Containers: ResMan's orders and the events of the host."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from galaxy.agent.logic import AgentLogic
from galaxy.agent.logic.effects import LaunchContainer, QuitWorker, RemoveContainer
from galaxy.agent.logic.events import (
    ContainerDestroyed,
    ContainerEnded,
    ContainerLaunchFailed,
    HostInspected,
    PortsScanned,
    PortsUnavailable,
    RunningContainer,
    ShutdownRequested,
)
from galaxy.model.messages.container import ObservedContainer, PortDemand, Reason, TaskDemand, VolumeDemand
from galaxy.model.messages.digest import digest_of_container
from galaxy.model.messages.pod import PodState
from tests.unit.agent.build import (
    POD,
    Driven,
    connected,
    create,
    creates,
    destroys,
    info,
    kinds,
    launched,
    order,
    orders,
    reported,
)

DESTROYED = ContainerDestroyed(container=POD, incarnation=1)
ENDED = ContainerEnded(container=POD, incarnation=1, reason=Reason(code="killed"))
WEB = PortDemand(name="web")


def launches(agent: Driven) -> list[LaunchContainer]:
    return [effect for effect in agent.effects if isinstance(effect, LaunchContainer)]


def test_create_launches_once_and_ready_is_reported_at_once() -> None:
    agent = Driven().begin()
    assert kinds(agent.step(creates(create()))) == ["LaunchContainer"]
    assert kinds(agent.step(creates(create()))) == []
    assert agent.reported_states() == {f"{POD}/1": "creating"}
    assert kinds(agent.step(launched())) == ["ConnectWorker"]
    assert agent.logic.flush(agent.now_s).reports[0].report.containers[0].state == "ready"
    assert agent.logic.digests()[0] == digest_of_container(POD, 1)


def test_lower_epoch_is_refused_equal_and_higher_are_obeyed() -> None:
    agent = Driven().begin()
    agent.step(creates(epoch=7))
    assert kinds(agent.step(creates(create(), epoch=6))) == ["WriteLog"]
    assert kinds(agent.step(creates(create(), epoch=7))) == ["LaunchContainer"]
    assert kinds(agent.step(destroys(epoch=8))) == ["DisconnectWorker", "RemoveContainer"]


def test_highest_epoch_survives_a_restart_of_the_agent() -> None:
    agent = Driven().begin()
    agent.step(creates(epoch=7))
    again = agent.restart().begin()
    assert kinds(again.step(creates(create(), epoch=6))) == ["WriteLog"]


def test_epochs_of_the_two_roles_do_not_touch_each_other() -> None:
    agent = Driven().begin()
    agent.step(creates(epoch=7))
    agent.step(orders(order(), epoch=2))
    assert agent.logic.tables["orders"].get(POD) is not None


def test_orders_for_another_agent_change_nothing() -> None:
    agent = Driven().begin()
    assert kinds(agent.step(replace(creates(create()), agent="h2"))) == ["WriteLog"]


def test_late_create_after_destroy_does_not_bring_the_container_back() -> None:
    agent = Driven().begin()
    agent.step(destroys())
    assert agent.reported_states() == {f"{POD}/1": "gone"}
    assert kinds(agent.step(creates(create()))) == []
    assert agent.reported_states() == {f"{POD}/1": "gone"}


def test_late_create_after_destroy_stays_dead_across_a_restart() -> None:
    agent = Driven().begin()
    agent.step(creates(create()))
    agent.step(launched())
    agent.step(destroys())
    agent.step(DESTROYED)
    assert kinds(agent.restart().begin().step(creates(create()))) == []


def test_create_of_a_later_incarnation_destroys_the_earlier_one_first() -> None:
    agent = Driven().begin()
    agent.step(creates(create()))
    agent.step(launched())
    assert kinds(agent.step(creates(create(incarnation=2)))) == ["DisconnectWorker", "RemoveContainer"]
    assert kinds(agent.step(DESTROYED)) == ["LaunchContainer"]
    assert agent.reported_states() == {f"{POD}/1": "gone", f"{POD}/2": "creating"}


def test_create_of_an_earlier_incarnation_changes_nothing() -> None:
    agent = Driven().begin()
    agent.step(creates(create(incarnation=2)))
    assert kinds(agent.step(creates(create(incarnation=1)))) == []


def test_destroy_ends_earlier_incarnations_too() -> None:
    agent = Driven().begin()
    agent.step(creates(create()))
    agent.step(launched())
    assert kinds(agent.step(destroys(incarnation=3))) == ["DisconnectWorker", "RemoveContainer"]
    agent.step(DESTROYED)
    assert kinds(agent.step(creates(create(incarnation=3)))) == []
    assert kinds(agent.step(creates(create(incarnation=4)))) == ["LaunchContainer"]


def test_destroy_of_an_earlier_incarnation_leaves_the_later_one_alone() -> None:
    agent = Driven().begin()
    agent.step(creates(create(incarnation=2)))
    agent.step(launched(incarnation=2))
    assert kinds(agent.step(destroys(incarnation=1))) == []


def test_destroy_while_launching_is_done_and_a_late_launched_does_not_make_it_ready() -> None:
    agent = Driven().begin()
    agent.step(creates(create()))
    assert "RemoveContainer" in kinds(agent.step(destroys()))
    assert kinds(agent.step(launched())) == []
    assert agent.reported_states() == {f"{POD}/1": "destroying"}
    agent.step(DESTROYED)
    assert agent.reported_states() == {f"{POD}/1": "gone"}


def test_programs_that_run_are_asked_to_quit_before_the_container_is_destroyed() -> None:
    agent = Driven().begin()
    agent.step(creates(create()), orders(order()))
    agent.step(launched(), connected())
    agent.step(reported(PodState.RUNNING))
    assert agent.step(destroys()) == [QuitWorker(container=POD, incarnation=1, stop_timeout=10.0)]
    assert kinds(agent.step(destroys())) == []
    assert kinds(agent.step(ENDED)) == ["DisconnectWorker", "RemoveContainer"]


def test_programs_that_do_not_quit_are_destroyed_after_their_stop_timeout() -> None:
    agent = Driven().begin()
    agent.step(creates(create()), orders(order()))
    agent.step(launched(), connected())
    agent.step(reported(PodState.RUNNING))
    agent.step(destroys())
    agent.reports()
    assert agent.logic.wake_s() is not None
    agent.now_s += 12.5
    assert kinds(agent.step()) == ["DisconnectWorker", "RemoveContainer"]
    assert kinds(agent.step()) == []


def test_end_of_a_container_that_was_asked_to_quit_is_handled_again_when_a_commit_fails() -> None:
    agent = Driven().begin()
    agent.step(creates(create()), orders(order()))
    agent.step(launched(), connected())
    agent.step(reported(PodState.RUNNING))
    agent.step(destroys())
    assert kinds(agent.step(ENDED)) == [
        "DisconnectWorker",
        "RemoveContainer",
    ]  # The commit of this step fails.
    assert kinds(agent.step(ENDED)) == ["DisconnectWorker", "RemoveContainer"]
    agent.step(DESTROYED)
    assert agent.reported_states() == {f"{POD}/1": "gone"}


def test_container_asked_to_quit_is_destroyed_repeatedly_until_it_is_gone() -> None:
    agent = Driven().begin()
    agent.step(creates(create()), orders(order()))
    agent.step(launched(), connected())
    agent.step(reported(PodState.RUNNING))
    agent.step(destroys())
    for wait_s in (12.5, 2.5, 2.5):
        agent.now_s += wait_s
        assert kinds(agent.step()) == ["DisconnectWorker", "RemoveContainer"]
    agent.step(DESTROYED)
    agent.now_s += 2.5
    assert kinds(agent.step()) == []


def test_container_that_ends_by_itself_is_reported_with_its_reason_and_its_remains_removed() -> None:
    agent = Driven().begin()
    agent.step(creates(create()))
    agent.step(launched())
    agent.reports()
    assert kinds(agent.step(ENDED)) == ["RemoveContainer", "DisconnectWorker"]
    (report,) = agent.reports()
    assert (report.containers[0].state, report.containers[0].reason) == ("ended", Reason(code="killed"))
    agent.step(DESTROYED)
    assert agent.reported_states() == {f"{POD}/1": "ended"}
    assert agent.logic.digests()[0] == 0
    assert kinds(agent.step(destroys())) == []
    assert agent.reported_states() == {f"{POD}/1": "gone"}


def test_pod_of_an_ended_container_obeys_no_order_any_more_and_is_not_healthy() -> None:
    agent = Driven().begin()
    agent.step(creates(create()), orders(order()))
    agent.step(launched(), connected())
    agent.step(reported(PodState.RUNNING, healthy=True))
    agent.reports()
    agent.step(ENDED)
    pods = [pod for report in agent.reports() for pod in report.pods]
    assert [(pod.generation, pod.state, pod.healthy) for pod in pods] == [(0, PodState.PENDING, False)]


def test_launch_that_failed_is_ended_with_the_reason() -> None:
    agent = Driven().begin()
    agent.step(creates(create()))
    failed = ContainerLaunchFailed(container=POD, incarnation=1, reason=Reason(code="mount"))
    agent.step(failed)
    assert agent.reported_states() == {f"{POD}/1": "ended"}


def test_launched_that_nobody_ordered_is_destroyed() -> None:
    agent = Driven().begin()
    assert agent.step(launched()) == [RemoveContainer(container=POD, incarnation=1)]


def test_agent_that_is_full_refuses_with_numbers() -> None:
    agent = Driven(AgentLogic(info(containers_max=1))).begin()
    agent.step(creates(create("a-1.0"), create("a-1.1")))
    (report,) = agent.reports()
    refused = [one for one in report.containers if one.reason]
    assert [one.reason.counts for one in refused if one.reason] == [{"containers": 1, "containers_max": 1}]


# ---- ports


def test_chosen_ports_are_in_range_free_and_distinct() -> None:
    agent = Driven().begin()
    busy = frozenset(range(20000, 20007))
    agent.step(
        PortsScanned(listening=busy, used=busy), creates(create("a-1.0", 1, WEB), create("a-1.1", 1, WEB))
    )
    ports = [launch.hosted.ports["web"] for launch in launches(agent)]
    assert len(set(ports)) == 2
    assert set(ports) <= {20007, 20008, 20009}


def test_no_free_port_is_a_reason_and_not_a_launch() -> None:
    agent = Driven(AgentLogic(info(ports=(20000, 20000)))).begin()
    agent.step(creates(create("a-1.0", 1, WEB), create("a-1.1", 1, WEB)))
    assert len(launches(agent)) == 1
    (report,) = agent.reports()
    assert [one.reason.code for one in report.containers if one.reason] == ["no-port"]


# ---- uids


def test_each_container_gets_a_uid_that_is_nobody_elses() -> None:
    agent = Driven(uids=(1000, 1001)).begin()
    agent.step(creates(create("a-1.0"), create("a-1.1")))
    assert {launch.hosted.uid for launch in launches(agent)} == {1000, 1001}


def test_uid_is_free_only_when_nothing_of_its_container_is_left() -> None:
    agent = Driven(uids=(1000, 1000)).begin()
    agent.step(creates(create()))
    agent.step(launched())
    agent.step(ENDED)
    agent.step(creates(create("b-2.0")))
    (report,) = agent.reports()
    assert [one.reason.code for one in report.containers if one.container == "b-2.0" and one.reason] == [
        "no-uid"
    ]
    agent.step(DESTROYED)
    agent.step(creates(create("c-3.0")))
    assert [launch.hosted.uid for launch in launches(agent)] == [1000]


def test_uid_survives_a_restart_of_the_agent() -> None:
    agent = Driven(uids=(1000, 1999)).begin()
    agent.step(creates(create()))
    before = launches(agent)[0].hosted.uid
    again = agent.restart()
    again.step(HostInspected(running=()))
    assert [launch.hosted.uid for launch in launches(again)] == [before]


def test_container_on_its_way_when_its_agent_learned_of_uids_gets_one() -> None:
    agent = Driven().begin()
    agent.step(creates(create("a-1.0"), create("a-1.1")))
    assert [launch.hosted.uid for launch in launches(agent)] == [0, 0]
    agent.uids = (1000, 1999)
    again = agent.restart()
    again.step(HostInspected(running=(RunningContainer(container="a-1.0", incarnation=1, pid=7),)))
    assert [1000 <= launch.hosted.uid < 2000 for launch in launches(again)] == [True]
    there = {held.container: held.uid for held in again.logic.hosted_containers()}
    assert there["a-1.0"] == 0  # It keeps the uid that it was launched with.


def test_container_on_its_way_does_not_take_a_uid_that_is_the_agents_no_more() -> None:
    agent = Driven(uids=(1000, 1999)).begin()
    agent.step(creates(create()))
    agent.uids = (3000, 3999)
    again = agent.restart()
    again.step(HostInspected(running=()))
    assert [3000 <= launch.hosted.uid < 4000 for launch in launches(again)] == [True]


def test_container_on_its_way_that_no_uid_is_left_for_ends() -> None:
    agent = Driven(uids=(1000, 1999)).begin()
    agent.step(creates(create("a-1.0"), create("a-1.1")))
    agent.uids = (3000, 3000)
    again = agent.restart()
    again.step(HostInspected(running=()))
    assert [launch.hosted.uid for launch in launches(again)] == [3000]
    (report, *_) = again.reports()
    assert [one.reason.code for one in report.containers if one.reason] == ["no-uid"]


def test_fixed_port_in_use_by_the_host_is_refused() -> None:
    agent = Driven().begin()
    seen = PortsScanned(listening=frozenset({8080}), used=frozenset({8080}))
    assert kinds(agent.step(seen, creates(create(POD, 1, PortDemand(name="web", port=8080))))) == []
    assert agent.reported_states() == {f"{POD}/1": "ended"}


def test_fixed_port_of_an_earlier_incarnation_is_waited_for() -> None:
    fixed = PortDemand(name="web", port=8080)
    agent = Driven().begin()
    agent.step(creates(create(POD, 1, fixed)))
    agent.step(launched())
    agent.step(destroys())
    assert launches(agent) == []
    agent.step(creates(create("b-2.0", 1, fixed)))
    assert launches(agent) == []
    agent.step(DESTROYED)
    assert [launch.hosted.container for launch in launches(agent)] == ["b-2.0"]


def test_ports_that_another_agent_took_first_are_chosen_anew() -> None:
    agent = Driven().begin()
    agent.step(creates(create(POD, 1, WEB)))
    first = launches(agent)[0].hosted.ports["web"]
    agent.step(PortsUnavailable(container=POD, incarnation=1, ports=(first,)))
    assert launches(agent)[0].hosted.ports["web"] != first


def test_ports_are_the_same_after_a_restart() -> None:
    agent = Driven().begin()
    agent.step(creates(create(POD, 1, WEB)))
    ports = launches(agent)[0].hosted.ports
    again = agent.restart()
    again.step(HostInspected(running=()))
    assert launches(again)[0].hosted.ports == ports


# ---- desired against observed


def test_living_container_is_adopted_again_after_a_restart_with_its_pid() -> None:
    agent = Driven().begin()
    agent.step(creates(create()))
    agent.step(launched())
    agent.step(connected(), reported(PodState.RUNNING))
    again = agent.restart()
    seen = HostInspected(running=(RunningContainer(container=POD, incarnation=1, pid=99),))
    assert kinds(again.step(seen)) == ["ConnectWorker"]
    reports = again.reports()
    assert [report.full for report in reports] == [True, True]
    assert [pod.pid for report in reports for pod in report.pods] == [99]


def test_container_that_vanished_while_no_agent_ran_is_reported_ended() -> None:
    agent = Driven().begin()
    agent.step(creates(create()))
    agent.step(launched())
    again = agent.restart()
    again.step(HostInspected(running=(), rebooted=True))
    full = again.reports()[0]
    assert (full.containers[0].state, full.containers[0].reason) == (
        "ended",
        Reason(code="vanished", message="its host was rebooted"),
    )


def test_container_that_nobody_knows_is_destroyed() -> None:
    agent = Driven()
    effects = agent.step(HostInspected(running=(RunningContainer(container="x-1.0", incarnation=4, pid=9),)))
    assert RemoveContainer(container="x-1.0", incarnation=4) in effects


def test_destruction_interrupted_by_a_crash_continues_after_the_restart() -> None:
    agent = Driven().begin()
    agent.step(creates(create()))
    agent.step(launched())
    agent.step(destroys())
    again = agent.restart()
    assert kinds(
        again.step(HostInspected(running=(RunningContainer(container=POD, incarnation=1, pid=9),)))
    ) == ["RemoveContainer"]


def test_shutdown_destroys_every_container_and_accepts_no_new_one() -> None:
    agent = Driven().begin()
    agent.step(creates(create("a-1.0"), create("a-1.1")))
    agent.step(launched("a-1.0"))
    effects = agent.step(ShutdownRequested(grace_s=0.0))
    assert kinds(effects).count("RemoveContainer") == 2
    assert launches(agent) == []
    agent.step(creates(create("a-1.2")))
    assert launches(agent) == []


def test_discarded_step_leaves_the_tables_as_they_were_and_runs_again_alike() -> None:
    agent = Driven().begin()
    first = agent.logic.step(agent.now_s, [creates(create(POD, 1, WEB))])
    for table in agent.logic.tables.values():
        table.discard()
    assert agent.logic.hosted_containers() == ()
    assert tuple(agent.step(creates(create(POD, 1, WEB)))) == first


def _reported(agent: Driven) -> list[ObservedContainer]:
    return [one for report in agent.reports() for one in report.containers]


@pytest.mark.parametrize("incarnation", [-1, 0, -(2**60), 2**60])
def test_order_with_an_impossible_incarnation_is_refused_with_a_report(incarnation: int) -> None:
    for impossible in (creates(create(POD, incarnation)), destroys(POD, incarnation)):
        agent = Driven().begin()
        agent.step(creates(create("other.0")))
        agent.step(launched("other.0"))
        assert kinds(agent.step(impossible)) == ["WriteLog"]
        observed = {one.incarnation: one for one in _reported(agent) if one.container == POD}
        assert observed[incarnation].state == "ended"
        reason = observed[incarnation].reason
        assert reason is not None and f"incarnation is {incarnation}" in reason.message


IMPOSSIBLE = (
    {"tasks": (TaskDemand(name="main", cpu_milli=-1, memory_bytes=1 << 20),)},
    {"tasks": (TaskDemand(name="main", cpu_milli=1, memory_bytes=-1),)},
    {"tasks": (TaskDemand(name="main", cpu_milli=1, memory_bytes=1 << 70),)},
    {"tasks": (TaskDemand(name="main", cpu_milli=1, memory_bytes=1 << 20, pids_max=0),)},
    {"tasks": ()},
    {"workspace": VolumeDemand(path="/w", size_bytes=-5)},
    {"ports": (PortDemand(name="web", port=-1),)},
    {"ports": (PortDemand(name="web", port=70_000),)},
)


@pytest.mark.parametrize("changes", IMPOSSIBLE)
def test_order_with_an_impossible_demand_is_refused_with_a_report(changes: dict[str, object]) -> None:
    agent = Driven().begin()
    order_ = create()
    impossible = replace(order_, demand=replace(order_.demand, **changes))
    assert kinds(agent.step(creates(impossible, create("other.0")))) == ["WriteLog", "LaunchContainer"]
    (observed,) = [one for one in _reported(agent) if one.container == POD]
    assert observed.state == "ended" and observed.reason is not None
    assert "the order is impossible" in observed.reason.message


def test_pod_order_with_an_impossible_number_changes_nothing() -> None:
    agent = Driven().begin()
    agent.step(creates(create()))
    agent.step(launched(), connected())
    for changes in ({"generation": 0}, {"generation": -1}, {"stop_timeout": -1.0}, {"index": -1}):
        effects = agent.step(orders(replace(order(), **changes)))
        assert kinds(effects) == ["WriteLog"], changes
    assert kinds(agent.step(orders(order()))) == ["DeliverOrder"]
