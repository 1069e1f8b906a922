"""Why a container has no place: every agent's first failing constraint, counted, and the nearest.

After Nomad's placement metrics: "no host fits" is an explanation with numbers, not an error.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from galaxy.model.messages.container import Reason
from galaxy.scheduler.cluster_view import Bools, ClusterView, Ints, Standing
from galaxy.scheduler.requests import Ask, Shape
from galaxy.units import format_bytes, format_cpu

NEAREST: Final = 3

PHRASES: Final[dict[str, str]] = {
    "cpu": "lack cpu",
    "memory": "lack memory",
    "disk": "lack disk",
    "port": "lack dynamic ports",
    "containers": "hold as many containers as they may",
    "busy": "are busy making containers",
    "port-conflict": "have the port taken",
    "max-per-host": "hold as many of this group as one host may",
    "tag": "lack the tag",
    "pool": "are in other pools",
    "mode": "do not enforce what is required",
    "cordoned": "are cordoned",
    "suspect": "have missed reports",
    "dead": "are dead",
}
"""Code of a cause to what is said of the agents it stops; nearest to fitting first."""

_RESOURCES: Final = ("cpu", "memory", "disk", "port", "containers")


def explain(view: ClusterView, ask: Ask) -> Reason:
    """Say why ``view`` has no agent with room for one more container of ``ask``.

    ``code`` is the one cause that stops every agent, or ``no-room`` when there are several,
    or ``no-agents``. An agent is counted once, for the first constraint that it fails.
    """
    if not len(view):
        return Reason(code="no-agents", message="no agent has joined; start one with galaxy agent")
    view.settle()
    causes = _causes(view, ask)
    found = np.full(len(view), -1, np.int64)
    codes = list(causes)
    for number, failing in enumerate(causes.values()):
        found[failing & (found < 0)] = number
    counts = {code: int(count) for code in PHRASES if (count := np.count_nonzero(found == codes.index(code)))}
    lacking = _nearest_rows(view, ask, found, codes)
    nearest = tuple(f"{view.names[row]} {_lack(view, ask, row, causes)}" for row in lacking)
    told = _sentence(counts, len(view), f"{view.names[lacking[0]]}, which {nearest[0].partition(' ')[2]}")
    code = next(iter(counts)) if len(counts) == 1 else "no-room"
    return Reason(code=code, message=told, counts=counts, nearest=nearest)


def _causes(view: ClusterView, ask: Ask) -> dict[str, Bools]:
    """Return which agents fail each constraint, in the order in which constraints are asked."""
    size, shape, load = len(view), ask.shape, ask.shape.load
    standing = view.standing[:size]
    taken = np.zeros(size, np.bool_)
    for port in load.ports:
        taken[list(view.port_rows.get(port, ()))] = True
    crowded = np.zeros(size, np.bool_)
    if shape.max_per_host:
        held = view.group_rows.get(ask.group, {})
        crowded[[row for row, count in held.items() if count >= shape.max_per_host]] = True
    inside = sum(
        (
            ((view.ports_low[:size] <= port) & (view.ports_high[:size] >= port)).astype(np.int64)
            for port in load.ports
        ),
        np.full(size, load.dynamic, np.int64),
    )
    return {
        "dead": standing == Standing.DEAD,
        "suspect": standing == Standing.SUSPECT,
        "pool": _outside(view, Shape(load=load, pools=shape.pools)),
        "tag": _outside(view, Shape(load=load, tag=shape.tag)),
        "mode": _outside(view, Shape(load=load, require=shape.require)),
        "cordoned": standing == Standing.CORDONED,
        "containers": view.slots[:size] <= 0,
        "max-per-host": crowded,
        "port-conflict": taken,
        "port": (inside > 0) & (view.ports[:size] < inside),
        "cpu": view.cpu[:size] < load.cpu_milli,
        "memory": view.memory[:size] < load.memory_bytes,
        "disk": view.disk[:size] < load.disk_bytes,
        "busy": view.room[:size] <= 0,
    }


def _outside(view: ClusterView, shape: Shape) -> Bools:
    outside = np.ones(len(view), np.bool_)
    outside[view.eligible(shape).rows] = False
    return outside


def _nearest_rows(view: ClusterView, ask: Ask, found: Ints, codes: list[str]) -> list[int]:
    """Return the rows that come nearest to fitting: least lacking first, then by name."""
    load = ask.shape.load
    for wanted in (_RESOURCES, tuple(PHRASES)):
        rows = np.flatnonzero(np.isin(found, [codes.index(code) for code in wanted]))
        if not len(rows):
            continue
        lack = np.zeros(len(rows))
        for column, each in (
            (view.cpu, load.cpu_milli),
            (view.memory, load.memory_bytes),
            (view.disk, load.disk_bytes),
            (view.ports, load.dynamic),
        ):
            if each:
                lack += np.clip(each - column[rows], 0, None) / each
        lack += view.slots[rows] <= 0
        if wanted is not _RESOURCES:
            ranks = [list(PHRASES).index(codes[int(found[row])]) for row in rows]
            lack = np.array(ranks, np.float64)
        edge = np.partition(lack, min(NEAREST, len(lack)) - 1)[min(NEAREST, len(lack)) - 1]
        near = [int(row) for row in rows[lack <= edge]]
        lacks = dict(zip(rows.tolist(), lack.tolist(), strict=True))
        return sorted(near, key=lambda row: (lacks[row], view.names[row]))[:NEAREST]
    return []


def _lack(view: ClusterView, ask: Ask, row: int, causes: dict[str, Bools]) -> str:
    """Say in numbers everything that one agent lacks."""
    load, shape, info = ask.shape.load, ask.shape, view.infos[row]
    said = {
        "cpu": f"lacks {format_cpu(load.cpu_milli - int(view.cpu[row]))} cpu",
        "memory": f"lacks {format_bytes(load.memory_bytes - int(view.memory[row]))} memory",
        "disk": f"lacks {format_bytes(load.disk_bytes - int(view.disk[row]))} disk",
        "port": f"has {max(0, int(view.ports[row]))} dynamic ports left",
        "containers": f"holds {int(view.held[row])} containers of {info.containers_max}",
        "busy": f"is making {int(view.making[row])} containers",
        "port-conflict": "has port " + ", ".join(_taken(view, ask, row)) + " taken",
        "max-per-host": f"holds {view.group_rows.get(ask.group, {}).get(row, 0)} of this group",
        "tag": f"lacks tag {shape.tag}",
        "pool": f"is in pool {info.pool}",
        "mode": "does not enforce " + ", ".join(sorted(set(shape.require) - set(info.enforced))),
        "cordoned": "is cordoned",
        "suspect": "has missed reports",
        "dead": "is dead",
    }
    failing = [code for code, rows in causes.items() if rows[row] and code != "busy"] or ["busy"]
    return ", ".join(said[code] for code in failing)


def _taken(view: ClusterView, ask: Ask, row: int) -> list[str]:
    return [str(port) for port in ask.shape.load.ports if row in view.port_rows.get(port, {})]


def _sentence(counts: dict[str, int], total: int, nearest: str) -> str:
    parts = [f"{count} {PHRASES[code]}" for code, count in counts.items()]
    first, _, rest = parts[0].partition(" ")
    parts[0] = f"{first} of {total} {rest}"
    return f"no agent has room: {', '.join(parts)}; nearest is {nearest}"
