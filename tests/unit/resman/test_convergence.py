"""Messages are lost, agents restart and vanish, leaders change: observed still becomes desired."""

from itertools import pairwise

import pytest
from msgspec.structs import replace

from galaxy.agent.logic.records import HostedPhase
from galaxy.errors import UsageError
from galaxy.model.base import WIRE_READABLE, encode
from galaxy.model.messages.agent import AgentReport, AgentState
from galaxy.model.messages.container import (
    ContainerOrders,
    ContainerState,
    CreateContainer,
    GroupOrder,
    GroupOrders,
    ObservedContainerState,
    Reason,
)
from galaxy.model.messages.names import CONTAINER_APPLY, GROUP_APPLY, RESMAN, agent_queue
from galaxy.model.step import Send
from galaxy.resman.logic import ResMan, ResManConfig
from galaxy.resman.logic.config import with_liveness_times
from tests.unit.resman.cluster import GIB, Cluster, demand, hosted, info, status_of


def _agents(count: int) -> list:
    return [info(f"h{i}") for i in range(1, count + 1)]


def test_lost_create_is_sent_again_after_two_seconds() -> None:
    cluster = Cluster(info("h1"))
    cluster.cut_off("h1")
    cluster.order("web-1", 1)
    cluster.run(1.0)
    cluster.reconnect()
    assert cluster.ready() == {}
    cluster.run(1.5)
    assert cluster.ready() == {"web-1.0": 1}


def test_unacknowledged_command_is_resent_after_doubling_waits() -> None:
    cluster = Cluster(info("h1"), config=ResManConfig(suspect_s=1000, dead_s=2000, create_s_max=1000))
    cluster.cut_off("h1")
    cluster.order("web-1", 1)
    cluster.run(60.0)
    creates = [s for s in cluster.sends if s.task == CONTAINER_APPLY and s.body.create]
    assert len(creates) == 7  # At 0, 2, 6, 14, 29, 44 and 59 s.
    assert {send.id for send in creates[:1]} == {"create:web-1.0:1"}


def test_command_that_its_agent_is_working_on_is_not_resent_soon() -> None:
    cluster = Cluster(info("h1"))
    cluster.hosts["h1"].machine.holds_launches = True
    cluster.order("web-1", 1)
    cluster.run(14.0)
    assert len([s for s in cluster.sends if s.task == CONTAINER_APPLY]) == 1
    cluster.hosts["h1"].machine.release_launches()
    cluster.settle()
    assert cluster.slots["web-1.0"].state is ContainerState.READY


def test_lost_destroy_is_sent_again_and_its_resources_stay_charged_until_done() -> None:
    cluster = Cluster(info("h1"))
    cluster.order("web-1", 1, demand(cpu=3000))
    cluster.settle()
    cluster.cut_off("h1")
    cluster.order("web-1", 0, remove=True)
    cluster.order("db-1", 1, demand(cpu=3000))
    cluster.run(1.0)
    assert cluster.slots["db-1.0"].reason.code == "cpu"
    cluster.reconnect()
    cluster.run(3.0)
    assert cluster.ready() == {"db-1.0": 1}


def test_agent_with_an_unread_report_is_asked_for_nothing_and_sent_nothing_again() -> None:
    cluster = Cluster(info("h1"))
    cluster.run(5.0)
    cluster.leaders[RESMAN].reports_hang = True
    cluster.run(1.5)
    cluster.sends.clear()
    cluster.order("web-1", 4)
    cluster.run(20.0)
    (order,) = cluster.orders_to("h1")
    assert (len(order.create), order.report) == (4, False)
    cluster.leaders[RESMAN].reports_hang = False
    cluster.run(2.0)
    assert cluster.ready() == {f"web-1.{slot}": 1 for slot in range(4)}
    assert len(cluster.orders_to("h1")) == 1


