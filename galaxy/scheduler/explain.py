"""Explains why no agent has room: counts agents by what they lack, and names those that lack least.

After Nomad's placement metrics: "no host fits" is an explanation with numbers, not an error.
"""

from __future__ import annotations

from heapq import nsmallest
from typing import Final

import numpy as np

from galaxy.model.messages.container import Reason
from galaxy.model.resources import RESOURCES
from galaxy.scheduler.causes import causes_of, missing_marks, present_marks, shortage
from galaxy.scheduler.changes import smallest_changes
from galaxy.scheduler.cluster_view import ASKED_AT, COUNTED_AT, ClusterView
from galaxy.scheduler.constraints import AFFINITY, ANTI_AFFINITY, MAX_PER_HOST, PORT, PORT_CONFLICT, RESERVED
from galaxy.scheduler.eligible import Bools, Ints
from galaxy.scheduler.requests import Ask, JobGroups

NEAREST: Final = 3
EXPLAINED_MAX: Final = 1024
HOSTS_MAX: Final = 5
"""Agents that are named for each cause; all are counted."""

_ASKED: Final = tuple(RESOURCES[at].name for at in ASKED_AT)
_COUNTED: Final = tuple(RESOURCES[at].name for at in COUNTED_AT)

PHRASES: Final[dict[str, str]] = {
    **{name: f"lack {name}" for name in _ASKED},
    PORT: "lack dynamic ports",
    **{name: f"hold as many {name} as they may" for name in _COUNTED},
    "busy": "are busy creating containers",
    PORT_CONFLICT: "have the port taken",
    MAX_PER_HOST: "hold as many of this group as one host may",
    RESERVED: "are kept for a more important or earlier pod",
    ANTI_AFFINITY: "hold a pod of a job to stay apart from",
    AFFINITY: "hold no pod of the jobs to be near",
    "forbid": "have a forbidden tag or label",
    "require": "lack a required tag or label",
    "tag": "lack the tag",
    "pool": "are in other pools",
    "mode": "do not enforce what is required",
    "cordoned": "are cordoned or drained",
    "suspect": "have missed reports",
    "dead": "are dead",
}
"""By cause, the phrase for the agents that it excludes; those nearest to fitting first."""
SINGULAR: Final = {"are": "is", "have": "has", "do": "does", "lack": "lacks", "hold": "holds"}
"""By first word of a phrase for several agents, that for one."""

ORDER: Final = (
    "dead", "suspect", "pool", "tag", "require", "forbid", "mode", "cordoned", *_COUNTED, RESERVED,
    AFFINITY, ANTI_AFFINITY, MAX_PER_HOST, PORT_CONFLICT, PORT, *_ASKED, "busy",
)  # fmt: skip
"""Causes in the order in which an agent is checked: it is counted under the first that excludes it."""


def explain(view: ClusterView, ask: Ask) -> Reason:
    """Return why no agent of ``view`` has room for one more container of ``ask``.

    ``code`` is the cause that excludes every agent, ``no-room`` when there are several causes, or
    ``no-agents``. An agent is counted once, under the first cause in ``ORDER`` that excludes it.
    """
    if not len(view):
        return Reason(code="no-agents", message="no agent has joined; start one with galaxy agent")
    version, known = view.explained
    if version != view.version or len(known) >= EXPLAINED_MAX:
        known = {}
        view.explained = view.version, known
    in_use = ask.group in view.group_rows or view.reserved
    key = (ask.shape, ask.near, ask.apart, ask.priority if view.reserved else 0, ask.group if in_use else "")
    reason = known.get(key)
    if reason is None:
        reason = known[key] = _explain(view, ask)
    return reason


def _explain(view: ClusterView, ask: Ask) -> Reason:
    view.update_room()
    causes = causes_of(view, ask)
    first = np.full(len(view), -1, np.int64)
    for number, code in enumerate(ORDER):
        if code in causes:
            first[causes[code] & (first < 0)] = number
    counts = {code: int(count) for code in PHRASES if (count := np.count_nonzero(first == ORDER.index(code)))}
    near = _nearest_rows(view, ask, first)
    nearest = tuple(f"{view.names[row]} {_lack(view, ask, row, causes)}" for row in near)
    message = _sentence(counts, len(view), f"{view.names[near[0]]}, which {nearest[0].partition(' ')[2]}")
    code = next(iter(counts)) if len(counts) == 1 else "no-room"
    changes = tuple(change.text for change in smallest_changes(view, ask, causes))
    hosts = {code: _first_names(view, np.flatnonzero(first == ORDER.index(code))) for code in counts}
    return Reason(code=code, message=message, counts=counts, nearest=nearest, hosts=hosts, changes=changes)


