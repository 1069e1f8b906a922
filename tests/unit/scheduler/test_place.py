"""Placement: which agent each container goes to."""

import random
from collections import Counter

import pytest

from galaxy.model.messages.agent import AgentInfo
from galaxy.model.resources import NOTHING, Resources
from galaxy.model.stored.agent import first_record
from galaxy.scheduler.cluster_view import ClusterView, PlacementStatus
from galaxy.scheduler.place import place
from galaxy.scheduler.requests import Load, PlacementPlan, shape_of
from tests.unit.resman.cluster import demand
from tests.unit.scheduler.build import GIB, agent, ask, load, view


def _per_agent(plan: PlacementPlan) -> dict[str, int]:
    return dict(Counter(placement.agent for placement in plan.placements))


def _where(plan: PlacementPlan) -> dict[str, str]:
    return {placement.container: placement.agent for placement in plan.placements}


def test_replicas_of_one_group_are_spread_over_agents() -> None:
    plan = place(view(agent("h1"), agent("h2"), agent("h3")), [ask(count=6)])
    assert _per_agent(plan) == {"h1": 2, "h2": 2, "h3": 2}


def test_different_groups_fill_one_agent_before_the_next_is_opened() -> None:
    cluster = view(agent("h1"), agent("h2"), agent("h3"))
    plan = place(cluster, [ask(group=f"g{number}") for number in range(8)])
    assert _per_agent(plan) == {"h1": 8}


def test_ties_go_to_the_lower_name_whatever_the_order_of_joining() -> None:
    plan = place(view(agent("h3"), agent("h1"), agent("h2")), [ask()])
    assert plan.placements[0].agent == "h1"


def test_agent_that_stays_most_balanced_is_preferred() -> None:
    cluster = view(agent("h1"), agent("h2"))
    cluster.charge("cpu", "h1", "a", load(cpu_milli=2000, memory_bytes=0, disk_bytes=0))
    cluster.charge("both", "h2", "b", load(cpu_milli=1500, memory_bytes=3 * GIB, disk_bytes=0))
    plan = place(cluster, [ask()])
    assert plan.placements[0].agent == "h2"


def test_large_group_opens_an_empty_agent_only_when_used_ones_have_a_tenth_of_it() -> None:
    big = {"cpu_milli": 100_000, "memory_bytes": 100 * GIB}
    cluster = view(*[agent(f"h{i}", **big) for i in range(4)])
    for name in ("h0", "h1"):
        cluster.charge(f"x{name}", name, "x", load())
    assert set(_per_agent(place(cluster, [ask(count=20)]))) == {"h0", "h1", "h2", "h3"}
    few = view(*[agent(f"h{i}", **big) for i in range(40)])
    for number in range(20):
        few.charge(f"x{number}", f"h{number}", "x", load())
    assert set(_per_agent(place(few, [ask(count=30)]))) == {f"h{i}" for i in range(20)}


def test_capacity_is_never_exceeded_and_the_rest_is_refused() -> None:
    plan = place(view(agent("h1"), agent("h2", cpu_milli=1000)), [ask(count=20)])
    assert _per_agent(plan) == {"h1": 8, "h2": 2}
    assert plan.refusals[0].containers == tuple(f"web.{slot}" for slot in range(10, 20))


@pytest.mark.parametrize(
    ("scarce", "fit"),
    [
        ({"cpu_milli": 1000}, 2),
        ({"memory_bytes": 3 * GIB}, 3),
        ({"disk_bytes": 4 * GIB}, 4),
        ({"containers": 5}, 5),
        ({"ports_low": 20000, "ports_high": 20005}, 6),
        ({"ports_low": 0, "ports_high": 0}, 0),
    ],
)
def test_each_resource_is_counted(scarce: dict[str, int], fit: int) -> None:
    plan = place(view(agent("h1", **scarce)), [ask(count=8, of=load(dynamic=1))])
    assert len(plan.placements) == fit


def test_static_port_is_assigned_once_per_agent() -> None:
    cluster = view(agent("h1"), agent("h2"))
    plan = place(cluster, [ask(count=3, of=load(ports=(8080,)))])
    assert _per_agent(plan) == {"h1": 1, "h2": 1}
    other = place(cluster, [ask(group="other", of=load(ports=(8080,)))])
    assert not other.placements
    cluster.release("web.0")
    again = place(cluster, [ask(group="other", of=load(ports=(8080,)))])
    assert _where(again) == {"other.0": "h1"}


def test_static_port_inside_the_dynamic_range_takes_one_of_it() -> None:
    cluster = view(agent("h1", ports_low=20000, ports_high=20002))
    place(cluster, [ask(of=load(ports=(20001,)))])
    plan = place(cluster, [ask(group="other", count=3, of=load(dynamic=1))])
    assert len(plan.placements) == 2


