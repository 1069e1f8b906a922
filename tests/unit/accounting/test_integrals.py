"""Integrals: intervals are cut at midnight UTC, add up to their whole, and merge without losing anything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from galaxy.accounting.clock import STEP_S, UNREAD_S_MAX, AccountClock
from galaxy.accounting.integrals import DAY_S, added, closed, day_of, key_of, merged_into, pieces
from galaxy.model.resource_seconds import ResourceSeconds, held_for
from galaxy.model.resources import Resources
from galaxy.model.stored.account import EARLIER, Account

HELD = Resources(cpu_milli=500, memory_bytes=1 << 30, containers=2)
times = st.floats(min_value=DAY_S, max_value=400 * DAY_S, allow_nan=False)


def test_interval_across_two_midnights_is_cut_into_three_days() -> None:
    assert list(pieces(DAY_S - 10.0, 2 * DAY_S + 5.0)) == [(EARLIER, 10.0), (1, DAY_S), (2, 5.0)]
    assert list(pieces(3.5 * DAY_S, 4.25 * DAY_S)) == [(3, DAY_S / 2), (4, DAY_S / 4)]


def test_empty_interval_and_one_of_a_clock_that_went_back_have_no_pieces() -> None:
    assert list(pieces(5.0 * DAY_S, 5.0 * DAY_S)) == []
    assert list(pieces(6.0 * DAY_S, 5.0 * DAY_S)) == []


@given(start_s=times, seconds=st.floats(0, 30 * DAY_S), first_day=st.integers(1, 400))
def test_pieces_of_any_interval_add_up_to_it(start_s: float, seconds: float, first_day: int) -> None:
    end_s = start_s + seconds
    cut = list(pieces(start_s, end_s, first_day=first_day))
    assert abs(sum(part for _, part in cut) - (end_s - start_s)) < 1e-3
    assert len({day for day, _ in cut}) == len(cut)
    assert all(day == EARLIER or first_day <= day <= day_of(end_s) for day, _ in cut)


def test_container_that_lives_for_days_is_accounted_on_each_of_them() -> None:
    account = Account(job="web-1", user="ann", pool="main", held=HELD, since_s=10.5 * DAY_S)
    rows = list(closed(account, 12.25 * DAY_S))
    assert [row.day for row in rows] == [10, 11, 12]
    assert [row.assigned.cpu_milli_s for row in rows] == [
        500 * DAY_S / 2, 500 * DAY_S, 500 * DAY_S / 4,
    ]  # fmt: skip
    assert rows[1].assigned == held_for(HELD, DAY_S)
    assert key_of(rows[0]) == "ann/web-1/main/000010"


def test_days_before_the_first_that_is_kept_are_one_sum_without_the_job() -> None:
    account = Account(job="web-1", user="ann", pool="main", held=HELD, since_s=10.0 * DAY_S)
    earlier, kept = closed(account, 14.0 * DAY_S, first_day=13)
    assert (earlier.day, earlier.job, earlier.assigned) == (EARLIER, "", held_for(HELD, 3 * DAY_S))
    assert (kept.day, kept.job, kept.assigned) == (13, "web-1", held_for(HELD, DAY_S))


def test_sum_of_two_rows_keeps_the_higher_peak_and_a_merged_row_has_none() -> None:
    account = Account(job="web-1", user="ann", pool="main", held=HELD, since_s=10.0 * DAY_S)
    (row,) = closed(account, 10.5 * DAY_S)
    one = replace(row, used=ResourceSeconds(cpu_milli_s=7.0), peak_cpu_milli=90)
    two = replace(row, peak_cpu_milli=40, peak_memory_bytes=5)
    both = added(one, two)
    assert both.assigned == held_for(HELD, DAY_S)
    assert (both.used.cpu_milli_s, both.peak_cpu_milli, both.peak_memory_bytes) == (7.0, 90, 5)
    merged = merged_into(both, keep_day=True)
    assert (merged.day, merged.job, merged.assigned, merged.peak_cpu_milli) == (10, "", both.assigned, 0)


def test_account_clock_follows_redis_and_not_the_leaders_own_clock() -> None:
    clock = AccountClock(1000.0, 5000.0)
    assert clock.now_s(5010.0) == 1010.0
    clock.read(1019.5, 5020.0)  # Half a second late.
    assert 1019.9 < clock.now_s(5020.0) <= 1020.0
    clock.read(1031.0, 5030.0)
    assert clock.now_s(5030.0) == 1031.0


def test_account_clock_follows_redis_when_it_is_set_back_and_ignores_a_reading_that_came_late() -> None:
    clock = AccountClock(1000.0, 5000.0)
    assert clock.now_s(5100.0) == 1030.0, "no reading for so long"
    clock.read(1100.0, 5100.0)
    clock.read(1100.5, 5102.0)  # One and a half seconds late.
    assert clock.now_s(5102.0) > 1101.9
    clock.read(1103.0 - 10 * STEP_S, 5103.0)
    assert clock.now_s(5103.0) == 1103.0 - 10 * STEP_S


def test_account_clock_does_not_follow_the_leaders_own_clock_when_that_is_set_forward() -> None:
    clock = AccountClock(1000.0, 5000.0)
    clock.read(1001.0, 5001.0)
    assert clock.now_s(5001.0 + 7200.0) == 1001.0 + UNREAD_S_MAX
    clock.read(1002.0, 5002.0 + 7200.0)
    assert clock.now_s(5002.0 + 7200.0) == 1002.0
    assert clock.now_s(5001.0 + 7200.0) == 1002.0, "it does not go back by less than a step"


def test_account_clock_ignores_readings_that_are_no_time() -> None:
    clock = AccountClock(1000.0, 5000.0)
    for redis_s in (float("inf"), float("nan"), float("-inf"), 1.7e308, -1.0):
        clock.read(redis_s, 5001.0)
        assert clock.now_s(5001.0) == 1001.0