def test_destroyed_container_that_was_never_reported_counts_until_its_create_has_expired() -> None:
    cluster = Cluster(info("h1"))
    cluster.order("web-0", 1)
    cluster.settle()
    cluster.bus.loses = lambda send: send.queue == agent_queue("h1")
    cluster.order("web-1", 1)
    cluster.run(0.5)
    cluster.order("web-1", 0, remove=True)
    cluster.run(0.5)
    cluster.hosts["h1"].restart()  # It publishes a full report.
    cluster.settle()
    assert [one.container for one in cluster.full_report("h1").containers] == ["web-0.0"]
    assert cluster.current("web-1")[0].state is ContainerState.DESTROYING
    cluster.run(61.0)
    assert cluster.current("web-1")[0].state is ContainerState.DESTROYING
    cluster.hosts["h1"].restart()
    cluster.settle()
    assert not cluster.statuses["web-1"].known


def test_container_whose_pid_1_dies_gets_a_new_incarnation_and_a_reason() -> None:
    cluster = Cluster(info("h1"))
    cluster.order("web-1", 1)
    cluster.settle()
    cluster.worker("web-1.0").die()
    cluster.run(0.5)
    assert cluster.slots["web-1.0"].reason.code == "exit"
    cluster.run(1.0)
    assert cluster.ready() == {"web-1.0": 2}
    assert hosted(cluster.hosts["h1"]) == {"web-1.0_2"}


def test_container_that_cannot_be_created_is_created_elsewhere() -> None:
    cluster = Cluster(*_agents(2))
    cluster.hosts["h1"].machine.launch_fails = lambda container, incarnation: True
    cluster.order("web-1", 1)
    cluster.run(1.5)
    assert cluster.agents_of("web-1") == ["h2"]
    assert cluster.ready() == {"web-1.0": 2}


def test_failures_on_the_only_agent_are_retried_after_growing_waits_and_keep_their_reason() -> None:
    cluster = Cluster(info("h1"))
    cluster.hosts["h1"].machine.launch_fails = lambda container, incarnation: incarnation < 5
    cluster.order("web-1", 1)
    cluster.run(5.0)
    row = cluster.current("web-1")[0]
    assert (row.state, row.failures, row.reason.code) == (ContainerState.PENDING, 3, "launch")
    cluster.run(30.0)
    assert cluster.ready() == {"web-1.0": 5}


def test_idle_agent_that_fails_does_not_attract_the_replicas() -> None:
    cluster = Cluster(*[info(f"h{i}", cpu_milli=100_000, memory_bytes=99 * GIB) for i in range(1, 4)])
    cluster.hosts["h1"].machine.launch_fails = lambda container, incarnation: True
    for number in range(6):
        cluster.order(f"web-{number}", 4, demand(cpu=100, disk=GIB))
        cluster.run(2.0)
    attempts = sum(len(orders.create) for orders in cluster.orders_to("h1"))
    assert len(cluster.ready()) == 24
    assert attempts <= 4


def test_flaky_agent_that_creates_a_container_is_used_normally_again() -> None:
    cluster = Cluster(info("h1"))
    cluster.hosts["h1"].machine.launch_fails = lambda container, incarnation: incarnation < 4
    cluster.order("web-1", 1)
    cluster.run(4.0)
    assert "h1" in cluster.resman.state.flaky_agents
    cluster.run(10.0)
    assert "h1" not in cluster.resman.state.flaky_agents


def test_container_that_is_never_created_is_given_up_and_created_elsewhere() -> None:
    cluster = Cluster(*_agents(2))
    cluster.hosts["h1"].machine.holds_launches = True
    cluster.order("web-1", 1)
    cluster.run(140.0)
    assert cluster.agents_of("web-1") == ["h2"]
    assert hosted(cluster.hosts["h1"]) == set()


def test_agent_restart_changes_nothing_for_its_containers() -> None:
    cluster = Cluster(info("h1"))
    cluster.order("web-1", 2)
    cluster.run(5.0)
    cluster.hosts["h1"].restart()
    cluster.run(10.0)
    assert cluster.ready() == {"web-1.0": 1, "web-1.1": 1}


def test_late_report_of_an_earlier_boot_is_ignored() -> None:
    cluster = Cluster(info("h1"))
    early = cluster.full_report("h1")
    cluster.order("web-1", 1)
    cluster.run(5.0)
    cluster.hosts["h1"].restart()
    cluster.run(1.0)
    cluster.receive(early)
    cluster.run(5.0)
    assert cluster.ready() == {"web-1.0": 1}


