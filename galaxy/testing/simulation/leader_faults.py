"""Logic and a store that fail as a leader of production may see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from galaxy.driver.interfaces import Grant
from galaxy.errors import Unreachable
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.step import Logic, Step
from galaxy.model.stored.table import Table, TableChange
from galaxy.nexus.in_memory import MemoryNexus
from galaxy.testing.simulation.world import World


class _StepFault(Exception):
    """Raised by a step that the simulator makes fail."""


class FaultyLogic:
    """Logic whose steps raise at the rate of ``Faults.step_fault``, after some or all of their work."""

    def __init__(self, logic: Logic, world: World, on_lead: Callable[[], None]) -> None:
        """``on_lead`` is called when the tables are as they were stored."""
        self._logic = logic
        self._world = world
        self._on_lead = on_lead
        self.recover = logic.recover

    def lead(self, epoch: int, now_s: float) -> None:
        self._on_lead()
        self._logic.lead(epoch, now_s)

    @property
    def tables(self) -> Mapping[str, Table[Any]]:
        return self._logic.tables

    def step(self, now_s: float, events: Sequence[Any]) -> Step:
        if not self._world.strikes("step_fault"):
            return self._logic.step(now_s, events)
        self._logic.step(now_s, events[: self._world.random.randint(0, len(events))])
        self._world.record(f"a step of {len(events)} events raises")
        raise _StepFault


class FaultyStore:
    """A store that loses the answer to a commit at the rate of ``Faults.commit_answer_lost``."""

    def __init__(self, nexus: MemoryNexus, world: World) -> None:
        self._nexus = nexus
        self._world = world

    def load(self, role: str, tables: Iterable[Table[Any]]) -> None:
        self._nexus.load(role, tables)

    def commit(
        self, grant: Grant, serial: int, changes: Sequence[TableChange], trace: Sequence[TraceEvent]
    ) -> None:
        if not self._world.strikes("commit_answer_lost"):
            self._nexus.commit(grant, serial, changes, trace)
            return
        written = self._world.chance(0.5)
        if written:
            self._nexus.commit(grant, serial, changes, trace)
        self._world.record(f"the answer to a commit of {grant.owner} is lost; written: {written}")
        raise Unreachable("the answer is lost")
