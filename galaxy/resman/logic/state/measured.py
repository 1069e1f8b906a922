"""Adds what containers have used to the accounts, from the meters that agents send with heartbeats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from galaxy.accounting.integrals import pieces
from galaxy.accounting.meters import progress
from galaxy.ids import parse_container_key, split_pod
from galaxy.model.messages.agent import MeterSample
from galaxy.model.resource_seconds import ResourceSeconds
from galaxy.model.resources import bounded
from galaxy.model.stored.account import EARLIER, OTHER_JOBS, AgentMeters, DayUsage
from galaxy.resman.logic.state.accounts import Accounts
from galaxy.resman.logic.state.state import ResManState

STEP_METERS_MAX: Final = 1000
"""One step applies no further agent once it has read so many meters. The others follow in the next steps."""
METERS_MAX: Final = 4000
"""Meters of one agent that count; the others are not read."""
LATE_S_MAX: Final = 86_400.0
"""What was used is spread over the time since the last reading, but over no more than this."""
FIRST_S: Final = 60.0
"""The same for the first reading of an agent."""


@dataclass
class _Used:
    """What containers of one job, pool and day have used since the last readings."""

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
        sums: dict[tuple[str, str, int], _Used] = {}
        left = STEP_METERS_MAX
        for agent in list(self._unread):
            if left <= 0:
                break
            sample = self._unread.pop(agent)
            left -= 1 + len(sample.meters)
            self._apply(agent, sample, sums)
        for (job, pool, day), used in sums.items():
            self._add(job, pool, day, used)
        return bool(self._unread)

    def _apply(self, agent: str, sample: MeterSample, sums: dict[tuple[str, str, int], _Used]) -> None:
        """Add what the containers of an agent have used since its last reading to ``sums``.

        It is spread evenly over the time since then.
        """
        state, record, accounts = self._state, self._state.agents.get(agent), self._accounts
        if record is None:
            return
        before = state.meters.get(agent)
        if before is not None and before.boot == sample.boot and sample.at_s <= before.at_s:
            return
        now_s = accounts.now_s
        elapsed_s = FIRST_S if before is None else min(max(0.001, now_s - before.read_s), LATE_S_MAX)
        known = {} if before is None else before.meters
        same_boot = before is not None and before.boot == sample.boot
        days = list(pieces(now_s - elapsed_s, now_s, first_day=accounts.first_day))
        meters = dict(islice(sample.meters.items(), METERS_MAX))
        for key, meter in meters.items():
            last, job = known.get(key), _job_of(key)
            if not job or last == meter:
                continue
            more = progress(last, meter, same_boot=same_boot, elapsed_s=elapsed_s)
            for day, seconds in days:
                used = sums.setdefault((job, record.pool, day), _Used())
                share = seconds / elapsed_s
                used.cpu_ms += more.cpu_ms * share
                used.memory_byte_s += more.memory_byte_s * share
                used.measured_s += more.measured_s * share
                used.peak_cpu_milli = max(used.peak_cpu_milli, bounded(meter.peak_cpu_milli))
                used.peak_memory_bytes = max(used.peak_memory_bytes, bounded(meter.peak_memory_bytes))
        state.meters.put(
            agent,
            AgentMeters(agent=agent, boot=sample.boot, at_s=sample.at_s, read_s=now_s, meters=meters),
        )

    def _add(self, job: str, pool: str, day: int, used: _Used) -> None:
        """Add to the row of the job's owner; ResMan keeps the owner for a while after the job was removed."""
        group, ended = self._state.groups.get(job), self._state.ended.get(job)
        if group is None and ended is None:
            return
        is_kept = day != EARLIER
        self._accounts.add(
            DayUsage(
                day=day,
                user=group.order.user if group is not None else ended.user if ended is not None else "",
                job=job if is_kept else OTHER_JOBS,
                pool=pool,
                used=ResourceSeconds(
                    cpu_milli_s=used.cpu_ms,
                    memory_bytes_s=used.memory_byte_s,
                    containers_s=used.measured_s,
                ),
                peak_cpu_milli=used.peak_cpu_milli if is_kept else 0,
                peak_memory_bytes=used.peak_memory_bytes if is_kept else 0,
            )
        )


def _job_of(key: str) -> str:
    """Return the job that a container key names; empty if it is not one."""
    parsed = parse_container_key(key)
    try:
        return split_pod(parsed[0])[0] if parsed else ""
    except ValueError:
        return ""