def test_full_report_from_before_a_container_was_created_does_not_end_it() -> None:
    cluster = Cluster(info("h1"))
    early = cluster.full_report("h1")
    cluster.order("web-1", 1)
    cluster.settle()
    cluster.receive(early)
    cluster.settle()
    assert cluster.current("web-1")[0].state is ContainerState.READY


def test_old_full_report_after_a_failover_does_not_end_a_container() -> None:
    cluster = Cluster(info("h1"))
    early = cluster.full_report("h1")
    cluster.order("web-1", 1)
    cluster.settle()
    cluster.failover(RESMAN)
    cluster.receive(early)
    cluster.run(15.0)
    assert cluster.ready() == {"web-1.0": 1}


def test_report_of_an_earlier_leadership_does_not_make_a_new_leader_adopt_a_container() -> None:
    cluster = Cluster(info("h1"))
    cluster.order("web-1", 1)
    cluster.settle()
    late = cluster.reports("h1")[-1]
    assert [one.state for one in late.containers] == [ObservedContainerState.READY]
    cluster.hosts["h1"].trouble = "disk full"  # So that the container waits for a place.
    cluster.run(3.0)
    cluster.hosts["h1"].wipe()
    cluster.run(10.0)
    successor = ResMan(cluster.resman.config)
    for table, loaded in zip(cluster.resman.tables.values(), successor.tables.values(), strict=True):
        loaded.load((key, encode(row)) for key, row in table.items())
    successor.lead(cluster.resman.state.epoch + 1, cluster.now_s)
    successor.step(cluster.now_s, [late])
    assert successor.state.containers["web-1.0"].state is ContainerState.PENDING


def test_containers_of_a_wiped_host_are_created_again() -> None:
    cluster = Cluster(info("h1"))
    cluster.order("web-1", 2)
    cluster.run(5.0)
    cluster.hosts["h1"].wipe()
    cluster.run(10.0)
    assert cluster.ready() == {"web-1.0": 2, "web-1.1": 2}


def test_lost_containers_whose_report_is_lost_are_noticed_by_the_digest_and_created_again() -> None:
    cluster = Cluster(info("h1"))
    cluster.order("web-1", 2)
    cluster.run(5.0)
    cluster.bus.loses = lambda send: isinstance(send.body, AgentReport)
    cluster.worker("web-1.0").die()
    cluster.worker("web-1.1").die()
    cluster.run(0.5)
    assert len(cluster.agents_of("web-1")) == 2, "the report is lost"
    cluster.bus.loses = None
    cluster.run(10.0)
    assert cluster.ready() == {"web-1.0": 2, "web-1.1": 2}


def test_stray_container_is_charged_to_its_agent_and_destroyed() -> None:
    cluster = Cluster(info("h1"))
    stray = CreateContainer(container="old-1.0", incarnation=7, demand=demand(cpu=3000))
    orders = ContainerOrders(
        agent="h1", epoch=cluster.leaders[RESMAN].epoch, until_s=cluster.now_s + 20, create=(stray,)
    )
    cluster.bus.loses = lambda send: send.queue == agent_queue("h1")
    cluster.hosts["h1"].on_event(orders)
    cluster.run(1.0)
    assert hosted(cluster.hosts["h1"]) == {"old-1.0_7"}
    assert int(cluster.resman.state.view.free_of("cpu_milli")[0]) == 1000
    cluster.bus.loses = None
    cluster.run(3.0)
    assert hosted(cluster.hosts["h1"]) == set()
    assert int(cluster.resman.state.view.free_of("cpu_milli")[0]) == 4000


def test_agent_without_heartbeats_becomes_suspect_and_gets_nothing_new() -> None:
    cluster = Cluster(*_agents(2))
    cluster.run(2.0)
    cluster.cut_off("h1")
    cluster.run(15.0)
    assert cluster.resman.state.agents["h1"].state is AgentState.SUSPECT
    cluster.order("web-1", 4)
    cluster.settle()
    assert set(cluster.agents_of("web-1")) == {"h2"}
    cluster.reconnect()
    cluster.run(2.0)
    assert cluster.resman.state.agents["h1"].state is AgentState.ALIVE


