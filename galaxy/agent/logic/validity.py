"""Check the numbers in orders. An agent refuses an order with an impossible number and reports why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from galaxy.model.messages.container import CreateContainer, Demand, DestroyContainer
from galaxy.model.messages.pod import PodOrder

NUMBER_MAX: Final = (1 << 53) - 1
"""Largest integer that every JSON reader keeps exactly."""
SHOWN_MAX: Final = 1 << 64
STOP_TIMEOUT_S_MAX: Final = 86_400.0


def problem_of(order: CreateContainer | DestroyContainer | PodOrder) -> str:
    """Return which numbers of an order are impossible, and why; empty if none is."""
    return "; ".join(_problems(order))


def _problems(order: CreateContainer | DestroyContainer | PodOrder) -> Iterator[str]:
    yield from _within("incarnation", order.incarnation, 1, NUMBER_MAX)
    if isinstance(order, CreateContainer):
        yield from _within("size", order.size, 0, NUMBER_MAX)
        yield from _demand(order.demand)
    if isinstance(order, PodOrder):
        yield from _within("generation", order.generation, 1, NUMBER_MAX)
        yield from _within("revision", order.revision, 0, NUMBER_MAX)
        yield from _within("index", order.index, 0, NUMBER_MAX)
        yield from _within("stop_timeout", order.stop_timeout, 0.0, STOP_TIMEOUT_S_MAX)


def _demand(demand: Demand) -> Iterator[str]:
    if not demand.tasks:
        yield "tasks is empty"
    for task in demand.tasks:
        where = f"task {task.name[:80]}"
        yield from _within(f"cpu_milli of {where}", task.cpu_milli, 0, NUMBER_MAX)
        yield from _within(f"memory_bytes of {where}", task.memory_bytes, 0, NUMBER_MAX)
        yield from _within(f"pids_max of {where}", task.pids_max, 1, NUMBER_MAX)
        yield from _within(f"io_weight of {where}", task.io_weight, 0, NUMBER_MAX)
    for volume in (demand.workspace, *demand.volumes):
        yield from _within(f"size of volume {volume.path[:80]}", volume.size_bytes, 1, NUMBER_MAX)
    for port in demand.ports:
        yield from _within(f"port {port.name[:80]}", port.port, 0, 65_535)


def _within(name: str, value: float, low: float, high: float) -> Iterator[str]:
    if not low <= value <= high:  # Which no NaN is.
        yield f"{name} is {_shown(value)}, not from {low:.0f} to {high:.0f}"


def _shown(value: float) -> str:
    """Return a number for people; it may have thousands of digits."""
    if abs(value) > SHOWN_MAX:
        return "less than -2**64" if value < 0 else "more than 2**64"
    return str(value)
