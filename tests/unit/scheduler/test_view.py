"""The view built in bulk is the view built one by one."""

import random

import numpy as np

from galaxy.scheduler.cluster_view import ClusterView
from galaxy.scheduler.requests import AMOUNT_MAX, Load
from tests.unit.scheduler.build import GIB, agent, load, view

COLUMNS = ("cpu", "memory", "disk", "ports", "slots", "making", "held", "room")


def holdings(dice: random.Random, count: int) -> list[tuple[str, str, str, Load, bool]]:
    """Return what containers hold: some share ports, some are out of range, some know none yet."""
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


def built(bulk: bool, held: list[tuple[str, str, str, Load, bool]]) -> ClusterView:
    made = view(*[agent(f"h{number}") for number in range(5)])
    if bulk:
        made.hold_all(held)
    else:
        for key, name, group, takes, making in held:
            made.hold(key, name, group, takes, making=making)
    made.settle()
    return made


def test_many_holdings_at_once_are_as_if_held_one_after_the_other() -> None:
    for seed in range(20):
        held = holdings(random.Random(seed), 60 * (seed % 3))
        one, many = built(False, held), built(True, held)
        for column in COLUMNS:
            assert np.array_equal(getattr(one, column), getattr(many, column)), (seed, column)
        assert one.port_rows == many.port_rows
        assert one.group_rows == many.group_rows
        assert all(one.holding(key) == many.holding(key) for key, *_ in held)
        for key, *_ in held:
            one.release(key)
            many.release(key)
        assert np.array_equal(one.ports, many.ports)
