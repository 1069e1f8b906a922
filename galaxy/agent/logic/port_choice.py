"""Choose the ports and the uid of a container."""

from __future__ import annotations

from collections.abc import Set

from galaxy.model.base import stable_hash
from galaxy.model.messages.container import PortDemand, Reason

TRIES_MAX = 65536


def choose_ports(
    demands: tuple[PortDemand, ...],
    *,
    key: str,
    low: int,
    high: int,
    listening: Set[int],
    used: Set[int],
    assigned: Set[int],
) -> dict[str, int] | Reason:
    """Return a port for every name, or why that is impossible.

    Fixed ports must be neither ``listening`` nor ``assigned`` to another container. Chosen ports
    come from ``low`` to ``high``, both included, and are in none of the three sets. The search
    starts at a port that ``key`` and the name determine, so that a port just released is not
    reused at once by another container.
    """
    ports: dict[str, int] = {}
    fixed = {demand.port for demand in demands if demand.port}
    for demand in demands:
        if not demand.port:
            continue
        if demand.port in listening or demand.port in assigned:
            by = "another container" if demand.port in assigned else "a socket of the host"
            return Reason(
                code="port-in-use",
                message=f"port {demand.port} ({demand.name}) is in use by {by}",
                counts={"port": demand.port},
            )
        ports[demand.name] = demand.port
    taken = set(fixed)
    for demand in demands:
        if demand.port:
            continue
        port = _search(low, high, stable_hash(key, demand.name), listening, used, assigned, taken)
        if port is None:
            return Reason(
                code="no-port",
                message=f"no port of {low}-{high} is free for {demand.name}",
                counts={"range": max(0, high - low + 1), "held": len(assigned), "used": len(used)},
            )
        ports[demand.name] = port
        taken.add(port)
    return ports


def choose_uid(key: str, low: int, high: int, assigned: Set[int]) -> int | Reason:
    """Return a uid from ``low`` to ``high`` that is not ``assigned``, or why there is none.

    As with ports, ``key`` determines where the search starts, so that a uid just released is not
    reused at once.
    """
    uid = _search(low, high, stable_hash(key, "uid"), assigned)
    if uid is not None:
        return uid
    counts = {"range": max(0, high - low + 1), "held": len(assigned)}
    return Reason(code="no-uid", message=f"no uid of {low}-{high} is free", counts=counts)


def _search(low: int, high: int, start: int, *busy: Set[int]) -> int | None:
    """Return the first number in no ``busy`` set, from ``start`` on and then from ``low``."""
    size = high - low + 1
    if size <= 0:
        return None
    for step in range(min(size, TRIES_MAX)):
        number = low + (start + step) % size
        if not any(number in numbers for numbers in busy):
            return number
    return None
