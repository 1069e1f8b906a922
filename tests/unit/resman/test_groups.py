"""Orders for groups: creation, scaling, removal, and what is reported of them."""

from msgspec.structs import replace

from galaxy.model.messages.container import ContainerState, GroupOrder, GroupOrders, GroupStatus
from galaxy.model.messages.names import CONTAINER_APPLY, RESMAN
from galaxy.model.stored.container import Container, Group
from tests.unit.resman.cluster import GIB, Cluster, demand, info, status_of


def test_ordered_group_is_placed_created_and_reported_at_once() -> None:
    cluster = Cluster(info("h1"))
    cluster.order("web-1", 2)
    cluster.settle()
    assert cluster.ready() == {"web-1.0": 1, "web-1.1": 1}
    status = cluster.statuses["web-1"]
    assert status.serial == 1
    assert [slot.state for slot in cluster.slots.values()] == [ContainerState.READY] * 2
    assert cluster.slots["web-1.0"].address == "10.0.0.1"


def test_first_status_names_the_agent_before_the_container_is_ready() -> None:
    cluster = Cluster(info("h1"))
    cluster.order("web-1", 1)
    sends = cluster.step()
    status = status_of(sends)
    assert status.full
    assert [(s.agent, s.incarnation, s.state) for s in status.slots] == [("h1", 1, ContainerState.ALLOCATING)]
    create = next(send for send in sends if send.task == CONTAINER_APPLY)
    assert (create.queue, create.id) == ("agent.h1", "create:web-1.0:1")


def test_commands_of_one_step_to_one_agent_share_a_message() -> None:
    cluster = Cluster(info("h1"), info("h2"))
    cluster.order("web-1", 4)
    cluster.order("db-1", 2)
    orders = [send for send in cluster.step() if send.task == CONTAINER_APPLY]
    assert sorted(send.queue for send in orders) == ["agent.h1", "agent.h2"]
    assert sum(len(send.body.create) for send in orders) == 6


def test_max_per_host_of_two_spreads_four_replicas_over_two_agents() -> None:
    cluster = Cluster(info("h1"), info("h2"))
    cluster.order("web-1", 4, demand(cpu=100, max_per_host=2))
    cluster.settle()
    assert sorted(cluster.agents_of("web-1")) == ["h1", "h1", "h2", "h2"]


def test_scaling_down_releases_the_highest_slots_and_scaling_up_creates_new_incarnations() -> None:
    cluster = Cluster(info("h1"))
    cluster.order("web-1", 3)
    cluster.settle()
    cluster.order("web-1", 1)
    cluster.settle()
    assert cluster.ready() == {"web-1.0": 1}
    assert [row.state for row in cluster.current("web-1")] == [
        ContainerState.READY,
        ContainerState.GONE,
        ContainerState.GONE,
    ]
    cluster.order("web-1", 2)
    cluster.settle()
    assert cluster.ready() == {"web-1.0": 1, "web-1.1": 2}


def test_scaling_up_while_a_slot_is_being_destroyed_creates_a_new_incarnation() -> None:
    cluster = Cluster(info("h1"))
    cluster.order("web-1", 2)
    cluster.settle()
    cluster.cut_off("h1")
    cluster.order("web-1", 1)
    cluster.settle()
    cluster.order("web-1", 2)
    cluster.settle()
    assert len(cluster.resman.state.containers) == 3
    cluster.reconnect()
    cluster.run(20.0)
    assert cluster.ready() == {"web-1.0": 1, "web-1.1": 2}
    assert len(cluster.resman.state.containers) == 2


def test_released_slot_loses_its_container_and_never_gets_another() -> None:
    cluster = Cluster(info("h1"))
    cluster.order("batch-1", 3, batch=True)
    cluster.settle()
    cluster.order("batch-1", 3, batch=True, release=(1,))
    cluster.run(5.0)
    cluster.failover(RESMAN)
    cluster.run(30.0)
    assert cluster.ready() == {"batch-1.0": 1, "batch-1.2": 1}
    assert cluster.slots["batch-1.1"].state is ContainerState.GONE


def test_removed_group_leaves_no_row_and_is_unknown_afterwards() -> None:
    cluster = Cluster(info("h1"))
    cluster.order("web-1", 2)
    cluster.settle()
    cluster.order("web-1", 0, remove=True)
    cluster.settle()
    assert cluster.ready() == {}
    assert not cluster.statuses["web-1"].known
    assert cluster.statuses["web-1"].serial == 2
    assert cluster.stored(RESMAN, "containers", Container) == {}
    assert cluster.stored(RESMAN, "groups", Group) == {}


def test_late_order_does_not_create_a_removed_group_again() -> None:
    cluster = Cluster(info("h1"))
    late = cluster.order("web-1", 2)
    cluster.settle()
    cluster.order("web-1", 0, remove=True)
    cluster.settle()
    cluster.statuses.clear()
    cluster.receive(late)
    cluster.run(1.0)
    assert cluster.ready() == {}
    assert not cluster.statuses["web-1"].known


