"""Adds what containers have used to the accounts, from the meters that agents send with heartbeats."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Final, NamedTuple

from msgspec.structs import replace

from galaxy.accounting.integrals import pieces
from galaxy.accounting.meters import progress
from galaxy.ids import parse_container_key, split_pod
from galaxy.model.messages.agent import Meter, MeterSample
from galaxy.model.resource_seconds import ResourceSeconds
from galaxy.model.resources import bounded
from galaxy.model.stored.account import EARLIER, OTHER_JOBS, AgentMeters, DayUsage
from galaxy.resman.logic.state.accounts import Accounts
from galaxy.resman.logic.state.state import ResManState

AGENTS_MAX: Final = 100
"""Agents whose meters one step applies. Those of a large cluster follow in the next steps."""
METERS_MAX: Final = 4000
"""Meters of one agent that count; the others are not read."""
LATE_S_MAX: Final = 86_400.0
"""What was used is spread over the time since the last reading, but over no more than this."""
FIRST_S: Final = 60.0
"""The same for the first reading of an agent."""


class _Part(NamedTuple):
    """What the containers of one job on one agent have used since the last reading."""

    cpu_ms: float = 0.0
    memory_byte_s: float = 0.0
    measured_s: float = 0.0
    peak_cpu_milli: int = 0
    peak_memory_bytes: int = 0


class MeasuredUsage:
    """Applies readings of meters, a bounded number of agents in each step.

    Invariant: what was added to the rows of usage is the difference between the meters that are stored and
    zero, because both change in one commit. So a reading that is lost, or applied twice, changes nothing.
    """

    def __init__(self, state: ResManState, accounts: Accounts) -> None:
        self._state = state
        self._accounts = accounts
        self._unread: dict[str, MeterSample] = {}

    def read(self, samples: Mapping[str, MeterSample]) -> None:
        """Take readings in; a newer one of an agent replaces the one before."""
        self._unread.update(samples)

    def step(self) -> bool:
        """Apply some readings; return whether there are more."""
        state = self._state
        for agent, _ in state.agents.written():
            if agent not in state.agents:
                state.meters.drop(agent)
        for agent in list(islice(self._unread, AGENTS_MAX)):
            self._apply(agent, self._unread.pop(agent))
        return bool(self._unread)

    def _apply(self, agent: str, sample: MeterSample) -> None:
        state, record = self._state, self._state.agents.get(agent)
        if record is None:
            return
        before = state.meters.get(agent)
        if before is not None and before.boot == sample.boot and sample.at_s <= before.at_s:
            return
        now_s = self._accounts.now_s
        elapsed_s = FIRST_S if before is None else min(max(0.0, now_s - before.read_s), LATE_S_MAX)
        meters = dict(islice(sample.meters.items(), METERS_MAX))
        for job, part in _parts(before, sample.boot, meters, elapsed_s).items():
            user = self._owner(job)
            if user is not None:
                self._add(DayUsage(day=0, user=user, job=job, pool=record.pool), part, elapsed_s)
        state.meters.put(
            agent,
            AgentMeters(agent=agent, boot=sample.boot, at_s=sample.at_s, read_s=now_s, meters=meters),
        )

    def _owner(self, job: str) -> str | None:
        """Return the owner of a job, also for a while after it was removed."""
        group, ended = self._state.groups.get(job), self._state.ended.get(job)
        if group is not None:
            return group.order.user
        return ended.user if ended is not None else None

    def _add(self, row: DayUsage, part: _Part, elapsed_s: float) -> None:
        """Spread what was used evenly over the time since the last reading."""
        accounts = self._accounts
        for day, seconds in pieces(accounts.now_s - elapsed_s, accounts.now_s, first_day=accounts.first_day):
            share = seconds / elapsed_s
            used = ResourceSeconds(
                cpu_milli_s=part.cpu_ms * share,
                memory_bytes_s=part.memory_byte_s * share,
                containers_s=part.measured_s * share,
            )
            if day == EARLIER:
                accounts.add(replace(row, day=day, job=OTHER_JOBS, used=used))
            else:
                accounts.add(
                    replace(
                        row,
                        day=day,
                        used=used,
                        peak_cpu_milli=part.peak_cpu_milli,
                        peak_memory_bytes=part.peak_memory_bytes,
                    )
                )


def _parts(
    before: AgentMeters | None, boot: str, meters: Mapping[str, Meter], elapsed_s: float
) -> dict[str, _Part]:
    """Return what the containers of each job have used since the reading ``before``."""
    parts: dict[str, _Part] = {}
    known = {} if before is None else before.meters
    same_boot = before is not None and before.boot == boot
    for key, meter in meters.items():
        job = _job_of(key)
        if not job or known.get(key) == meter:
            continue
        one = progress(known.get(key), meter, same_boot=same_boot, elapsed_s=elapsed_s)
        part = parts.get(job, _Part())
        parts[job] = _Part(
            cpu_ms=part.cpu_ms + one.cpu_ms,
            memory_byte_s=part.memory_byte_s + one.memory_byte_s,
            measured_s=part.measured_s + one.measured_s,
            peak_cpu_milli=max(part.peak_cpu_milli, bounded(meter.peak_cpu_milli)),
            peak_memory_bytes=max(part.peak_memory_bytes, bounded(meter.peak_memory_bytes)),
        )
    return parts


def _job_of(key: str) -> str:
    parsed = parse_container_key(key)
    try:
        return split_pod(parsed[0])[0] if parsed else ""
    except ValueError:
        return ""