def test_port_that_an_agent_chose_is_not_free_for_a_static_one() -> None:
    cluster = view(agent("h1"))
    place(cluster, [ask(of=load(dynamic=1))])
    cluster.created("web.0", load(ports=(20004,)))
    assert int(cluster.ports[0]) == 9
    assert not place(cluster, [ask(group="other", of=load(ports=(20004,)))]).placements


def test_pools_tag_and_required_limits_filter_agents() -> None:
    cluster = view(
        agent("h1", pool="a", tags=("ssd",), enforced=("cpu", "memory")),
        agent("h2", pool="b", tags=("ssd",), enforced=("cpu",)),
        agent("h3", pool="a", enforced=("cpu", "memory")),
    )
    assert place(cluster, [ask("p", pools=("b", "c"))]).placements[0].agent == "h2"
    assert place(cluster, [ask("t", tag="ssd", pools=("a",))]).placements[0].agent == "h1"
    enforcing = place(cluster, [ask("e", 3, require=("memory",), max_per_host=1)])
    assert set(_per_agent(enforcing)) == {"h1", "h3"}


def test_max_per_host_counts_containers_that_are_placed_already() -> None:
    cluster = view(agent("h1"), agent("h2"))
    place(cluster, [ask(count=2, max_per_host=2)])
    plan = place(cluster, [ask(count=4, first=2, max_per_host=2)])
    assert _per_agent(plan) == {"h1": 1, "h2": 1}


@pytest.mark.parametrize("status", [PlacementStatus.SUSPECT, PlacementStatus.DEAD, PlacementStatus.CORDONED])
def test_agent_that_is_not_open_gets_nothing(status: PlacementStatus) -> None:
    cluster = view(agent("h1"), agent("h2"))
    cluster.set_status("h1", status)
    assert set(_per_agent(place(cluster, [ask(count=4)]))) == {"h2"}
    cluster.set_status("h1", PlacementStatus.OPEN)
    assert set(_per_agent(place(cluster, [ask(count=4, first=4)]))) == {"h1"}


def test_agents_to_avoid_are_a_last_resort() -> None:
    cluster = view(agent("h1"), agent("h2"))
    assert place(cluster, [ask(avoid=("h1", "unknown"))]).placements[0].agent == "h2"
    cluster.set_status("h2", PlacementStatus.DEAD)
    assert place(cluster, [ask("b", avoid=("h1",))]).placements[0].agent == "h1"


def test_flaky_agent_gets_one_container_at_a_time_and_last() -> None:
    cluster = view(agent("h1"), agent("h2", cpu_milli=1000))
    cluster.set_flaky("h1", True)
    assert _per_agent(place(cluster, [ask(count=5)])) == {"h2": 2, "h1": 1}
    cluster.created("web.2")
    assert _per_agent(place(cluster, [ask(count=2, first=5)])) == {"h1": 1}
    cluster.set_flaky("h1", False)
    assert _per_agent(place(cluster, [ask(count=2, first=7)])) == {"h1": 2}


def test_agent_that_creates_as_many_as_it_may_gets_no_more() -> None:
    cluster = view(agent("h1"), creating_max=3)
    plan = place(cluster, [ask(count=5)])
    assert len(plan.placements) == 3
    assert plan.refusals[0].reason.code == "busy"
    cluster.created("web.0")
    assert len(place(cluster, [ask(count=2, first=3)]).placements) == 1


def test_ask_with_the_lower_priority_number_goes_first() -> None:
    cluster = view(agent("h1", cpu_milli=500))
    plan = place(cluster, [ask("late", priority=200), ask("first", priority=0)])
    assert _where(plan) == {"first.0": "h1"}


def test_only_restricts_placement_to_the_given_rows() -> None:
    cluster = view(agent("h1"), agent("h2"))
    plan = place(cluster, [ask(count=20)], only=[cluster.row("h2")])
    assert _per_agent(plan) == {"h2": 8}
    assert plan.refusals == ()


def test_release_gives_back_exactly_what_was_charged() -> None:
    cluster = view(agent("h1"), agent("h2"))
    before = _amounts(cluster)
    plan = place(cluster, [ask(count=6, of=load(ports=(80, 20003), dynamic=2))])
    for container in _where(plan):
        cluster.created(container, load(ports=(80, 20003, 20005, 20006)))
        cluster.release(container)
        cluster.release(container)
    assert _amounts(cluster) == before
    assert cluster.port_rows == cluster.group_rows == {}


