"""Exponential back-off: how waits grow, when they end, and what resets them."""

from __future__ import annotations

import math

from galaxy.statemachine.backoff import AskLimiter, Backoff, KeyedBackoff, Retry, delay_after


def retry() -> Retry:
    return Retry(first_s=1.0, max_s=5.0, tries_max=5)


def waits_until_given_up(failing: Retry, now_s: float = 100.0) -> list[float | None]:
    """Fail each try when it is due; return the wait after each."""
    waits: list[float | None] = []
    while waits[-1:] != [None]:
        failing.failed(now_s)
        wait_s = failing.wait_s(now_s)
        waits.append(wait_s)
        now_s += wait_s or 0.0
    return waits


def test_delay_doubles_with_each_failure_up_to_the_maximum() -> None:
    delays = [delay_after(failures, first_s=1.0, max_s=5.0) for failures in range(1, 6)]
    assert delays == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_delay_after_any_number_of_failures_is_a_finite_float() -> None:
    assert delay_after(10**9, first_s=0.5, max_s=60.0) == 60.0
    assert math.isfinite(delay_after(10**9, first_s=0.5))


def test_backoff_doubles_up_to_its_maximum_and_starts_again_after_reset() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next_s() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.next_s() == 0.5


def test_backoff_continues_from_a_wait_that_was_shortened() -> None:
    backoff = Backoff(1.0, 60.0)
    waits = [backoff.next_s() for _ in range(4)]
    assert waits == [1.0, 2.0, 4.0, 8.0]
    assert [backoff.next_s(at_most_s=3.0), backoff.next_s()] == [3.0, 6.0]


def test_keyed_backoff_counts_each_key_by_itself() -> None:
    backoff = KeyedBackoff(1.0, 15.0)
    assert [backoff.next_s("a"), backoff.next_s("a"), backoff.next_s("b")] == [1.0, 2.0, 1.0]
    backoff.reset("a")
    assert [backoff.next_s("a"), backoff.next_s("b")] == [1.0, 2.0]


def test_retry_waits_double_up_to_the_maximum_and_end_after_the_last_try() -> None:
    assert waits_until_given_up(retry()) == [1.0, 2.0, 4.0, 5.0, None]


def test_operation_that_has_not_failed_is_due_at_once() -> None:
    assert retry().wait_s(7.0) == 0.0


def test_success_after_giving_up_starts_again_from_the_first_wait() -> None:
    failing = retry()
    waits_until_given_up(failing)
    failing.succeeded()
    assert failing.wait_s(100.0) == 0.0
    failing.failed(100.0)
    assert failing.wait_s(100.0) == 1.0


def test_given_up_operation_gets_one_more_try_after_its_last_wait() -> None:
    failing = retry()
    for _ in range(9):
        failing.failed(100.0)
    failing.allow_one_more()
    assert failing.wait_s(100.0) == 5.0
    assert failing.wait_s(105.0) == 0.0
    failing.failed(105.0)
    assert failing.wait_s(1000.0) is None


def test_allow_one_more_shortens_no_wait_and_try_now_does() -> None:
    failing = retry()
    failing.failed(100.0)
    failing.allow_one_more()
    assert failing.wait_s(100.0) == 1.0
    failing.try_now()
    assert failing.wait_s(100.0) == 0.0


def test_ask_limiter_allows_asks_at_growing_intervals_and_starts_again_after_a_pause() -> None:
    limiter = AskLimiter(2.0, 15.0)
    assert [second for second in range(32) if limiter.due("a", float(second))] == [0, 2, 6, 14, 29]
    assert [second for second in range(100, 108) if limiter.due("a", float(second))] == [100, 102, 106]


def test_ask_limiter_that_is_reset_allows_an_ask_at_once() -> None:
    limiter = AskLimiter(2.0, 15.0)
    assert limiter.due("a", 0.0) and limiter.due("a", 2.0)
    limiter.reset("a")
    assert [second for second in range(3, 8) if limiter.due("a", float(second))] == [3, 5]
