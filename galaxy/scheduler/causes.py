"""Which agents are excluded from one more container, cause by cause; explanations are made from this."""

from __future__ import annotations

import numpy as np

from galaxy.model.messages.container import Constraints
from galaxy.model.resources import RESOURCES
from galaxy.scheduler.cluster_view import ASKED_AT, COUNTED_AT, ClusterView, PlacementStatus
from galaxy.scheduler.constraints import unmet
from galaxy.scheduler.eligible import Bools, Floats, Ints, all_rows
from galaxy.scheduler.requests import Ask, Shape


def causes_of(view: ClusterView, ask: Ask) -> dict[str, Bools]:
    """Return a mask of the excluded agents for each cause; a cause that excludes none may be left out."""
    size, shape, load = len(view), ask.shape, ask.shape.load
    status, marks = view.status[:size], shape.constraints
    counted = {RESOURCES[at].name: view.free[at][:size] < RESOURCES[at].per_container for at in COUNTED_AT}
    causes: dict[str, Bools] = {
        "dead": status == PlacementStatus.DEAD,
        "suspect": status == PlacementStatus.SUSPECT,
        "pool": _outside(view, Shape(load=load, pools=shape.pools)),
        "tag": _outside(view, Shape(load=load, tag=shape.tag)),
        "require": _outside(view, Shape(load=load, constraints=Constraints(require=marks.require))),
        "forbid": _outside(view, Shape(load=load, constraints=Constraints(forbid=marks.forbid))),
        "mode": _outside(view, Shape(load=load, require=shape.require)),
        "cordoned": status == PlacementStatus.CORDONED,
        **counted,
        "busy": view.room[:size] <= 0,
    }
    for code, lacking in unmet(view, ask, all_rows(size)):
        causes[code] = causes[code] | lacking if code in causes else lacking
    return causes


def _outside(view: ClusterView, shape: Shape) -> Bools:
    outside = np.ones(len(view), np.bool_)
    outside[view.eligible(shape).rows] = False
    return outside


def shortage(view: ClusterView, ask: Ask, rows: Ints) -> Floats:
    """Return for each row the sum of its shortages, each as a share of the amount asked for."""
    load = ask.shape.load
    amounts = load.resources.values()
    lack = np.zeros(len(rows))
    for column, each in (*((view.free[at], amounts[at]) for at in ASKED_AT), (view.ports, load.dynamic)):
        if each:
            lack += np.clip(each - column[rows], 0, None) / each
    for at in COUNTED_AT:
        lack += view.free[at][rows] < RESOURCES[at].per_container
    return lack


def missing_marks(view: ClusterView, marks: tuple[str, ...], row: int) -> list[str]:
    """Return those of ``marks`` that the row lacks."""
    return [mark for mark in marks if not view.marked(mark)[row]]


def present_marks(view: ClusterView, marks: tuple[str, ...], row: int) -> list[str]:
    """Return those of ``marks`` that the row has."""
    return [mark for mark in marks if view.marked(mark)[row]]
