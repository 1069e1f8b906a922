"""The cluster as placement sees it: agents by number (``row``), and one array for each resource.

Deltas keep it up to date (``charge``, ``release``, ``join``, ``set_status``), so that a decision
costs a few passes over short arrays and never iterates over containers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from functools import reduce
from itertools import repeat
from operator import attrgetter
from typing import Final

import numpy as np
from msgspec import Struct

from galaxy.model.messages.agent import AgentInfo
from galaxy.model.messages.container import Reason
from galaxy.model.resources import FIELDS, RESOURCES, Resources, bounded
from galaxy.model.stored.agent import AgentRecord
from galaxy.scheduler.eligible import Bools, Eligible, Floats, Ints, grown
from galaxy.scheduler.requests import Load, Shape

CLASSES_MAX: Final = 1024
"""Cached combinations of pools, marks and limits; beyond it, the cache is emptied."""

PORT_MAX: Final = 65_535

ASKED_AT: Final = tuple(at for at, row in enumerate(RESOURCES) if not row.per_container)
"""Positions in ``RESOURCES`` of what containers ask for."""
COUNTED_AT: Final = tuple(at for at, row in enumerate(RESOURCES) if row.per_container)
"""Positions in ``RESOURCES`` of what every container takes; ``room`` respects them."""
PACKED_AT: Final = tuple(at for at, row in enumerate(RESOURCES) if row.packed)
"""Positions in ``RESOURCES`` of the resources in which agents are filled evenly."""


class PlacementStatus(IntEnum):
    """Whether new containers are placed on an agent: only if it is ``OPEN``."""

    OPEN = 0
    CORDONED = 1
    SUSPECT = 2
    DEAD = 3


class Charge(Struct, frozen=True, gc=False):
    """The load of one container on one agent (``row``); ``creating`` until the agent has created it.

    There may be a million, so the garbage collector does not track them.
    """

    row: int
    group: str
    load: Load
    creating: bool


class ClusterView:
    """Free amounts by agent; see the module. They are negative where an agent's inventory has shrunk.

    ``creating_max`` bounds the containers that one agent creates at once. An agent that failed
    recently (``flaky``) creates one at a time and is chosen last.
    """

    def __init__(self, *, creating_max: int = 64) -> None:
        self.creating_max = creating_max
        self.names: list[str] = []
        self.records: list[AgentRecord] = []
        self.free: list[Ints] = [_ints() for _ in RESOURCES]
        """Free amounts: an array for each of ``RESOURCES``, in their order."""
        self.shares: list[Floats] = [np.zeros(0) for _ in PACKED_AT]
        """For each of ``PACKED_AT``, one unit as a share of the agent's total."""
        self.ports: Ints = _ints()
        """Free ports in the range for dynamic ports, which is ``ports_low`` to ``ports_high``."""
        self.ports_low: Ints = _ints()
        self.ports_high: Ints = _ints()
        self.placed: Ints = _ints()
        """Containers of an agent."""
        self.creating: Ints = _ints()
        self.room: Ints = _ints()
        """How many more containers an agent may get now; see ``update_room``."""
        self.status: Ints = _ints()
        self.flaky: Bools = np.zeros(0, np.bool_)
        self.flaky_any = False
        self._port_rows: dict[int, dict[int, int]] = {}
        self._unbound: list[tuple[Sequence[int], Sequence[int]]] = []
        """Rows, and ports on them, that ``port_rows`` does not have yet; ``ports`` counts them already."""
        self.group_rows: dict[str, dict[int, int]] = {}
        """By group: how many of its containers there are, by row."""
        self.version = 0
        """Grows with every change that placement can depend on."""
        self.explained: tuple[int, dict[object, Reason]] = 0, {}
        """Explanations that hold for one version."""
        self.reserved: dict[int, tuple[str, int]] = {}
        """Rows that are kept for a group: the group and its priority."""
        self._rows: dict[str, int] = {}
        self._charges: dict[str, Charge] = {}
        self._freed: set[int] = set()
        self._outdated: set[int] = set()
        self._classes: dict[tuple[object, ...], Eligible] = {}
        self._domains: dict[str, tuple[Ints, tuple[str, ...]]] = {}
        self._masks: dict[tuple[str, str], Bools] = {}
        self._order: Ints = _ints()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def port_rows(self) -> dict[int, dict[int, int]]:
        """By static or chosen port: how many containers bind it, by row. A new leader needs it later."""
        unbound, self._unbound = self._unbound, []
        for rows, ports in unbound:
            for row, port in zip(rows, ports, strict=True):
                binders = self._port_rows.setdefault(port, {})
                binders[row] = binders.get(row, 0) + 1
        return self._port_rows

    def row(self, agent: str) -> int:
        """Return the row of ``agent``, or -1."""
        return self._rows.get(agent, -1)

    def charge_of(self, key: str) -> Charge | None:
        """Return what is charged under ``key``."""
        return self._charges.get(key)

    def free_of(self, field: str) -> Ints:
        """Return the free amounts of one resource, by the name of its field, for every row."""
        return self.free[FIELDS.index(field)][: len(self)]

    def join(self, record: AgentRecord, status: PlacementStatus = PlacementStatus.OPEN) -> int:
        """Add an agent, or update what changed of one, and return its row."""
        self.version += 1
        row = self._rows.get(record.agent)
        old = None
        if row is None:
            row = self._append(record)
        else:
            old = self.records[row]
            self.records[row] = record
        info = record.info
        for column, field in zip(self.free, FIELDS, strict=True):
            before = bounded(getattr(old.info, field)) if old else 0
            column[row] += bounded(getattr(info, field)) - before
        for share, at in zip(self.shares, PACKED_AT, strict=True):
            share[row] = 1.0 / max(1, bounded(getattr(info, FIELDS[at])))
        low, high = bounded(info.ports_low), bounded(info.ports_high)
        if old is None or (self.ports_low[row], self.ports_high[row]) != (low, high):
            self._set_port_range(row, low, high)
        if old is None or _traits(old) != _traits(record):
            self._clear_classes()
        self.set_status(record.agent, status)
        return row

    def join_all(self, joining: Sequence[tuple[AgentRecord, PlacementStatus]]) -> None:
        """Add agents that the view does not have.

        The result is that of ``join`` one after the other, in a few passes over arrays.
        """
        self.version += 1
        first = len(self)
        rows = slice(first, first + len(joining))
        self._grow(rows.stop)
        self.records += [record for record, _ in joining]
        self.names += [record.agent for record, _ in joining]
        infos = [record.info for record, _ in joining]
        self._rows.update(zip(self.names[rows], range(first, rows.stop), strict=True))
        for column, field in zip(self.free, FIELDS, strict=True):
            column[rows] = _amounts(infos, field)
        for share, at in zip(self.shares, PACKED_AT, strict=True):
            share[rows] = 1.0 / np.maximum(1, _amounts(infos, FIELDS[at]))
        low, high = _amounts(infos, "ports_low"), _amounts(infos, "ports_high")
        self.ports_low[rows], self.ports_high[rows] = low, high
        self.ports[rows] = np.where((high > 0) & (high >= low), high - low + 1, 0)
        self.status[rows] = [status for _, status in joining]
        self._outdated.update(range(first, rows.stop))
        self._clear_classes()

    def set_status(self, agent: str, status: PlacementStatus) -> None:
        """Open an agent for new containers, or close it."""
        self.version += 1
        row = self._rows[agent]
        self.status[row] = status
        self._outdated.add(row)

    def is_open(self, agent: str) -> bool:
        """Return whether new containers are placed on ``agent``."""
        return bool(self.status[self._rows[agent]] == PlacementStatus.OPEN)

    def set_flaky(self, agent: str, flaky: bool) -> None:
        """Set whether an agent failed recently."""
        self.version += 1
        row = self._rows[agent]
        self.flaky[row] = flaky
        self.flaky_any = bool(self.flaky[: len(self)].any())
        self._outdated.add(row)

    def reserve(self, agent: str, group: str, priority: int) -> None:
        """Keep an agent for ``group``: others get nothing there, unless they are more important."""
        self.version += 1
        self.reserved[self._rows[agent]] = group, priority

    def end_reservation(self, agent: str) -> None:
        """Let every group use an agent again."""
        self.version += 1
        row = self._rows.get(agent, -1)
        if self.reserved.pop(row, None) is not None:
            self._outdated.add(row)

    def charge(self, key: str, agent: str, group: str, load: Load, *, creating: bool = False) -> None:
        """Charge ``load`` to ``agent`` under ``key``, even if it does not fit: the container exists."""
        self.release(key)
        row = self._rows[agent]
        self._charges[key] = Charge(row, group, load, creating)
        self._subtract(row, load, 1)
        rows = self.group_rows.setdefault(group, {})
        rows[row] = rows.get(row, 0) + 1
        self.creating[row] += creating
        self._outdated.add(row)

    def charge_new(self, keys: Sequence[str], rows: Ints, group: str, load: Load) -> None:
        """Charge one ``load`` for each of ``keys`` to the row at the same position; all are being created."""
        self.version += 1
        if len(keys) == 1:
            self.charge(keys[0], self.names[int(rows[0])], group, load, creating=True)
            return
        chosen = rows.tolist()
        agents: Ints = rows
        times: Ints | int = 1
        counts = dict.fromkeys(chosen, 1)
        if len(counts) < len(chosen):
            agents, times = np.unique(rows, return_counts=True)
            counts = dict(zip(agents.tolist(), times.tolist(), strict=True))
        for column, amount in zip(self.free, load.resources.values(), strict=True):
            if amount:
                column[agents] -= times * amount
        if load.dynamic:
            self.ports[agents] -= times * load.dynamic
        self.placed[agents] += times
        self.creating[agents] += times
        self.room[agents] -= times
        before = self.group_rows.get(group)
        if before is None:
            self.group_rows[group] = counts
        else:
            for row, count in counts.items():
                before[row] = before.get(row, 0) + count
        for port in load.ports:
            self._bind_all(agents, port)
        charges = map(Charge, chosen, repeat(group), repeat(load), repeat(True))
        self._charges.update(zip(keys, charges, strict=False))

    def charge_all(self, charges: dict[str, Charge]) -> None:
        """Charge many at once, by key; no key may be charged already. ``charges`` belongs to the view then.

        The result is that of ``charge`` one after the other, in a few passes over arrays.
        """
        self.version += 1
        if not charges:
            return
        if self._charges:
            self._charges.update(charges)
        else:
            self._charges = charges
        each = list(charges.values())
        rows = [charge.row for charge in each]
        numbers: dict[int, int] = {}
        amounts: list[tuple[int, ...]] = []
        which: list[int] = []
        last, counts, shared, number = None, {}, None, 0
        for charge in each:  # Containers of one group mostly follow each other, and share their amounts.
            row, resources = charge.row, charge.load.resources
            if resources is not shared:
                shared, number = resources, numbers.setdefault(id(resources), len(amounts))
                if number == len(amounts):
                    amounts.append(resources.values())
            which.append(number)
            if charge.group != last:
                last, counts = charge.group, self.group_rows.setdefault(charge.group, {})
            counts[row] = counts.get(row, 0) + 1
        at, of = np.array(rows, np.int64), np.array(which, np.int64)
        size = len(self.placed)
        for column, amount in zip(self.free, np.array(amounts, np.int64).T, strict=True):
            if amount.any():
                np.subtract.at(column, at, amount[of])
        np.subtract.at(self.ports, at, np.array([charge.load.dynamic for charge in each], np.int64))
        self.placed += np.bincount(at, minlength=size)
        creating = np.array([charge.creating for charge in each], np.bool_)
        self.creating += np.bincount(at[creating], minlength=size)
        self._outdated.update(rows)
        self._bind_ports(
            [charge.row for charge in each for _ in charge.load.ports],
            [port for charge in each for port in charge.load.ports],
        )

    def release(self, key: str) -> None:
        """Undo the charge of ``key``, if there is one."""
        self.version += 1
        charge = self._charges.pop(key, None)
        if charge is None:
            return
        row, group = charge.row, charge.group
        self._subtract(row, charge.load, -1)
        rows = self.group_rows[group]
        rows[row] -= 1
        if not rows[row]:
            del rows[row]
            if not rows:
                del self.group_rows[group]
        self.creating[row] -= charge.creating
        self._outdated.add(row)

    def created(self, key: str, load: Load | None = None) -> None:
        """Record that ``key`` is created; ``load`` is what it takes now that its ports are known."""
        self.version += 1
        if load is not None:
            self.recharge(key, load)
        charge = self._charges.get(key)
        if charge is None:
            return
        self.creating[charge.row] -= charge.creating
        self._charges[key] = Charge(charge.row, charge.group, charge.load, False)
        self._outdated.add(charge.row)

    def recharge(self, key: str, load: Load) -> None:
        """Record that ``key``, if it is charged, takes ``load`` from now on, even if that does not fit."""
        charge = self._charges.get(key)
        if charge is None or load == charge.load:
            return
        self._subtract(charge.row, charge.load, -1)
        self._subtract(charge.row, load, 1)
        self._charges[key] = Charge(charge.row, charge.group, load, charge.creating)
        self._outdated.add(charge.row)

    def update_room(self) -> None:
        """Bring ``room`` up to date: how many more containers each agent may get now."""
        if not self._outdated:
            return
        rows = np.fromiter(self._outdated, np.int64, len(self._outdated))
        room = np.where(self.flaky[rows], 1, self.creating_max) - self.creating[rows]
        for at in COUNTED_AT:
            most, each = self.free[at][rows], RESOURCES[at].per_container
            room = np.minimum(room, most if each == 1 else most // each)
        self.room[rows] = np.where(self.status[rows] == PlacementStatus.OPEN, np.maximum(room, 0), 0)
        self._freed |= self._outdated
        self._outdated = set()

    def pop_freed(self) -> set[int]:
        """Return the rows that may have more room than at the last call."""
        self.update_room()
        freed, self._freed = self._freed, set()
        return freed

    def most_free(self, rows: Iterable[int]) -> Resources | None:
        """Return the maximum free amount of each resource over those of ``rows`` that have room."""
        self.update_room()
        index = np.fromiter(rows, np.int64)
        index = index[self.room[index] > 0]
        if not len(index):
            return None
        most = (int(column[index].max()) for column in self.free)
        return Resources(**dict(zip(FIELDS, most, strict=True)))

    def copy_of_row(self, row: int, record: AgentRecord) -> ClusterView:
        """Return a view of this agent alone, open and with ``record`` as its facts, holding what it holds."""
        copy = ClusterView(creating_max=self.creating_max)
        copy.join(record)
        for mine, column in zip(copy.free, self.free, strict=True):
            mine[0] = column[row]
        for name in ("ports", "placed", "creating"):
            getattr(copy, name)[0] = getattr(self, name)[row]
        copy.set_flaky(record.agent, bool(self.flaky[row]))
        copy._port_rows = {port: {0: rows[row]} for port, rows in self.port_rows.items() if row in rows}
        copy.group_rows = {group: {0: rows[row]} for group, rows in self.group_rows.items() if row in rows}
        return copy

    def eligible(self, shape: Shape) -> Eligible:
        """Return the agents that are in the pools, have the marks, and enforce the limits of ``shape``."""
        marks = shape.constraints
        key = (shape.pools, shape.tag, shape.require, marks.require, marks.forbid)
        known = self._classes.get(key)
        if known is None:
            if len(self._classes) >= CLASSES_MAX:
                self._classes.clear()
            known = self._classes[key] = self._classify(shape)
        return known

    def in_range(self, row: int, port: int) -> bool:
        """Return whether ``port`` is in the agent's range of dynamic ports."""
        return bool(self.ports_low[row] <= port <= self.ports_high[row])

    def _classify(self, shape: Shape) -> Eligible:
        size = len(self)
        ok = np.ones(size, np.bool_)
        if shape.pools:
            ok = np.logical_or.reduce([self._members("pool", pool) for pool in shape.pools])
        if shape.tag:
            ok &= self._members("tag", shape.tag)
        for limit in shape.require:
            ok &= self._members("limit", limit)
        for mark in shape.constraints.require:
            ok &= self.marked(mark)
        for mark in shape.constraints.forbid:
            ok &= ~self.marked(mark)
        order = self._name_order()
        chosen = order[ok[order]]
        return Eligible(chosen, bool(np.array_equal(chosen, np.arange(size))))

    def marked(self, mark: str) -> Bools:
        """Return which rows have ``mark``: a tag, or one of the values of a label (``rack=r1|r2``)."""
        label, equals, values = mark.partition("=")
        if not equals:
            return self._members("tag", mark)
        known = self._masks.get(("mark", mark))
        if known is None:
            of_values = (self._members(f"label {label}", value) for value in values.split("|"))
            known = self._masks[("mark", mark)] = reduce(np.logical_or, of_values)
        return known

    def domains(self, label: str) -> tuple[Ints, tuple[str, ...]]:
        """Return the number of each row's value of ``label``, and the values in order.

        Rows without the label have the empty value.
        """
        known = self._domains.get(label)
        if known is None:
            values = [record.labels.get(label, "") for record in self.records]
            names = tuple(sorted(set(values)))
            number = {name: at for at, name in enumerate(names)}
            known = self._domains[label] = np.array([number[value] for value in values], np.int64), names
        return known

    def rows_of(self, groups: Iterable[str]) -> set[int]:
        """Return the rows that have a container of any of ``groups``."""
        return {row for group in groups for row in self.group_rows.get(group, ())}

    def _members(self, kind: str, name: str) -> Bools:
        """Return which rows are in a pool, have a tag or a label's value, or enforce a limit."""
        if not self._masks:
            facts: dict[tuple[str, str], list[int]] = {}
            for row, record in enumerate(self.records):
                facts.setdefault(("pool", record.pool), []).append(row)
                for tag in record.tags:
                    facts.setdefault(("tag", tag), []).append(row)
                for label, value in record.labels.items():
                    facts.setdefault((f"label {label}", value), []).append(row)
                for limit in record.info.enforced:
                    facts.setdefault(("limit", limit), []).append(row)
            for fact, rows in facts.items():
                self._masks[fact] = mask = np.zeros(len(self), np.bool_)
                mask[rows] = True
        known = self._masks.get((kind, name))
        return np.zeros(len(self), np.bool_) if known is None else known

    def _name_order(self) -> Ints:
        if len(self._order) != len(self):
            names = self.names
            self._order = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)
        return self._order

    def _clear_classes(self) -> None:
        self._classes.clear()
        self._masks.clear()
        self._domains.clear()

    def _subtract(self, row: int, load: Load, sign: int) -> None:
        self.version += 1
        for column, amount in zip(self.free, load.resources.values(), strict=True):
            if amount:
                column[row] -= sign * amount
        self.ports[row] -= sign * load.dynamic
        self.placed[row] += sign
        for port in load.ports:
            self._bind(row, port, sign)

    def _bind(self, row: int, port: int, sign: int) -> None:
        bound = self.port_rows
        rows = bound.setdefault(port, {})
        before = rows.get(row, 0)
        rows[row] = before + sign
        if not rows[row]:
            del rows[row]
            if not rows:
                del bound[port]
        if self.in_range(row, port) and (before == 0 or before + sign == 0):
            self.ports[row] -= sign

    def _bind_ports(self, rows: Sequence[int], ports: Sequence[int]) -> None:
        """Do what ``_bind`` does for one more container at each row and port."""
        if not ports:
            return
        if self.port_rows or not 0 <= min(ports) <= max(ports) <= PORT_MAX:
            for row, port in zip(rows, ports, strict=True):
                self._bind(row, port, 1)
            return
        self._unbound.append((rows, ports))
        # Several containers of one agent may have one port: it is one port less.
        pairs = np.unique(np.array(rows, np.int64) * (PORT_MAX + 1) + np.array(ports, np.int64))
        at, number = pairs // (PORT_MAX + 1), pairs % (PORT_MAX + 1)
        inside = (self.ports_low[at] <= number) & (number <= self.ports_high[at])
        self.ports -= np.bincount(at[inside], minlength=len(self.ports))

    def _bind_all(self, agents: Ints, port: int) -> None:
        """Do what ``_bind`` does for one more container with ``port`` on each of ``agents``."""
        rows = self.port_rows.setdefault(port, {})
        unbound = agents
        if rows:
            unbound = np.array([row for row in agents.tolist() if row not in rows], np.int64)
            for row in agents.tolist():
                rows[row] = rows.get(row, 0) + 1
        else:
            rows.update(dict.fromkeys(agents.tolist(), 1))
        inside = (self.ports_low[unbound] <= port) & (port <= self.ports_high[unbound])
        self.ports[unbound[inside]] -= 1

    def _set_port_range(self, row: int, low: int, high: int) -> None:
        """Set the range of dynamic ports, and count its free ports again."""
        self.ports_low[row], self.ports_high[row] = low, high
        size = high - low + 1 if high and high >= low else 0
        taken = sum(1 for port, rows in self.port_rows.items() if row in rows and low <= port <= high)
        unknown = sum(charge.load.dynamic for charge in self._charges.values() if charge.row == row)
        self.ports[row] = size - taken - unknown

    def _append(self, record: AgentRecord) -> int:
        row = len(self.names)
        self._grow(row + 1)
        self.names.append(record.agent)
        self.records.append(record)
        self._rows[record.agent] = row
        self._clear_classes()
        return row

    def _grow(self, size: int) -> None:
        """Make room for ``size`` rows."""
        if size > len(self.room):
            size = max(16, size, 2 * len(self.room))
            self.free = [grown(column, size) for column in self.free]
            self.shares = [grown(column, size) for column in self.shares]
            self.flaky = grown(self.flaky, size)
            for name in _COLUMNS:
                setattr(self, name, grown(getattr(self, name), size))


_COLUMNS: Final = ("ports", "ports_low", "ports_high", "placed", "creating", "room", "status")


def _traits(record: AgentRecord) -> tuple[object, ...]:
    """Return what decides which classes of containers an agent is eligible for."""
    return record.pool, record.tags, record.labels, record.info.enforced


def _amounts(infos: Sequence[AgentInfo], field: str) -> Ints:
    """Return one bounded amount of each agent."""
    return np.array([bounded(amount) for amount in map(attrgetter(field), infos)], np.int64)


def _ints() -> Ints:
    return np.zeros(0, np.int64)
