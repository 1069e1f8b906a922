"""Integrals of what is held over time, cut at midnight UTC, and merged where they are too many.

An account is open while a job holds anything. Nothing is added up while it is open: its interval begins at
``since_s``, and closes when what it holds changes. So the cost grows with changes and not with time, and a
leader that is down, or a new one, loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from galaxy.model.resource_seconds import held_for
from galaxy.model.stored.account import EARLIER, OTHER_JOBS, Account, DayUsage, day_key

DAY_S: Final = 86_400


def day_of(at_s: float) -> int:
    """Return the number of the day, UTC, of a time in Unix seconds."""
    return int(at_s // DAY_S)


def pieces(start_s: float, end_s: float, *, first_day: int = EARLIER + 1) -> Iterator[tuple[int, float]]:
    """Yield each day of an interval with the seconds that are in it.

    What is before ``first_day`` comes as one piece of the day ``EARLIER``.
    """
    begin_s = float(first_day * DAY_S)
    if start_s < min(begin_s, end_s):
        yield EARLIER, min(begin_s, end_s) - start_s
        start_s = begin_s
    while start_s < end_s:
        day = day_of(start_s)
        until_s = min(float((day + 1) * DAY_S), end_s)
        yield day, until_s - start_s
        start_s = until_s


def closed(account: Account, now_s: float, *, first_day: int = EARLIER + 1) -> Iterator[DayUsage]:
    """Yield what an account has held from ``since_s`` until ``now_s``, by day.

    Days before ``first_day`` are summed up without the job, as ``merged_into`` does.
    """
    for day, seconds in pieces(account.since_s, now_s, first_day=first_day):
        yield DayUsage(
            day=day,
            user=account.user,
            job=OTHER_JOBS if day == EARLIER else account.job,
            pool=account.pool,
            assigned=held_for(account.held, seconds),
        )


def added(one: DayUsage | None, more: DayUsage) -> DayUsage:
    """Return the sum of two rows; it has the day, user, job and pool of ``more``."""
    if one is None:
        return more
    return replace(
        more,
        assigned=one.assigned.plus(more.assigned),
        used=one.used.plus(more.used),
        peak_cpu_milli=max(one.peak_cpu_milli, more.peak_cpu_milli),
        peak_memory_bytes=max(one.peak_memory_bytes, more.peak_memory_bytes),
    )


def merged_into(row: DayUsage, *, keep_day: bool) -> DayUsage:
    """Return the row that ``row`` is merged into: that of all jobs of its user, of its day or ``EARLIER``.

    The peaks of different jobs do not compare, so they are dropped.
    """
    day = row.day if keep_day else EARLIER
    return replace(row, day=day, job=OTHER_JOBS, peak_cpu_milli=0, peak_memory_bytes=0)


def key_of(row: DayUsage) -> str:
    """Return the key under which a row is stored."""
    return day_key(row.user, row.job, row.pool, row.day)