def test_removal_of_an_unknown_group_is_answered_as_unknown() -> None:
    cluster = Cluster(info("h1"))
    cluster.order("never-1", 0, remove=True)
    cluster.settle()
    assert not cluster.statuses["never-1"].known
    assert cluster.statuses["never-1"].serial == 1


def test_stale_order_changes_nothing_and_is_answered_in_full() -> None:
    cluster = Cluster(info("h1"))
    first = cluster.order("web-1", 2)
    cluster.settle()
    cluster.order("web-1", 1)
    cluster.settle()
    cluster.statuses.clear()
    cluster.receive(first)
    cluster.settle()
    assert cluster.ready() == {"web-1.0": 1}
    assert cluster.statuses["web-1"].full
    assert cluster.statuses["web-1"].serial == 2


def test_changed_demand_of_a_placed_group_keeps_its_containers_and_amounts() -> None:
    cluster = Cluster(info("h1"))
    cluster.order("web-1", 1, demand(memory=GIB))
    cluster.settle()
    cluster.order("web-1", 2, demand(memory=2 * GIB, max_per_host=9))
    cluster.settle()
    assert cluster.ready() == {"web-1.0": 1, "web-1.1": 1}
    kept = cluster.resman.state.groups["web-1"].order.demand
    assert (kept.resources.memory_bytes, kept.max_per_host) == (GIB, 9)


def test_group_with_the_lower_priority_number_is_placed_first() -> None:
    cluster = Cluster(info("h1"))
    cluster.order("late-1", 1, demand(cpu=3000), priority=200)
    cluster.order("first-1", 1, demand(cpu=3000), priority=100)
    cluster.settle()
    assert cluster.ready() == {"first-1.0": 1}


def test_slot_without_room_has_a_reason_and_is_placed_when_room_appears() -> None:
    cluster = Cluster(info("h1"))
    cluster.order("big-1", 1, demand(memory=7 * GIB))
    cluster.order("web-1", 1, demand(memory=2 * GIB))
    cluster.settle()
    reason = cluster.slots["web-1.0"].reason
    assert reason.code == "memory"
    assert reason.nearest == ("h1 lacks 1 GiB memory",)
    cluster.order("big-1", 0, remove=True)
    cluster.settle()
    assert cluster.ready() == {"web-1.0": 1}
    assert cluster.slots["web-1.0"].reason is None


def test_agent_that_joins_gets_the_waiting_slots() -> None:
    cluster = Cluster()
    cluster.order("web-1", 1, demand(pools=("gpu",)))
    cluster.settle()
    assert cluster.slots["web-1.0"].reason.code == "no-agents"
    cluster.add_host(info("h1", pool="gpu"))
    cluster.run(2.0)
    assert cluster.ready() == {"web-1.0": 1}


def test_repeated_order_has_the_reason_explained_again() -> None:
    cluster = Cluster(info("h1"))
    audit = cluster.order("web-1", 1, demand(memory=20 * GIB))
    cluster.settle()
    cluster.add_host(info("h2", memory_bytes=16 * GIB))
    cluster.run(2.0)
    cluster.receive(audit)
    cluster.settle()
    assert cluster.slots["web-1.0"].reason.nearest == (
        "h2 lacks 4 GiB memory",
        "h1 lacks 12 GiB memory",
    )


def test_absurd_order_does_not_raise() -> None:
    cluster = Cluster(info("h1"))
    absurd = demand(cpu=2**62, memory=-5, disk=2**62, ports=(-1, 99999), max_per_host=-3)
    order = GroupOrder(group="x", epoch=-1, serial=-1, replicas=2**40, demand=absurd, release=(-1,))
    cluster.resman.step(cluster.now_s, [GroupOrders(orders=(order,)), object(), None])
    assert len(cluster.current("x")) == cluster.config.replicas_max


def test_thousand_replicas_are_placed_over_several_steps() -> None:
    agents = [
        info(f"h{i}", cpu_milli=400_000, memory_bytes=900 * GIB, disk_bytes=900 * GIB) for i in range(4)
    ]
    cluster = Cluster(*agents)
    cluster.order("web-1", 1000, demand(cpu=100))
    cluster.run(5.0)
    assert len(cluster.ready()) == 1000
    shares = [len(cluster.ready(host)) for host in cluster.hosts]
    assert max(shares) - min(shares) <= cluster.config.creating_max


def test_status_lists_slots_only_if_the_receiver_missed_a_version() -> None:
    cluster = Cluster(info("h1"))
    cluster.order("web-1", 2)
    cluster.settle()
    order = cluster.resman.state.groups["web-1"].order
    status = cluster.statuses["web-1"]

    def ask(epoch: int, seen: int) -> GroupStatus:
        again = replace(order, seen_epoch=epoch, seen=seen)
        return status_of(cluster.step(GroupOrders(orders=(again,))))

    same = ask(status.epoch, status.version)
    assert (same.full, same.slots, same.since, same.version) == (False, (), status.version, status.version)
    assert ask(status.epoch, status.since).full, "a status was missed"
    assert ask(status.epoch - 1, status.version).full, "another leader's count"
    assert len(ask(0, 0).slots) == 2
