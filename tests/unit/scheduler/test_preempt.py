"""Preemption: the cheapest victims, against trying every set; and none where it would not help."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, combinations
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from galaxy.model.messages.container import Constraints
from galaxy.scheduler.cluster_view import ClusterView, PlacementStatus
from galaxy.scheduler.place import place
from galaxy.scheduler.preempt import Cost, Holder, Preemption, free_without, preempt, reservable
from galaxy.scheduler.requests import Ask, JobGroups
from tests.unit.scheduler.build import GIB, agent, ask, load, view

SERVICE, BATCH, BEST_EFFORT = 100, 200, 300


class Held(NamedTuple):
    """A container of half a core times ``cpu`` and ``memory`` GiB."""

    priority: int
    cpu: int
    memory: int
    port: int = 0
    leaving: bool = False


class World:
    """A view with containers, and what preemption asks about them."""

    def __init__(self, hosts: list[list[Held]], **facts: Any) -> None:
        self.hosts = hosts
        self.view = view(*(agent(f"h{at}", **facts) for at in range(len(hosts))))
        self.holders: dict[str, list[Holder]] = {}
        for at, held in enumerate(hosts):
            self.holders[f"h{at}"] = [self._hold(at, number, one) for number, one in enumerate(held)]

    def _hold(self, at: int, number: int, one: Held) -> Holder:
        taken = load(
            cpu_milli=500 * one.cpu,
            memory_bytes=one.memory * GIB,
            disk_bytes=0,
            ports=(one.port,) if one.port else (),
        )
        holder = Holder(f"c{at}.{number}", f"g{at}.{number}", one.priority, taken, one.leaving)
        self.view.charge(holder.key, f"h{at}", holder.group, taken)
        return holder

    def preempt(self, asked: Ask) -> Preemption | None:
        every = chain.from_iterable(self.holders.values())
        less = [(one.group, one.load) for one in every if one.priority > asked.priority or one.leaving]
        return preempt(self.view, asked, free_without(self.view, less), lambda name: self.holders[name])

    def fits_after(self, asked: Ask, name: str, victims: tuple[str, ...]) -> bool:
        """Return whether ``place`` places the container on ``name``, with the victims gone."""
        copy = ClusterView(creating_max=1000)
        for record in self.view.records:
            status = PlacementStatus.OPEN if record.agent == name else PlacementStatus.SUSPECT
            copy.join(record, status)
        for agent_name, held in self.holders.items():
            for one in held:
                if one.key not in victims and not one.leaving:
                    copy.charge(one.key, agent_name, one.group, one.load)
        return bool(place(copy, [asked]).placements)


def _cost(world: World, name: str, victims: tuple[str, ...]) -> Cost:
    held = [one for one in world.holders[name] if one.key in victims]
    if not held:
        return Cost(-(1 << 30), 0, 0.0)
    share = sum(
        one.load.resources.cpu_milli / 4000 + one.load.resources.memory_bytes / (8 * GIB) for one in held
    )
    return Cost(-min(one.priority for one in held), len(held), round(share, 9))


def _cheapest(world: World, asked: Ask) -> tuple[Cost, str] | None:
    """Try every set of victims on every agent."""
    found = []
    for name, held in world.holders.items():
        keys = [one.key for one in held if one.priority > asked.priority and not one.leaving]
        every = chain.from_iterable(combinations(keys, count) for count in range(len(keys) + 1))
        fitting = [victims for victims in every if world.fits_after(asked, name, victims)]
        found += [(_cost(world, name, victims), name) for victims in fitting]
    return min(found, default=None)


_HELD = st.builds(
    Held,
    priority=st.sampled_from((0, SERVICE, BATCH, BEST_EFFORT)),
    cpu=st.integers(0, 4),
    memory=st.integers(0, 4),
    port=st.sampled_from((0, 0, 0, 80)),
    leaving=st.sampled_from((False, False, False, True)),
)


@given(
    hosts=st.lists(st.lists(_HELD, max_size=4), min_size=1, max_size=3),
    priority=st.sampled_from((0, SERVICE, BATCH, BEST_EFFORT)),
    cpu=st.integers(1, 9),
    memory=st.integers(1, 9),
    port=st.sampled_from((0, 80)),
    dynamic=st.integers(0, 2),
)
def test_victims_are_those_that_cost_least_of_all_sets_on_all_agents(
    hosts: list[list[Held]], priority: int, cpu: int, memory: int, port: int, dynamic: int
) -> None:
    world = World(hosts)
    wanted = load(
        cpu_milli=500 * cpu, memory_bytes=memory * GIB, dynamic=dynamic, ports=(port,) if port else ()
    )
    asked = ask(of=wanted, priority=priority)
    expected, chosen = _cheapest(world, asked), world.preempt(asked)
    if expected is None or chosen is None:
        assert chosen is None
        assert expected is None
        return
    assert (_cost(world, chosen.agent, chosen.victims), chosen.agent) == expected
    assert world.fits_after(asked, chosen.agent, chosen.victims)


def test_container_of_equal_importance_is_never_a_victim() -> None:
    world = World([[Held(SERVICE, 8, 1)]])
    assert world.preempt(ask(priority=SERVICE)) is None
    assert world.preempt(ask(priority=0)) == Preemption(agent="h0", victims=("c0.0",))


def test_several_best_effort_containers_leave_before_one_of_batch() -> None:
    world = World([[Held(BATCH, 8, 1)], [Held(BEST_EFFORT, 2, 1)] * 4])
    assert world.preempt(ask(of=load(cpu_milli=4000))) == Preemption(
        agent="h1", victims=("c1.0", "c1.1", "c1.2", "c1.3")
    )


def test_fewest_and_then_smallest_victims_leave() -> None:
    world = World([[Held(BATCH, 3, 3), Held(BATCH, 2, 2), Held(BATCH, 2, 1), Held(BATCH, 1, 1)]])
    assert world.preempt(ask(of=load(cpu_milli=1000))) == Preemption(agent="h0", victims=("c0.2",))


def test_nothing_is_preempted_where_a_container_leaves_already_or_where_it_would_not_help() -> None:
    leaving = World([[Held(BATCH, 8, 1)], [Held(BATCH, 8, 1, leaving=True)]])
    assert leaving.preempt(ask()) == Preemption(agent="h1", victims=())
    too_large = World([[Held(BATCH, 8, 1)]])
    assert too_large.preempt(ask(of=load(memory_bytes=9 * GIB))) is None
    assert too_large.preempt(ask(tag="ssd")) is None


def test_victim_that_the_container_wants_to_be_near_stays() -> None:
    world = World([[Held(BATCH, 5, 1), Held(BATCH, 3, 1)]])
    near = replace(ask(of=load(cpu_milli=1000)), near=(JobGroups("db", ("g0.1",)),))
    assert world.preempt(near) == Preemption(agent="h0", victims=("c0.0",))
    apart = replace(ask(), apart=(JobGroups("db", ("g0.0", "g0.1")),))
    assert world.preempt(apart) == Preemption(agent="h0", victims=("c0.0", "c0.1"))


def test_large_agent_with_many_containers_is_searched_without_trying_every_set() -> None:
    world = World([[Held(BATCH, 1, 1)] * 300], cpu_milli=150_000, memory_bytes=300 * GIB)
    found = world.preempt(ask(of=load(cpu_milli=20_000), constraints=Constraints()))
    assert found is not None
    assert len(found.victims) == 40


def test_agent_is_reserved_on_which_enough_containers_will_end() -> None:
    world = World([[Held(SERVICE, 4, 1), Held(BATCH, 4, 1)], [Held(BATCH, 4, 1), Held(BATCH, 4, 1)]])
    asked = ask(of=load(cpu_milli=4000), priority=BATCH)

    def reserved(ends: Callable[[Holder], bool]) -> str:
        every = chain.from_iterable(world.holders.values())
        free = free_without(world.view, [(one.group, one.load) for one in every if ends(one)])
        return reservable(world.view, asked, free, lambda name: world.holders[name], ends)

    assert reserved(lambda one: one.priority == BATCH) == "h1"
    assert reserved(lambda one: one.key == "c1.0") == ""
