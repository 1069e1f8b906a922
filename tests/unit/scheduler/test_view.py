"""Charging many containers at once has the result of charging them one by one."""

import random

import numpy as np

from galaxy.model.resources import AMOUNT_MAX
from galaxy.scheduler.cluster_view import Charge, ClusterView
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