def test_containers_of_a_dead_agent_are_placed_elsewhere() -> None:
    cluster = Cluster(*_agents(2))
    cluster.order("web-1", 2)
    cluster.run(2.0)
    cluster.cut_off("h1")
    cluster.run(33.0)
    assert cluster.resman.state.agents["h1"].state is AgentState.DEAD
    assert cluster.agents_of("web-1") == ["h2", "h2"]


def test_host_that_returns_loses_what_was_replaced_and_keeps_the_rest() -> None:
    cluster = Cluster(info("h1", tags=("ssd",)), info("h2"))
    cluster.order("web-1", 2)
    cluster.order("pin-1", 1, demand(tag="ssd"))
    cluster.run(2.0)
    on_h1 = cluster.ready("h1")
    assert sorted(on_h1) == ["pin-1.0", "web-1.0"]
    cluster.cut_off("h1")
    cluster.run(40.0)
    assert cluster.current("pin-1")[0].state is ContainerState.PENDING
    assert cluster.agents_of("web-1") == ["h2", "h2"]
    assert cluster.ready("h1") == on_h1
    cluster.reconnect()
    cluster.run(10.0)
    assert cluster.ready("h1") == {"pin-1.0": 1}
    assert cluster.ready("h2") == {"web-1.0": 2, "web-1.1": 1}


def test_containers_of_dead_agents_are_replaced_at_a_limited_rate() -> None:
    big = {"cpu_milli": 100_000, "memory_bytes": 200 * GIB, "disk_bytes": 400 * GIB}
    cluster = Cluster(*[info(f"h{i}", **big) for i in range(1, 4)])
    cluster.order("web-1", 90)
    cluster.run(2.0)
    lost = len(cluster.ready("h1"))
    cluster.cut_off("h1")
    cluster.run_until(lambda: cluster.resman.state.agents["h1"].state is AgentState.DEAD, 40.0)
    replaced = [sum(row.incarnation == 2 for row in cluster.current("web-1"))]
    for _ in range(5):
        cluster.run(1.0)
        replaced.append(sum(row.incarnation == 2 for row in cluster.current("web-1")))
    assert lost == 30
    assert replaced[0] <= 10
    assert all(after - before <= 11 for before, after in pairwise(replaced))
    assert replaced[-1] == 30


def test_nothing_moves_while_most_agents_are_away() -> None:
    cluster = Cluster(*_agents(5))
    cluster.order("web-1", 10)
    cluster.run(2.0)
    before = cluster.ready()
    cluster.cut_off("h1", "h2", "h3")
    cluster.run(100.0)
    assert cluster.resman.safe_mode.code == "mass-loss"
    assert "safe-mode" in cluster.stored(RESMAN, "cluster", Reason)
    cluster.order("db-1", 1)
    cluster.run(1.0)
    assert cluster.slots["db-1.0"].reason.code == "mass-loss"
    cluster.reconnect()
    cluster.run(3.0)
    assert cluster.resman.safe_mode is None
    assert {c: i for c, i in cluster.ready().items() if c != "db-1.0"} == before
    assert cluster.ready()["db-1.0"] == 1


def test_nothing_moves_while_half_of_the_agents_are_away_and_one_alone_is_replaced() -> None:
    cluster = Cluster(*_agents(4))
    cluster.order("web-1", 4)
    cluster.run(2.0)
    before = cluster.ready()
    cluster.cut_off("h1", "h2")
    cluster.run(100.0)
    assert cluster.resman.safe_mode.code == "mass-loss"
    cluster.reconnect("h2")
    cluster.run(3.0)
    assert cluster.resman.safe_mode is None
    cluster.run(35.0)
    assert sum(before[name] == incarnation for name, incarnation in cluster.ready().items()) == 3
    assert set(cluster.agents_of("web-1")) == {"h2", "h3", "h4"}


