"""The smallest changes of a job or of a host that make one more container fit.

What a host fails is a set of kinds; a shortage of several resources is one kind. The hosts that fail the
fewest kinds are nearest. For each of their sets the change is worked out on the host that lacks least. It
counts only if the container, changed, passes the filter of placement on that host, changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from msgspec.structs import replace

from galaxy.model.base import Struct
from galaxy.model.resources import RESOURCES, Resource
from galaxy.model.stored.agent import AgentRecord
from galaxy.scheduler.causes import missing_marks, present_marks, shortage
from galaxy.scheduler.cluster_view import ASKED_AT, COUNTED_AT, ClusterView, PlacementStatus
from galaxy.scheduler.constraints import (
    AFFINITY,
    ANTI_AFFINITY,
    MAX_PER_HOST,
    PORT,
    PORT_CONFLICT,
    RESERVED,
    feasible,
)
from galaxy.scheduler.eligible import Bools, Ints
from galaxy.scheduler.requests import Ask, JobGroups

CHANGES_MAX: Final = 3
NAMED_MAX: Final = 3
TRIED_MAX: Final = 16
"""Hosts of one set of kinds that are looked at one by one."""

AMOUNTS: Final = "amounts"
KINDS: Final = (
    AMOUNTS, PORT, "cordoned", PORT_CONFLICT, MAX_PER_HOST, "tag", "require", "forbid", ANTI_AFFINITY,
    AFFINITY, "pool",
)  # fmt: skip
"""What can be changed, in the order in which changes are named."""


class Change(Struct, frozen=True, kw_only=True):
    """A change in words, the changed ask, and the changed record of the agent that then has room."""

    text: str
    ask: Ask
    record: AgentRecord


def smallest_changes(view: ClusterView, ask: Ask, causes: Mapping[str, Bools]) -> list[Change]:
    """Return up to ``CHANGES_MAX`` changes, each of which makes one more container fit.

    ``causes`` are those of ``causes_of`` for the same ask.
    """
    codes = _codes(view, causes)
    sets = [code for code in np.unique(codes).tolist() if code > 0]
    sets.sort(key=lambda code: (code.bit_count(), code))
    changes: list[Change] = []
    fewest = 0
    for code in sets:
        if len(changes) == CHANGES_MAX or (changes and code.bit_count() > fewest):
            break
        kinds = tuple(kind for at, kind in enumerate(KINDS) if code >> at & 1)
        change = _on_nearest(view, ask, np.flatnonzero(codes == code), kinds)
        if change is not None:
            fewest = code.bit_count()
            changes.append(change)
    return changes


def _codes(view: ClusterView, causes: Mapping[str, Bools]) -> Ints:
    """Return for each row the set of kinds that it fails, as bits; 0 where nothing can be changed."""
    size = len(view)
    codes = np.zeros(size, np.int64)
    masks = {**causes, AMOUNTS: np.logical_or.reduce([causes[RESOURCES[at].name] for at in ASKED_AT])}
    for at, kind in enumerate(KINDS):
        if kind in masks:
            codes |= masks[kind].astype(np.int64) << at
    fixed = causes["dead"] | causes["suspect"] | causes["mode"]
    for at in COUNTED_AT:
        fixed |= causes[RESOURCES[at].name]
    if RESERVED in causes:
        fixed |= causes[RESERVED]
    for row in np.flatnonzero(causes["cordoned"]).tolist():
        fixed[row] |= not view.records[row].is_closed  # closed only in the plan of a drain
    fixed |= causes["busy"] & (view.status[:size] == PlacementStatus.OPEN)
    return np.where(fixed, 0, codes)


def _on_nearest(view: ClusterView, ask: Ask, rows: Ints, kinds: tuple[str, ...]) -> Change | None:
    """Return the change for that of ``rows`` that lacks least; all of them fail exactly ``kinds``."""
    lack = shortage(view, ask, rows)
    nearest = np.argsort(lack, kind="stable")[: 4 * TRIED_MAX]
    of_row = dict(zip(rows[nearest].tolist(), lack[nearest].tolist(), strict=True))
    by_lack = sorted(of_row, key=lambda row: (of_row[row], _wrong(view, ask, row), view.names[row]))
    found: Change | None = None
    where = ""
    agents: list[str] = []
    for row in by_lack[:TRIED_MAX]:
        changed, on_job = _changed_ask(view, ask, row, kinds)
        record, on_host = _changed_record(view, ask, row, kinds)
        if found is not None:
            if (changed, on_host) == (found.ask, where):
                agents.append(view.names[row])
            continue
        if changed is None:
            continue
        copy = view.copy_of_row(row, record)
        if feasible(copy, changed, copy.eligible(changed.shape)).any():
            found = Change(text=", ".join(on_job), ask=changed, record=record)
            where, agents = on_host, [record.agent]
    return None if found is None else replace(found, text=_text(found.text, where, agents))


def _wrong(view: ClusterView, ask: Ask, row: int) -> int:
    """Return how far the row is from what ``ask`` needs, in marks, related jobs and replicas too many."""
    marks = ask.shape.constraints
    wrong = len(missing_marks(view, marks.require, row)) + len(present_marks(view, marks.forbid, row))
    wrong += sum(row not in view.rows_of(job.groups) for job in ask.near)
    wrong += sum(row in view.rows_of(job.groups) for job in ask.apart)
    most = ask.shape.max_per_host
    return wrong + (max(0, view.group_rows.get(ask.group, {}).get(row, 0) + 1 - most) if most else 0)


def _text(on_job: str, on_host: str, agents: list[str]) -> str:
    """Return the whole change in words; every one of ``agents`` will do."""
    agents = sorted(agents)
    names = ", ".join(agents[:NAMED_MAX]) + (", ..." if len(agents) > NAMED_MAX else "")
    one_of = f"one of {names}" if len(agents) > 1 else names
    if not on_host:
        return f"{on_job} ({one_of} has room then)"
    host = f"{on_host} {one_of}" if on_host in _OPENING.values() else f"{on_host} on {one_of}"
    return f"{on_job} and {host}" if on_job else host


_OPENING: Final = {
    (True, False): "uncordon",
    (False, True): "take online",
    (True, True): "uncordon and take online",
}
"""How a host is opened again that is (cordoned, drained or offline)."""


def _changed_ask(
    view: ClusterView, ask: Ask, row: int, kinds: tuple[str, ...]
) -> tuple[Ask | None, list[str]]:
    """Return ``ask`` as it would fit on the row, and what is changed of it in words; None if it cannot be."""
    texts: list[str] = []
    shape, load = ask.shape, ask.shape.load
    if PORT_CONFLICT in kinds:
        taken = [port for port in load.ports if row in view.port_rows.get(port, {})]
        load = replace(
            load, ports=tuple(p for p in load.ports if p not in taken), dynamic=load.dynamic + len(taken)
        )
        texts.append(f"a dynamic port instead of {', '.join(map(str, taken))}")
    elif PORT in kinds:
        room = int(view.ports[row]) - sum(view.in_range(row, port) for port in load.ports)
        if room < 0:
            return None, []
        texts.append(f"{room} dynamic ports instead of {load.dynamic}")
        load = replace(load, dynamic=room)
    if AMOUNTS in kinds:
        lowered = {}
        for at in ASKED_AT:
            resource, asked, free = RESOURCES[at], load.resources.values()[at], int(view.free[at][row])
            if asked > free:
                lowered[resource.field] = less = rounded_down(resource, free)
                if less <= 0:
                    return None, []
                texts.append(f"{resource.name} {resource.show(less)} instead of {resource.show(asked)}")
        load = replace(load, resources=replace(load.resources, **lowered))
    if MAX_PER_HOST in kinds:
        most = view.group_rows.get(ask.group, {}).get(row, 0) + 1
        texts.append(f"max_per_host {most} instead of {shape.max_per_host}")
        shape = replace(shape, max_per_host=most)
    if "pool" in kinds:
        pool = view.records[row].pool
        texts.append(f"pool {pool} as well")
        shape = replace(shape, pools=tuple(sorted({*shape.pools, pool})))
    near = tuple(job for job in ask.near if row in view.rows_of(job.groups))
    apart = tuple(job for job in ask.apart if row not in view.rows_of(job.groups))
    if AFFINITY in kinds:
        texts.append(f"not near {_names(ask.near, near)}")
    if ANTI_AFFINITY in kinds:
        texts += _without_apart([job for job in ask.apart if job not in apart])
    return replace(ask, shape=replace(shape, load=load), near=near, apart=apart), texts


def _without_apart(jobs: Sequence[JobGroups]) -> list[str]:
    """Return which entries of ``anti_affinity`` have to go: those of the asking job, then those of others."""
    own = sorted({job.job for job in jobs if not job.entry})
    texts = [f"not apart from {', '.join(own)}"] if own else []
    for entry in sorted({job.entry for job in jobs if job.entry}):
        others = sorted({job.job for job in jobs if job.entry == entry})
        texts.append(f"no {entry} in anti_affinity of {', '.join(others)}")
    return texts


def _names(every: Sequence[JobGroups], kept: Sequence[JobGroups]) -> str:
    """Return the names of the jobs that are not kept."""
    return ", ".join(sorted({job.job for job in every if job not in kept}))


def _changed_record(view: ClusterView, ask: Ask, row: int, kinds: tuple[str, ...]) -> tuple[AgentRecord, str]:
    """Return the record of the row's agent as it would take ``ask``, and what is changed of it in words."""
    record, shape = view.records[row], ask.shape
    tags, labels, texts = set(record.tags), dict(record.labels), []
    lacking = [shape.tag] if "tag" in kinds else []
    lacking += missing_marks(view, shape.constraints.require, row) if "require" in kinds else []
    for mark in dict.fromkeys(lacking):
        label, equals, values = mark.partition("=")
        if equals:
            labels[label] = values.split("|")[0]
            texts.append(f"label {label}={labels[label]}")
        else:
            tags.add(mark)
            texts.append(f"tag {mark}")
    for mark in present_marks(view, shape.constraints.forbid, row) if "forbid" in kinds else ():
        label, equals, _ = mark.partition("=")
        texts.append(f"no label {label}={labels.pop(label, '')}" if equals else f"no tag {mark}")
        tags.discard(mark)
    if "cordoned" in kinds:
        closed = (record.cordon is not None, record.drain is not None)
        texts.insert(0, _OPENING[closed])
    record = replace(record, tags=tuple(sorted(tags)), labels=labels, cordon=None, drain=None)
    return record, " and ".join(texts)


def rounded_down(resource: Resource, amount: int) -> int:
    """Return the largest amount up to ``amount`` that is exact when it is written for people; 0 for none."""
    unit = 1
    while unit * 1024 <= amount:
        unit *= 1024
    for candidate in (amount, amount * 10 // unit * unit // 10, amount // unit * unit):
        exact = resource.parse(resource.show(max(0, candidate)).replace(" ", ""))
        if 0 < exact <= amount:
            return exact
    return 0
