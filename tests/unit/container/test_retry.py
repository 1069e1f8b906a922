"""What fails is tried again, ever more rarely, and not for ever."""

from __future__ import annotations

from galaxy.statemachine.retry import Retry


def retry() -> Retry:
    return Retry(first_s=1.0, longest_s=5.0, tries_max=5)


def waits(of: Retry, now: float = 100.0) -> list[float | None]:
    """Return the waits of a thing that fails at each try."""
    found: list[float | None] = []
    while found[-1:] != [None]:
        of.failed(now)
        wait_s = of.wait_s(now)
        found.append(wait_s)
        now += wait_s or 0.0
    return found


def test_waits_double_up_to_the_longest_and_then_end() -> None:
    assert waits(retry()) == [1.0, 2.0, 4.0, 5.0, None]


def test_what_never_failed_is_due_at_once() -> None:
    assert retry().wait_s(7.0) == 0.0


def test_success_begins_anew() -> None:
    failing = retry()
    waits(failing)
    failing.succeeded()
    assert failing.wait_s(100.0) == 0.0
    failing.failed(100.0)
    assert failing.wait_s(100.0) == 1.0


def test_given_up_is_tried_once_more_when_asked_after_its_last_wait() -> None:
    failing = retry()
    for _ in range(9):
        failing.failed(100.0)
    failing.ask()
    assert failing.wait_s(100.0) == 5.0
    assert failing.wait_s(105.0) == 0.0
    failing.failed(105.0)
    assert failing.wait_s(1000.0) is None


def test_asking_shortens_no_wait_and_hurry_does() -> None:
    failing = retry()
    failing.failed(100.0)
    failing.ask()
    assert failing.wait_s(100.0) == 1.0
    failing.hurry()
    assert failing.wait_s(100.0) == 0.0