def _first_names(view: ClusterView, rows: Ints) -> tuple[str, ...]:
    return tuple(nsmallest(HOSTS_MAX, (view.names[row] for row in rows.tolist())))


def _nearest_rows(view: ClusterView, ask: Ask, first: Ints) -> list[int]:
    """Return the rows that lack least, in that order, then by name.

    ``first`` is, by row, the position in ``ORDER`` of the cause under which it is counted.
    """
    scarce = np.isin(first, [ORDER.index(name) for name in (*_ASKED, PORT, *_COUNTED)])
    if scarce.any():
        rows = np.flatnonzero(scarce)
        lack = shortage(view, ask, rows)
    else:
        rows = np.flatnonzero(first >= 0)
        phrases = list(PHRASES)
        lack = np.array([phrases.index(ORDER[at]) for at in first[rows].tolist()], np.float64)
    edge = np.partition(lack, min(NEAREST, len(lack)) - 1)[min(NEAREST, len(lack)) - 1]
    lacks = {row: much for row, much in zip(rows.tolist(), lack.tolist(), strict=True) if much <= edge}
    return sorted(lacks, key=lambda row: (lacks[row], view.names[row]))[:NEAREST]


def _lack(view: ClusterView, ask: Ask, row: int, causes: dict[str, Bools]) -> str:
    """Return a phrase with numbers for everything that one agent lacks."""
    load, shape, record = ask.shape.load, ask.shape, view.records[row]
    amounts = load.resources.values()
    phrases = {
        PORT: f"has {max(0, int(view.ports[row]))} dynamic ports left",
        "busy": f"is creating {int(view.creating[row])} containers",
        PORT_CONFLICT: "has port " + ", ".join(_taken(view, ask, row)) + " taken",
        MAX_PER_HOST: f"holds {view.group_rows.get(ask.group, {}).get(row, 0)} of this group",
        "tag": f"lacks tag {shape.tag}",
        "pool": f"is in pool {record.pool}",
        "require": "lacks " + ", ".join(missing_marks(view, shape.constraints.require, row)),
        "forbid": "has forbidden " + ", ".join(present_marks(view, shape.constraints.forbid, row)),
        AFFINITY: "holds no pod of " + ", ".join(_jobs(view, ask.near, row, holds=False)),
        ANTI_AFFINITY: "holds a pod of " + ", ".join(_jobs(view, ask.apart, row, holds=True)),
        RESERVED: f"is kept for {view.reserved.get(row, ('', 0))[0]}",
        "mode": "does not enforce " + ", ".join(sorted(set(shape.require) - set(record.info.enforced))),
        "cordoned": f"is {record.closed}" if record.closed else "would be drained as well",
        "suspect": "has missed reports",
        "dead": "is dead",
    }
    for at, resource in enumerate(RESOURCES):
        free, total = int(view.free[at][row]), getattr(record.info, resource.field)
        phrases[resource.name] = (
            f"holds {resource.show(total - free)} {resource.name} of {resource.show(total)}"
            if resource.per_container
            else f"lacks {resource.show(amounts[at] - free)} {resource.name}"
        )
    failing = [code for code in ORDER if code in causes and causes[code][row] and code != "busy"]
    return ", ".join(phrases[code] for code in failing or ["busy"])


def _jobs(view: ClusterView, jobs: tuple[JobGroups, ...], row: int, *, holds: bool) -> list[str]:
    return sorted({job.job for job in jobs if (row in view.rows_of(job.groups)) is holds})


def _taken(view: ClusterView, ask: Ask, row: int) -> list[str]:
    return [str(port) for port in ask.shape.load.ports if row in view.port_rows.get(port, {})]


def _sentence(counts: dict[str, int], total: int, nearest: str) -> str:
    parts = [f"{count} {_phrase(code, count)}" for code, count in counts.items()]
    first, _, rest = parts[0].partition(" ")
    parts[0] = f"{first} of {total} {rest}"
    return f"no agent has room: {', '.join(parts)}; nearest is {nearest}"


def _phrase(code: str, count: int) -> str:
    verb, _, rest = PHRASES[code].partition(" ")
    if count != 1:
        return f"{verb} {rest}"
    return (
        f"{SINGULAR[verb]} {rest.replace('as they may', 'as it may').replace('other pools', 'another pool')}"
    )
