"""Adding many agents, and charging many containers, at once has the result of doing it one by one."""

import random

import numpy as np

from galaxy.model.resources import AMOUNT_MAX
from galaxy.model.stored.agent import AgentRecord, first_record
from galaxy.scheduler.cluster_view import PORT_MAX, Charge, ClusterView, PlacementStatus
from galaxy.scheduler.requests import Load
from tests.unit.scheduler.build import GIB, agent, load, view

COLUMNS = ("ports", "creating", "placed", "room")


def random_charges(dice: random.Random, count: int) -> list[tuple[str, str, str, Load, bool]]:
    """Return charges on five agents; some share ports, and some ports are outside the dynamic range."""
    return [
        (
            f"c{number}",
            f"h{dice.randrange(5)}",
            f"g{dice.randrange(4)}",
            load(
                cpu_milli=dice.choice((0, 100, AMOUNT_MAX)),
                memory_bytes=dice.randrange(GIB),
                ports=tuple(sorted({dice.randrange(19990, 20020) for _ in range(dice.randrange(3))})),
                dynamic=dice.randrange(2),
            ),
            dice.random() < 0.3,
        )
        for number in range(count)
    ]


def charged(charges: list[tuple[str, str, str, Load, bool]], *, at_once: bool) -> ClusterView:
    built = view(*[agent(f"h{number}") for number in range(5)])
    if at_once:
        built.charge_all(
            {
                key: Charge(built.row(name), group, takes, creating)
                for key, name, group, takes, creating in charges
            }
        )
    else:
        for key, name, group, takes, creating in charges:
            built.charge(key, name, group, takes, creating=creating)
    built.update_room()
    return built


def test_many_charges_at_once_equal_the_same_charges_one_by_one() -> None:
    for seed in range(20):
        charges = random_charges(random.Random(seed), 60 * (seed % 3))
        one, many = charged(charges, at_once=False), charged(charges, at_once=True)
        assert all(map(np.array_equal, one.free, many.free)), seed
        for column in COLUMNS:
            assert np.array_equal(getattr(one, column), getattr(many, column)), (seed, column)
        assert one.port_rows == many.port_rows
        assert one.group_rows == many.group_rows
        assert all(one.charge_of(key) == many.charge_of(key) for key, *_ in charges)
        for key, *_ in charges:
            one.release(key)
            many.release(key)
        assert np.array_equal(one.ports, many.ports)


def test_charges_at_once_can_be_released_and_repeated_before_anything_asks_for_ports() -> None:
    for seed in range(20):
        charges = random_charges(random.Random(seed), 60)
        one, many = charged(charges, at_once=False), charged(charges, at_once=True)
        for key, name, group, takes, _ in charges[::2]:
            for each in (one, many):
                each.release(key)
                each.charge(f"{key}-again", name, group, takes)
        assert np.array_equal(one.ports, many.ports), seed
        assert one.port_rows == many.port_rows


def test_charges_at_once_may_have_ports_that_no_host_has() -> None:
    """A report may contain any number."""
    odd = (-5, 0, PORT_MAX, PORT_MAX + 1, 2**40, 2**70)
    charges = [(f"c{port}-{n}", "h1", "g", load(ports=(port,)), False) for port in odd for n in range(2)]
    one, many = charged(charges, at_once=False), charged(charges, at_once=True)
    assert np.array_equal(one.ports, many.ports)
    assert one.port_rows == many.port_rows


def random_agent(dice: random.Random, name: str) -> AgentRecord:
    return first_record(
        agent(
            name,
            pool=dice.choice(("main", "other")),
            cpu_milli=dice.choice((-1, 0, 4000, 2**70)),
            containers=dice.choice((0, 40)),
            ports_low=dice.choice((0, 20_000, 30_000)),
            ports_high=dice.choice((0, 20_100, 2**70)),
        )
    )


def test_many_agents_that_join_at_once_equal_the_same_agents_one_by_one() -> None:
    for seed in range(20):
        dice = random.Random(seed)
        joining = [
            (random_agent(dice, f"h{number}"), dice.choice(list(PlacementStatus)))
            for number in range(20 * (seed % 4))
        ]
        one, many = ClusterView(), ClusterView()
        for record, status in joining:
            one.join(record, status)
        first = len(joining) // 2
        many.join_all(joining[:first])
        many.join_all(joining[first:])
        for each in (one, many):
            each.join(random_agent(random.Random(seed), "last"))
            each.update_room()
        size = len(one)
        assert (one.names, one.records) == (many.names, many.records)
        assert [one.row(name) for name in one.names] == [many.row(name) for name in one.names]
        for column in ("ports", "ports_low", "ports_high", "status", "room"):
            assert np.array_equal(getattr(one, column)[:size], getattr(many, column)[:size]), (seed, column)
        for mine, theirs in ((one.free, many.free), (one.shares, many.shares)):
            assert all(np.array_equal(a[:size], b[:size]) for a, b in zip(mine, theirs, strict=True)), seed
