"""The cluster as placement sees it: one row an agent, one array a resource.

Kept up to date by deltas (``hold``, ``release``, ``join``, ``stand``), so that a decision
costs what changed and a few passes over short arrays, and never a walk over containers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias, TypeVar

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from galaxy.model.messages.agent import AgentInfo
from galaxy.scheduler.requests import Load, Shape, bounded

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]
T = TypeVar("T", bound=np.generic)

CLASSES_MAX: Final = 1024
"""Remembered (pools, tag, require) combinations; all are forgotten beyond it."""


class Standing(IntEnum):
    """Whether anything new may go to an agent."""

    OPEN = 0
    CORDONED = 1
    SUSPECT = 2
    DEAD = 3


class Holding(Struct, frozen=True, gc=False):
    """What a container takes, and where; ``making`` until its agent has made it.

    There may be a million: the garbage collector need not look at them.
    """

    row: int
    group: str
    load: Load
    making: bool


class Eligible(NamedTuple):
    """Rows that a class of containers may go to, in order of agent name.

    ``whole`` is every row in order, for which no array needs to be gathered.
    """

    rows: Ints
    whole: bool

    def take(self, column: NDArray[T]) -> NDArray[T]:
        """Return ``column`` at these rows."""
        return column[: len(self.rows)] if self.whole else column[self.rows]

    def among(self, rows: Collection[int], size: int) -> Bools:
        """Return which of these rows are in ``rows``; the view has ``size`` of them."""
        mask = np.zeros(size, np.bool_)
        mask[np.fromiter(rows, np.int64, len(rows))] = True
        return self.take(mask)

    def counts(self, counts: Mapping[int, int], size: int) -> Ints:
        """Return the count of each of these rows, 0 where there is none."""
        column = np.zeros(size, np.int64)
        index = np.fromiter(counts, np.int64, len(counts))
        column[index] = np.fromiter(counts.values(), np.int64, len(counts))
        return self.take(column)

    def only(self, rows: Collection[int], size: int) -> Eligible:
        """Return the part of this that is in ``rows``."""
        return Eligible(self.rows[self.among(rows, size)], False)


class ClusterView:
    """Free amounts by agent; see the module. Amounts may be below zero where an agent shrank.

    ``making_max`` bounds the containers that one agent makes at once; an agent that failed
    lately (``flaky``) makes one at a time and is chosen last.
    """

    def __init__(self, *, making_max: int = 64) -> None:
        self.making_max = making_max
        self.names: list[str] = []
        self.infos: list[AgentInfo] = []
        self.cpu: Ints = np.zeros(0, np.int64)
        self.memory: Ints = np.zeros(0, np.int64)
        self.disk: Ints = np.zeros(0, np.int64)
        self.ports: Ints = np.zeros(0, np.int64)
        self.ports_low: Ints = np.zeros(0, np.int64)
        self.ports_high: Ints = np.zeros(0, np.int64)
        self.slots: Ints = np.zeros(0, np.int64)
        self.making: Ints = np.zeros(0, np.int64)
        self.held: Ints = np.zeros(0, np.int64)
        self.room: Ints = np.zeros(0, np.int64)
        self.cpu_share: Floats = np.zeros(0)
        self.memory_share: Floats = np.zeros(0)
        self.standing: Ints = np.zeros(0, np.int64)
        self.flaky: Bools = np.zeros(0, np.bool_)
        self.flaky_any = False
        self.port_rows: dict[int, dict[int, int]] = {}
        self.group_rows: dict[str, dict[int, int]] = {}
        self._rows: dict[str, int] = {}
        self._held: dict[str, Holding] = {}
        self._freed: set[int] = set()
        self._stale: set[int] = set()
        self._classes: dict[tuple[tuple[str, ...], str, tuple[str, ...]], Eligible] = {}
        self._masks: dict[tuple[str, str], Bools] = {}
        self._order: Ints = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self.names)

    def row(self, agent: str) -> int:
        """Return the row of ``agent``, or -1."""
        return self._rows.get(agent, -1)

    def holding(self, key: str) -> Holding | None:
        """Return what ``key`` holds."""
        return self._held.get(key)

    def join(self, info: AgentInfo, standing: Standing = Standing.OPEN) -> int:
        """Take in an agent, or what is new about one, and return its row."""
        row = self._rows.get(info.agent)
        if row is None:
            row = self._append(info)
            old = None
        else:
            old = self.infos[row]
            self.infos[row] = info
        low, high = bounded(info.ports_low), bounded(info.ports_high)
        self.cpu[row] += bounded(info.cpu_milli) - (bounded(old.cpu_milli) if old else 0)
        self.memory[row] += bounded(info.memory_bytes) - (bounded(old.memory_bytes) if old else 0)
        self.disk[row] += bounded(info.disk_bytes) - (bounded(old.disk_bytes) if old else 0)
        self.slots[row] += bounded(info.containers_max) - (bounded(old.containers_max) if old else 0)
        self.cpu_share[row] = 1.0 / max(1, bounded(info.cpu_milli))
        self.memory_share[row] = 1.0 / max(1, bounded(info.memory_bytes))
        if old is None or (self.ports_low[row], self.ports_high[row]) != (low, high):
            self._range(row, low, high)
        if old is None or (old.pool, old.tags, old.enforced) != (info.pool, info.tags, info.enforced):
            self._forget_classes()
        self.stand(info.agent, standing)
        return row

    def stand(self, agent: str, standing: Standing) -> None:
        """Open an agent for new containers, or close it."""
        row = self._rows[agent]
        self.standing[row] = standing
        self._stale.add(row)

    def distrust(self, agent: str, flaky: bool) -> None:
        """Say that an agent failed lately, or that it works again."""
        row = self._rows[agent]
        self.flaky[row] = flaky
        self.flaky_any = bool(self.flaky[: len(self)].any())
        self._stale.add(row)

    def hold(self, key: str, agent: str, group: str, load: Load, *, making: bool = False) -> None:
        """Charge ``load`` to ``agent`` under ``key``, whether or not it fits: it is there."""
        self.release(key)
        row = self._rows[agent]
        self._held[key] = Holding(row, group, load, making)
        self._charge(row, load, 1)
        rows = self.group_rows.setdefault(group, {})
        rows[row] = rows.get(row, 0) + 1
        self.making[row] += making
        self._stale.add(row)

    def hold_many(self, keys: Sequence[str], rows: Ints, group: str, load: Load) -> None:
        """Charge one ``load`` for each of ``keys`` to the row beside it: all are being made."""
        if len(keys) == 1:
            self.hold(keys[0], self.names[int(rows[0])], group, load, making=True)
            return
        agents, times = np.unique(rows, return_counts=True)
        self.cpu[agents] -= times * load.cpu_milli
        self.memory[agents] -= times * load.memory_bytes
        self.disk[agents] -= times * load.disk_bytes
        self.ports[agents] -= times * load.dynamic
        self.slots[agents] -= times
        self.held[agents] += times
        self.making[agents] += times
        self.room[agents] -= times
        counts = self.group_rows.setdefault(group, {})
        for row, count in zip(agents.tolist(), times.tolist(), strict=True):
            counts[row] = counts.get(row, 0) + count
            for port in load.ports:
                self._bind(row, port, 1)
        held = self._held
        for key, row in zip(keys, rows.tolist(), strict=True):
            held[key] = Holding(row, group, load, True)

    def hold_all(self, holdings: Sequence[tuple[str, str, str, Load, bool]]) -> None:
        """Charge many (key, agent, group, load, making), none of which holds anything yet.

        It comes to what ``hold`` does with one after the other, in a few passes over arrays.
        """
        if not holdings:
            return
        rows = [self._rows[agent] for _, agent, _, _, _ in holdings]
        lows, highs = self.ports_low.tolist(), self.ports_high.tolist()
        bound: list[int] = []
        for row, (key, _, group, load, making) in zip(rows, holdings, strict=True):
            self._held[key] = Holding(row, group, load, making)
            counts = self.group_rows.setdefault(group, {})
            counts[row] = counts.get(row, 0) + 1
            for port in load.ports:
                binders = self.port_rows.setdefault(port, {})
                binders[row] = binders.get(row, 0) + 1
                if binders[row] == 1 and lows[row] <= port <= highs[row]:
                    bound.append(row)
        at = np.array(rows, np.int64)
        for column, amounts in (
            (self.cpu, [load.cpu_milli for _, _, _, load, _ in holdings]),
            (self.memory, [load.memory_bytes for _, _, _, load, _ in holdings]),
            (self.disk, [load.disk_bytes for _, _, _, load, _ in holdings]),
            (self.ports, [load.dynamic for _, _, _, load, _ in holdings]),
        ):
            np.subtract.at(column, at, np.array(amounts, np.int64))
        np.subtract.at(self.ports, np.array(bound, np.int64), 1)
        np.subtract.at(self.slots, at, 1)
        np.add.at(self.held, at, 1)
        np.add.at(self.making, at, np.array([making for _, _, _, _, making in holdings], np.int64))
        self._stale.update(rows)

    def release(self, key: str) -> None:
        """Give back what ``key`` holds; nothing when it holds nothing."""
        holding = self._held.pop(key, None)
        if holding is None:
            return
        row, group = holding.row, holding.group
        self._charge(row, holding.load, -1)
        rows = self.group_rows[group]
        rows[row] -= 1
        if not rows[row]:
            del rows[row]
            if not rows:
                del self.group_rows[group]
        self.making[row] -= holding.making
        self._stale.add(row)

    def made(self, key: str, load: Load | None = None) -> None:
        """Note that ``key`` is made; ``load`` is what it takes now that its ports are known."""
        holding = self._held.get(key)
        if holding is None:
            return
        if load is not None and load != holding.load:
            self._charge(holding.row, holding.load, -1)
            self._charge(holding.row, load, 1)
        self.making[holding.row] -= holding.making
        self._held[key] = Holding(holding.row, holding.group, load or holding.load, False)
        self._stale.add(holding.row)

    def settle(self) -> None:
        """Bring ``room`` up to date: how many more containers each agent may be given now."""
        if not self._stale:
            return
        rows = np.fromiter(self._stale, np.int64, len(self._stale))
        making_max = np.where(self.flaky[rows], 1, self.making_max)
        room = np.minimum(self.slots[rows], making_max - self.making[rows])
        self.room[rows] = np.where(self.standing[rows] == Standing.OPEN, np.maximum(room, 0), 0)
        self._freed |= self._stale
        self._stale = set()

    def take_freed(self) -> set[int]:
        """Return the rows that may have more room than when this was last asked."""
        self.settle()
        freed, self._freed = self._freed, set()
        return freed

    def most_free(self, rows: Iterable[int]) -> Load | None:
        """Return the most that any of ``rows`` with room for a container has free of each amount."""
        self.settle()
        index = np.fromiter(rows, np.int64)
        index = index[self.room[index] > 0]
        if not len(index):
            return None
        return Load(
            cpu_milli=int(self.cpu[index].max()),
            memory_bytes=int(self.memory[index].max()),
            disk_bytes=int(self.disk[index].max()),
        )

    def eligible(self, shape: Shape) -> Eligible:
        """Return the agents in the right pools, with the tag, that enforce what is required."""
        key = (shape.pools, shape.tag, shape.require)
        known = self._classes.get(key)
        if known is None:
            if len(self._classes) >= CLASSES_MAX:
                self._classes.clear()
            known = self._classes[key] = self._classify(shape)
        return known

    def in_range(self, row: int, port: int) -> bool:
        """Return whether ``port`` is one of those that the agent hands out."""
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
        order = self._name_order()
        chosen = order[ok[order]]
        whole = bool(np.array_equal(chosen, np.arange(size)))
        return Eligible(chosen, whole)

    def _members(self, kind: str, name: str) -> Bools:
        """Return which rows are in a pool, bear a tag, or enforce a limit."""
        if not self._masks:
            for row, info in enumerate(self.infos):
                facts = {("pool", info.pool)}
                facts.update(("tag", tag) for tag in info.tags)
                facts.update(("limit", limit) for limit in info.enforced)
                for fact in facts:
                    self._masks.setdefault(fact, np.zeros(len(self), np.bool_))[row] = True
        mask = self._masks.get((kind, name))
        return np.zeros(len(self), np.bool_) if mask is None else mask

    def _name_order(self) -> Ints:
        if len(self._order) != len(self):
            names = self.names
            self._order = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)
        return self._order

    def _forget_classes(self) -> None:
        self._classes.clear()
        self._masks.clear()

    def _charge(self, row: int, load: Load, sign: int) -> None:
        self.cpu[row] -= sign * load.cpu_milli
        self.memory[row] -= sign * load.memory_bytes
        self.disk[row] -= sign * load.disk_bytes
        self.ports[row] -= sign * load.dynamic
        self.slots[row] -= sign
        self.held[row] += sign
        for port in load.ports:
            self._bind(row, port, sign)

    def _bind(self, row: int, port: int, sign: int) -> None:
        rows = self.port_rows.setdefault(port, {})
        before = rows.get(row, 0)
        rows[row] = before + sign
        if not rows[row]:
            del rows[row]
            if not rows:
                del self.port_rows[port]
        if self.in_range(row, port) and (before == 0 or before + sign == 0):
            self.ports[row] -= sign

    def _range(self, row: int, low: int, high: int) -> None:
        """Set the range of dynamic ports, and count anew what is left of it."""
        self.ports_low[row], self.ports_high[row] = low, high
        size = high - low + 1 if high and high >= low else 0
        taken = sum(1 for port, rows in self.port_rows.items() if row in rows and low <= port <= high)
        unknown = sum(held.load.dynamic for held in self._held.values() if held.row == row)
        self.ports[row] = size - taken - unknown

    def _append(self, info: AgentInfo) -> int:
        row = len(self.names)
        if row == len(self.cpu):
            grown = max(16, 2 * row)
            for name in _COLUMNS:
                old = getattr(self, name)
                new = np.zeros(grown, old.dtype)
                new[:row] = old
                setattr(self, name, new)
        self.names.append(info.agent)
        self.infos.append(info)
        self._rows[info.agent] = row
        self._forget_classes()
        return row


_COLUMNS: Final = (
    "cpu", "memory", "disk", "ports", "ports_low", "ports_high", "slots", "making", "held",
    "room", "cpu_share", "memory_share", "standing", "flaky",
)  # fmt: skip
