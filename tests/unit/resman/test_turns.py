"""Groups take turns when containers are placed, so that nobody waits for all containers of a large one."""

from __future__ import annotations

from galaxy.model.messages.agent import AgentReport
from galaxy.model.messages.container import ContainerOrders, ContainerState, GroupOrders
from galaxy.model.messages.names import RESMAN
from galaxy.resman.logic import ResManConfig
from galaxy.resman.logic.placement.placement import SHARE_MIN
from galaxy.resman.logic.placement.queue import PlacementQueue
from tests.unit.resman.cluster import Cluster, demand, info

SMALL = demand(cpu=1, memory=1, disk=1)
LARGE_REPLICAS = 1_000


def cluster(placements_max: int = 100) -> Cluster:
    agents = (info(f"h{number}") for number in range(1, 21))
    return Cluster(*agents, config=ResManConfig(placements_max=placements_max, creating_max=10_000))


def waiting(cluster: Cluster, group: str) -> int:
    """Return how many slots of a group have never been placed."""
    return sum(row.state is ContainerState.PENDING for row in cluster.current(group))


def ready(cluster: Cluster, group: str) -> int:
    return sum(row.state is ContainerState.READY for row in cluster.current(group))


def test_small_group_behind_a_large_one_is_placed_in_the_next_step() -> None:
    large = cluster(placements_max=20)
    large.order("large", LARGE_REPLICAS, SMALL)
    large.run_until(lambda: waiting(large, "large") < LARGE_REPLICAS, 1.0)
    large.order("small", 1, SMALL)
    large.run_until(lambda: bool(large.current("small")), 1.0)
    assert waiting(large, "large") > 0
    large.run_until(lambda: ready(large, "small") == 1, 1.0)
    assert ready(large, "large") < LARGE_REPLICAS
    large.run_until(lambda: ready(large, "large") == LARGE_REPLICAS, 5.0)


def test_first_containers_of_a_large_group_are_ready_while_others_wait_for_a_place() -> None:
    large = cluster(placements_max=20)
    large.order("large", LARGE_REPLICAS, SMALL)
    large.run_until(lambda: ready(large, "large") > 0, 1.0)
    assert waiting(large, "large") > 0
    large.run_until(lambda: ready(large, "large") == LARGE_REPLICAS, 5.0)


def test_large_groups_share_a_step() -> None:
    shared = cluster()
    names = ("large-a", "large-b", "large-c", "large-d")
    orders = tuple(order for name in names for order in shared.order(name, LARGE_REPLICAS, SMALL).orders)
    shared.step(GroupOrders(orders=orders))
    placed = [LARGE_REPLICAS - waiting(shared, name) for name in names]
    assert max(placed) - min(placed) <= 100 / len(names)
    shared.run_until(lambda: all(ready(shared, name) == LARGE_REPLICAS for name in names), 10.0)


def test_many_groups_are_placed_in_the_order_in_which_they_came() -> None:
    many = cluster(placements_max=2 * SHARE_MIN)
    names = [f"group{number:02d}" for number in range(20)]
    for name in names:
        many.order(name, 4 * SHARE_MIN, SMALL)
    many.step()
    assert [waiting(many, name) < 4 * SHARE_MIN for name in names] == [True, True] + 18 * [False]
    many.run_until(lambda: all(ready(many, name) == 4 * SHARE_MIN for name in names), 10.0)


def test_more_important_group_is_placed_before_all_others() -> None:
    shared = cluster()
    shared.order("large", LARGE_REPLICAS, SMALL, priority=200)
    shared.run_until(lambda: waiting(shared, "large") < LARGE_REPLICAS, 1.0)
    shared.order("important", 300, SMALL, priority=100)
    shared.run_until(lambda: bool(shared.current("important")), 1.0)
    before = waiting(shared, "large")
    shared.run_until(lambda: waiting(shared, "important") == 0, 1.0)
    assert before - waiting(shared, "large") < 100
    shared.run_until(lambda: ready(shared, "large") == LARGE_REPLICAS, 5.0)


def test_room_that_comes_free_is_not_forgotten_when_the_step_has_no_placements_left() -> None:
    full = Cluster(info("h1"), config=ResManConfig(placements_max=4))
    whole = demand(cpu=4000)
    full.order("first", 1, whole)
    full.run_until(lambda: ready(full, "first") == 1, 1.0)
    for name in ("refused-a", "refused-b"):
        full.order(name, 4, demand(cpu=500))
    full.run_until(lambda: len(full.resman.state.refused_groups) == 2, 1.0)
    full.order("first", 0, whole)
    names = ("refused-a", "refused-b")
    full.run_until(lambda: all(ready(full, name) == 4 for name in names), 3.0)


def test_slots_of_all_groups_get_the_reason_of_safe_mode() -> None:
    cut = Cluster(info("h1"), info("h2"))
    cut.cut_off("h1", "h2")
    cut.run_until(lambda: cut.resman.safe_mode is not None, 60.0)
    for name in ("first", "second"):
        cut.order(name, 2)
        cut.settle()
        assert [row.reason for row in cut.current(name)] == 2 * [cut.resman.safe_mode]


def test_group_that_is_added_again_keeps_its_turn() -> None:
    queue = PlacementQueue()
    for name in ("a", "b", "a"):
        queue.add(name, 100)
    assert queue.first(100, 5) == ["a", "b"]
    queue.move_back("a")
    assert queue.first(100, 1) == ["b"]


def test_group_with_a_new_priority_waits_in_that_line_only() -> None:
    queue = PlacementQueue()
    queue.add("a", 100)
    queue.add("b", 100)
    queue.add("a", 50)
    assert queue.priorities() == [50, 100]
    assert queue.first(50, 5) == ["a"]
    assert queue.first(100, 5) == ["b"]
    queue.drop("a")
    queue.drop("b")
    assert (len(queue), queue.priorities(), queue.first(100, 5)) == (0, [], [])


def test_commands_whose_outcomes_are_lost_are_sent_again_a_few_at_a_time() -> None:
    agents = (info(f"h{number}") for number in range(1, 11))
    config = ResManConfig(resends_per_step_max=10, creating_max=10_000)
    lossy = Cluster(*agents, config=config)
    lossy.bus.loses = lambda send: isinstance(send.body, AgentReport)
    lossy.order("large", 300, SMALL)
    lossy.run(1.0)
    lossy.sends.clear()
    ticks = lossy.leaders[RESMAN].ticks
    lossy.run(6.0)
    sent = [send.body for send in lossy.sends if isinstance(send.body, ContainerOrders)]
    again = sum(len(orders.create) for orders in sent)
    assert 0 < again <= 10 * (lossy.leaders[RESMAN].ticks - ticks)
    lossy.bus.loses = None
    lossy.run_until(lambda: ready(lossy, "large") == 300, 120.0)
