"""The constraints of placing one more container, for both placement and explanation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from galaxy.model.resources import RESOURCES
from galaxy.scheduler.cluster_view import ASKED_AT, ClusterView
from galaxy.scheduler.eligible import Bools, Eligible
from galaxy.scheduler.requests import Ask

MAX_PER_HOST: Final = "max-per-host"
PORT_CONFLICT: Final = "port-conflict"
PORT: Final = "port"
RESERVED: Final = "reserved"
AFFINITY: Final = "affinity"
ANTI_AFFINITY: Final = "anti-affinity"

_ASKED: Final = tuple((at, RESOURCES[at].name) for at in ASKED_AT)


def unmet(view: ClusterView, ask: Ask, eligible: Eligible) -> Iterator[tuple[str, Bools]]:
    """Yield (code, mask) for each constraint of ``ask``; the mask has those of ``eligible`` that fail it.

    A constraint that all of them meet may be left out, and one may come in several parts. Two
    conditions are elsewhere: what makes an agent eligible (``ClusterView.eligible``), and how many
    containers it may have (``ClusterView.room``).
    """
    load, size = ask.shape.load, len(view)
    if ask.shape.max_per_host:
        counts = view.group_rows.get(ask.group, {})
        full = [row for row, count in counts.items() if count >= ask.shape.max_per_host]
        if full:
            yield MAX_PER_HOST, eligible.among(full, size)
    if view.reserved:
        kept = [
            row
            for row, (group, priority) in view.reserved.items()
            if group != ask.group and priority <= ask.priority
        ]
        yield RESERVED, eligible.among(kept, size)
    for job in ask.near:
        yield AFFINITY, ~eligible.among(view.rows_of(job.groups), size)
    for job in ask.apart:
        rows = view.rows_of(job.groups)
        if rows:
            yield ANTI_AFFINITY, eligible.among(rows, size)
    for port in load.ports:
        taken = view.port_rows.get(port)
        if taken:
            yield PORT_CONFLICT, eligible.among(taken, size)
    if load.ports:
        # A static port inside an agent's range takes one of it. An agent without a range, or with
        # an overdrawn one, still takes a port outside it.
        low, high = eligible.take(view.ports_low), eligible.take(view.ports_high)
        needed = np.full(len(eligible.rows), load.dynamic, np.int64)
        for port in load.ports:
            needed += (low <= port) & (high >= port)
        yield PORT, (needed > 0) & (eligible.take(view.ports) < needed)
    elif load.dynamic:
        yield PORT, eligible.take(view.ports) < load.dynamic
    amounts = load.resources.values()
    for at, name in _ASKED:
        yield name, eligible.take(view.free[at]) < amounts[at]


def feasible(view: ClusterView, ask: Ask, eligible: Eligible) -> Bools:
    """Return which of ``eligible`` have room for one more container of ``ask``."""
    view.update_room()
    failing = eligible.take(view.room) <= 0
    for _, lacking in unmet(view, ask, eligible):
        failing |= lacking
    return np.logical_not(failing, out=failing)