def test_agent_that_shrinks_below_what_is_placed_on_it_gets_nothing_more() -> None:
    cluster = view(agent("h1"))
    place(cluster, [ask(count=4)])
    cluster.join(first_record(agent("h1", memory_bytes=2 * GIB, ports_low=30000, ports_high=30003)))
    assert int(cluster.free_of("memory_bytes")[0]) == -2 * GIB
    assert int(cluster.ports[0]) == 4
    assert not place(cluster, [ask("more")]).placements


def test_shape_of_a_demand_has_static_and_dynamic_ports_apart() -> None:
    shape = shape_of(demand(ports=(0, 80, 0, 443), pools=("b", "a"), tag="ssd", max_per_host=-1))
    asked = Resources(cpu_milli=1000, memory_bytes=GIB, disk_bytes=GIB, containers=1)
    assert shape.load == Load(asked, (80, 443), 2)
    assert (shape.pools, shape.tag, shape.max_per_host) == (("a", "b"), "ssd", 0)


def test_agents_keep_their_rows_while_the_view_grows() -> None:
    cluster = view(*[agent(f"h{i:03}") for i in range(100)])
    assert [cluster.row(f"h{i:03}") for i in range(100)] == list(range(100))
    assert cluster.row("unknown") == -1


@pytest.mark.parametrize("seed", range(20))
def test_random_clusters_are_never_overfull_and_nothing_that_fits_is_refused(seed: int) -> None:
    dice = random.Random(seed)
    agents = [
        agent(
            f"h{i}",
            cpu_milli=dice.randrange(0, 5000),
            memory_bytes=dice.randrange(0, 9) * GIB,
            pool=dice.choice("ab"),
            tags=tuple(dice.sample(("x", "y"), dice.randrange(3))),
            containers=dice.randrange(1, 12),
            ports_high=20000 + dice.randrange(12),
        )
        for i in range(12)
    ]
    cluster = view(*agents)
    held: dict[str, list[tuple[str, object]]] = {one.agent: [] for one in agents}
    for number in range(25):
        one = ask(
            f"g{dice.randrange(8)}",
            dice.randrange(1, 9),
            first=number * 100,
            of=load(
                cpu_milli=dice.randrange(0, 900),
                ports=tuple(dice.sample((80, 81, 20003), dice.randrange(2))),
                dynamic=dice.randrange(3),
            ),
            pools=dice.choice(((), ("a",), ("a", "b"))),
            tag=dice.choice(("", "", "x")),
            max_per_host=dice.choice((0, 1, 3)),
        )
        plan = place(cluster, [one])
        for container, name in _where(plan).items():
            held[name].append((one.group, one.shape))
            assert container in one.containers
        for refusal in plan.refusals:
            assert not any(_fits(info, held[info.agent], one.group, one.shape) for info in agents)
            assert sum(refusal.reason.counts.values()) == len(agents)
        for info in agents:
            assert not _overfull(info, held[info.agent])


def _amounts(cluster: ClusterView) -> list[list[int]]:
    cluster.update_room()
    columns = (*cluster.free, cluster.ports, cluster.room, cluster.placed)
    return [column[: len(cluster)].tolist() for column in columns]


def _fits(info: AgentInfo, held: list, group: str, shape: object) -> bool:
    """Check one more container against every constraint, one agent at a time."""
    right = (not shape.pools or info.pool in shape.pools) and (not shape.tag or shape.tag in info.tags)
    crowded = shape.max_per_host and sum(g == group for g, _ in held) >= shape.max_per_host
    return right and not crowded and not _overfull(info, [*held, (group, shape)])


def _overfull(info: AgentInfo, held: list) -> bool:
    loads = [shape.load for _, shape in held]
    static = [port for one in loads for port in one.ports]
    size = info.ports_high - info.ports_low + 1
    inside = sum(info.ports_low <= port <= info.ports_high for port in static)
    ranged = inside + sum(one.dynamic for one in loads)
    return (
        not sum((one.resources for one in loads), start=NOTHING).fits(info.resources)
        or len(set(static)) < len(static)
        or (ranged > size and ranged > 0)
    )


def test_container_goes_where_it_evens_out_what_is_free() -> None:
    cluster = view(agent("h1"), agent("h2"))
    cluster.charge("cpu", "h1", "a", load(cpu_milli=2000, memory_bytes=GIB, disk_bytes=0))
    cluster.charge("memory", "h2", "b", load(cpu_milli=500, memory_bytes=4 * GIB, disk_bytes=0))
    much_memory = ask(group="m", of=load(cpu_milli=500, memory_bytes=3 * GIB))
    much_cpu = ask(group="c", of=load(cpu_milli=1500, memory_bytes=GIB))
    assert _where(place(cluster, [much_memory, much_cpu])) == {"m.0": "h1", "c.0": "h2"}
