"""Reports: usage summed up by user, job, pool or day, and what jobs could ask less of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from msgspec.structs import replace

from galaxy.accounting.integrals import added, closed
from galaxy.model.base import Struct
from galaxy.model.resource_seconds import NO_SECONDS, ResourceSeconds
from galaxy.model.stored.account import EARLIER, OTHER_JOBS, Account, DayUsage
from galaxy.units import MIB

BY: Final[dict[str, Callable[[DayUsage], DayUsage]]] = {
    "user": lambda row: replace(row, day=EARLIER, job=OTHER_JOBS, pool=""),
    "job": lambda row: replace(row, day=EARLIER, pool=""),
    "pool": lambda row: replace(row, day=EARLIER, job=OTHER_JOBS, user=""),
    "day": lambda row: replace(row, job=OTHER_JOBS, user="", pool=""),
}
"""What rows can be summed up by: a function that drops what does not distinguish them."""

MARGIN: Final = 1.25
"""What a container would need is its peak times this."""
MEASURED_S_MIN: Final = 3600.0
"""A job whose containers were measured for less than this, together, is not advised."""
CPU_STEP_MILLI: Final = 10
MEMORY_STEP_BYTES: Final = 16 * MIB


class UsageTotal(Struct, frozen=True, kw_only=True):
    """What was assigned and used, of everything that has the same ``user``, ``job``, ``pool`` or ``day``.

    ``day`` is like 2026-11-30, UTC. ``asked_...`` is what one container asked for on average,
    ``peak_...`` the most that one was measured to use, and ``enough_...`` what would be enough for it,
    where that is less than was asked, and enough is known; otherwise 0.
    """

    user: str = ""
    job: str = ""
    pool: str = ""
    day: str = ""
    assigned: ResourceSeconds = NO_SECONDS
    used: ResourceSeconds = NO_SECONDS
    asked_cpu_milli: int = 0
    asked_memory_bytes: int = 0
    peak_cpu_milli: int = 0
    peak_memory_bytes: int = 0
    enough_cpu_milli: int = 0
    enough_memory_bytes: int = 0

    @property
    def name(self) -> str:
        """The one of user, job, pool and day that it is about."""
        return self.job or self.user or self.pool or self.day


def in_range(
    rows: Iterable[DayUsage], accounts: Iterable[Account], now_s: float, *, first: int = 0, last: int = 0
) -> Iterator[DayUsage]:
    """Yield the rows from day ``first`` to ``last`` (0: no limit), with those of intervals that are open."""
    yield from (row for row in rows if first <= row.day <= (last or row.day))
    for account in accounts:
        for row in closed(account, now_s):
            if first <= row.day <= (last or row.day):
                yield row


def totals(rows: Iterable[DayUsage], by: str, day_text: Callable[[int], str]) -> list[UsageTotal]:
    """Sum up ``rows`` by one of ``BY``, what was assigned most of first; days in their order.

    ``day_text`` writes the number of a day.
    """
    sums: dict[tuple[str, str, str, int], DayUsage] = {}
    for row in rows:
        short = BY[by](row)
        key = short.user, short.job, short.pool, short.day
        sums[key] = added(sums.get(key), short)
    if by == "day":
        ordered = sorted(sums.values(), key=lambda row: row.day)
    else:
        ordered = sorted(sums.values(), key=lambda row: (-_weight(row), row.user, row.job, row.pool))
    return [_total(row, by, day_text) for row in ordered]


def _weight(row: DayUsage) -> float:
    return max(row.assigned.cpu_milli_s, row.used.cpu_milli_s)


def _total(row: DayUsage, by: str, day_text: Callable[[int], str]) -> UsageTotal:
    assigned, used, advised = row.assigned, row.used, by == "job" and bool(row.job)
    lived_s = assigned.containers_s
    cpu = round(assigned.cpu_milli_s / lived_s) if advised and lived_s else 0
    memory = round(assigned.memory_bytes_s / lived_s) if advised and lived_s else 0
    known = advised and used.containers_s >= MEASURED_S_MIN
    return UsageTotal(
        user=row.user,
        job=row.job,
        pool=row.pool,
        day=day_text(row.day) if by == "day" else "",
        assigned=assigned,
        used=used,
        asked_cpu_milli=cpu,
        asked_memory_bytes=memory,
        peak_cpu_milli=row.peak_cpu_milli if advised else 0,
        peak_memory_bytes=row.peak_memory_bytes if advised else 0,
        enough_cpu_milli=_enough(row.peak_cpu_milli, cpu, CPU_STEP_MILLI) if known else 0,
        enough_memory_bytes=_enough(row.peak_memory_bytes, memory, MEMORY_STEP_BYTES) if known else 0,
    )


def _enough(peak: int, asked: int, step: int) -> int:
    """Return the peak with a margin, in whole steps; 0 if that is not less than what is asked."""
    enough = max(step, step * math.ceil(peak * MARGIN / step))
    return enough if enough < asked else 0
