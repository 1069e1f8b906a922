"""Debts presented again and again."""

from galaxy.statemachine.resend_timers import AskLimiter, ResendTimers


def test_a_key_comes_due_again_after_waits_that_double_up_to_the_most() -> None:
    timers = ResendTimers(2.0, 15.0)
    timers.start("a", 0.0)
    times = [second for second in range(60) if timers.pop(float(second))]
    assert times == [0, 2, 6, 14, 29, 44, 59]


def test_with_no_wait_a_key_comes_due_once() -> None:
    timers = ResendTimers(0.0, 0.0)
    timers.start("a", 5.0)
    assert (timers.pop(4.9), timers.pop(5.0), timers.pop(99.0)) == ([], ["a"], [])
    assert len(timers) == 0


def test_a_stopped_key_never_comes_due_and_is_not_waited_for() -> None:
    timers = ResendTimers(1.0, 9.0)
    timers.start("a", 1.0)
    timers.start("b", 2.0)
    timers.stop("a")
    assert timers.next_s() == 2.0
    assert timers.pop(9.0) == ["b"]


def test_hurry_brings_a_long_wait_forward_and_leaves_a_short_one() -> None:
    timers = ResendTimers(2.0, 15.0)
    timers.start("a", 0.0)
    timers.pop(0.0)
    timers.hurry("a", 0.5)
    assert timers.pop(0.5) == []
    timers.pop(2.0)
    timers.hurry("a", 2.5)
    assert timers.pop(2.5) == ["a"]


def test_keys_that_start_over_and_over_do_not_fill_memory() -> None:
    timers = ResendTimers(1.0, 1.0)
    for second in range(10_000):
        timers.start("a", float(second))
    assert len(timers._heap) < 100


def test_backoff_answers_ever_more_rarely_and_forgives_after_a_quiet_time() -> None:
    backoff = AskLimiter(2.0, 15.0)
    assert [second for second in range(32) if backoff.due("a", float(second))] == [0, 2, 6, 14, 29]
    assert [second for second in range(100, 108) if backoff.due("a", float(second))] == [100, 102, 106]