def test_agent_in_trouble_keeps_its_containers_and_gets_nothing_new() -> None:
    cluster = Cluster(*_agents(2))
    cluster.order("web-1", 2)
    cluster.run(2.0)
    before = cluster.ready()
    cluster.hosts["h1"].trouble = "disk full"
    cluster.run(2.0)
    cluster.order("db-1", 3)
    cluster.run(50.0)
    assert cluster.agents_of("db-1") == ["h2"] * 3
    assert {name: cluster.ready()[name] for name in before} == before
    assert cluster.resman.state.agents["h1"].state is AgentState.ALIVE
    cluster.hosts["h1"].trouble = ""
    cluster.run(2.0)
    cluster.order("new-1", 2)
    cluster.run(2.0)
    assert "h1" in cluster.agents_of("new-1")


def test_agent_of_a_foreign_wire_version_counts_as_away() -> None:
    cluster = Cluster(*_agents(3))
    cluster.order("web-1", 3)
    cluster.run(2.0)
    cluster.hosts["h1"].wire = WIRE_READABLE[-1] + 1
    cluster.run(45.0)
    assert cluster.resman.state.agents["h1"].state is AgentState.DEAD
    assert set(cluster.agents_of("web-1")) == {"h2", "h3"}


def test_liveness_times_that_make_no_sense_are_refused() -> None:
    own = with_liveness_times(ResManConfig(), suspect_s=4.0, dead_s=12.0)
    assert (own.suspect_s, own.dead_s, own.order_ttl_s) == (4.0, 12.0, 10.0)
    assert with_liveness_times(ResManConfig(), suspect_s=10.0, dead_s=30.0) == ResManConfig()
    for suspect_s, dead_s in ((2.0, 30.0), (10.0, 15.0)):
        with pytest.raises(UsageError, match="an agent cannot be"):
            with_liveness_times(ResManConfig(), suspect_s=suspect_s, dead_s=dead_s)


def test_agents_of_a_mass_loss_that_lasts_count_as_dead_in_the_end() -> None:
    cluster = Cluster(*_agents(4), config=ResManConfig(mass_loss_hold_s=60.0))
    cluster.order("web-1", 4, demand(cpu=500))
    cluster.run(2.0)
    cluster.cut_off("h1", "h2", "h3")
    cluster.run(120.0)
    assert cluster.agents_of("web-1") == ["h4"] * 4


def test_gap_between_heartbeat_readings_makes_no_agent_dead() -> None:
    cluster = Cluster(*_agents(2))
    cluster.order("web-1", 2)
    cluster.run(5.0)
    before = cluster.ready()
    cluster.cut_off("h1")
    cluster.leaders[RESMAN].heartbeats_hang = True
    cluster.run(120.0)
    cluster.leaders[RESMAN].heartbeats_hang = False
    cluster.run(1.5)  # The first reading has a heartbeat of h1 that is two minutes old.
    assert cluster.resman.safe_mode is None
    assert cluster.resman.state.agents["h1"].state is AgentState.ALIVE
    cluster.reconnect()
    cluster.run(5.0)
    assert cluster.ready() == before
    assert all(r.state is AgentState.ALIVE for r in cluster.resman.state.agents.values())


def test_new_leader_waits_for_the_agents_before_it_places() -> None:
    cluster = Cluster(*_agents(4))
    cluster.run(2.0)
    cluster.leaders[RESMAN].crash()
    orders = GroupOrders(orders=(GroupOrder(group="web-1", epoch=1, serial=1, replicas=1, demand=demand()),))
    waiting = Send(queue=RESMAN, task=GROUP_APPLY, body=orders, id="web")  # It arrives at the next leader.
    cluster.bus.send(waiting)
    cluster.sends.clear()
    cluster.run_until(lambda: cluster.leaders[RESMAN].leads, 15.0)
    cluster.run(2.0)
    (slot,) = status_of(cluster.sends).slots
    assert slot.reason is not None
    assert slot.reason.code == "start"
    assert cluster.resman.safe_mode is None
    assert cluster.ready() == {"web-1.0": 1}


def test_new_leader_stops_waiting_for_a_few_agents_that_stay_away() -> None:
    cluster = Cluster(*_agents(5))
    cluster.order("web-1", 5)
    cluster.run(2.0)
    cluster.cut_off("h1", "h2")
    cluster.run(12.0)
    cluster.failover(RESMAN)
    cluster.order("db-1", 1)
    cluster.run(8.0)
    assert cluster.slots["db-1.0"].reason.code == "start"
    cluster.run(5.0)
    assert cluster.ready()["db-1.0"] == 1
    cluster.run(30.0)
    assert set(cluster.agents_of("web-1")) == {"h3", "h4", "h5"}


def test_new_leader_without_known_agents_is_not_in_safe_mode() -> None:
    assert Cluster().resman.safe_mode is None


@pytest.mark.parametrize("moment", ["ordered", "made", "removing"])
def test_failover_at_any_moment_loses_nothing(moment: str) -> None:
    cluster = Cluster(*_agents(2))
    cluster.run(2.0)
    if moment != "made":
        cluster.cut_off("h1", "h2")
    cluster.order("web-1", 3)
    cluster.run(0.5)
    if moment == "removing":
        cluster.reconnect()
        cluster.run(5.0)
        cluster.cut_off("h1", "h2")
        cluster.order("web-1", 0, remove=True)
        cluster.run(0.5)
    cluster.failover(RESMAN)
    cluster.reconnect()
    cluster.run(20.0)
    desired = {} if moment == "removing" else {f"web-1.{slot}": 1 for slot in range(3)}
    assert cluster.ready() == desired
    if moment == "removing":
        assert not cluster.statuses["web-1"].known


def test_an_agent_refuses_the_commands_of_an_earlier_leader() -> None:
    cluster = Cluster(info("h1"))
    cluster.run(2.0)
    cluster.order("web-1", 1)
    cluster.run(2.0)
    create = next(orders for orders in cluster.orders_to("h1") if orders.create)
    cluster.failover(RESMAN)
    cluster.order("web-1", 2)
    cluster.run(3.0)
    other = replace(create.create[0], container="other-1.0")
    cluster.hosts["h1"].on_event(replace(create, create=(other,)))
    cluster.settle()
    assert hosted(cluster.hosts["h1"]) == {"web-1.0_1", "web-1.1_1"}


def test_ports_that_the_agent_chose_are_told_and_kept_from_static_ones() -> None:
    cluster = Cluster(info("h1"))
    cluster.order("web-1", 1, demand(ports=(0, 8080)))
    cluster.settle()
    ports = cluster.slots["web-1.0"].ports
    assert ports["p1"] == 8080
    assert 20000 <= ports["p0"] <= 20019
    cluster.order("db-1", 1, demand(ports=(ports["p0"],)))
    cluster.settle()
    assert cluster.slots["db-1.0"].reason.code == "port-conflict"


def test_a_changed_address_of_an_agent_is_told() -> None:
    cluster = Cluster(info("h1"))
    cluster.order("web-1", 1)
    cluster.settle()
    cluster.hosts["h1"].info = info("h1", address="10.9.9.9")
    cluster.hosts["h1"].restart()
    cluster.settle()
    assert cluster.slots["web-1.0"].address == "10.9.9.9"


def test_a_ready_container_stays_known_as_found_state_ready() -> None:
    cluster = Cluster(info("h1"))
    cluster.order("web-1", 1)
    cluster.run(3.0)
    assert cluster.hosts["h1"].logic.tables["containers"]["web-1.0_1"].phase is HostedPhase.READY
    assert not [s for s in cluster.sends if s.task == CONTAINER_APPLY and s.body.report]


def test_start_that_its_owner_asks_for_forgives_what_failed_before() -> None:
    cluster = Cluster(info("h1"))
    cluster.hosts["h1"].machine.launch_fails = lambda container, incarnation: True
    cluster.order("web-1", 1)
    cluster.run(40.0)
    row = cluster.resman.state.containers["web-1.0"]
    assert row.failures > 3
    assert row.retry_s > cluster.now_s + 5
    cluster.hosts["h1"].machine.launch_fails = lambda container, incarnation: False
    cluster.order("web-1", 1, starts=1)
    cluster.run(1.0)
    assert cluster.ready() == {"web-1.0": row.incarnation + 1}
