"""Timers of keys, and resend timers that come due again until they are stopped."""

from __future__ import annotations

import tracemalloc

from galaxy.statemachine.timers import ResendTimers, Timers


def test_keys_come_due_earliest_first_and_once() -> None:
    timers: Timers[str] = Timers()
    timers.set("late", 3.0)
    timers.set("early", 1.0)
    assert list(timers.pop_due(0.9)) == []
    assert list(timers.pop_due(3.0)) == ["early", "late"]
    assert list(timers.pop_due(99.0)) == []


def test_keys_that_are_due_together_come_in_their_own_order() -> None:
    timers: Timers[tuple[str, str]] = Timers()
    for key in (("pod", "b"), ("job", "z"), ("pod", "a")):
        timers.set(key, 1.0)
    assert list(timers.pop_due(1.0)) == [("job", "z"), ("pod", "a"), ("pod", "b")]


def test_at_keeps_the_earlier_time_and_set_replaces_it() -> None:
    timers: Timers[str] = Timers()
    timers.set_if_sooner("a", 5.0)
    timers.set_if_sooner("a", 7.0)
    assert timers.next_s() == 5.0
    timers.set_if_sooner("a", 4.0)
    assert timers.next_s() == 4.0
    timers.set("a", 9.0)
    assert (timers.next_s(), timers.due_s("a"), len(timers)) == (9.0, 9.0, 1)


def test_cancelled_key_never_comes_due() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 1.0)
    timers.set("b", 2.0)
    timers.cancel("a")
    timers.cancel("unknown")
    assert timers.next_s() == 2.0
    assert list(timers.pop_due(9.0)) == ["b"]
    assert "b" not in timers and timers.next_s() is None


def test_key_that_is_cancelled_while_others_are_popped_does_not_come_due() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 1.0)
    timers.set("b", 2.0)
    popped = []
    for key in timers.pop_due(9.0):
        popped.append(key)
        timers.cancel("b")
    assert popped == ["a"]


def test_key_that_is_set_many_times_uses_bounded_memory() -> None:
    timers: Timers[str] = Timers()
    tracemalloc.start()
    for second in range(50_000):
        timers.set("a", float(second))
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held_bytes < 100_000


def test_resent_key_comes_due_again_after_waits_that_double_up_to_the_maximum() -> None:
    timers = ResendTimers(2.0, 15.0)
    timers.start("a", 0.0)
    times = [second for second in range(60) if timers.pop(float(second))]
    assert times == [0, 2, 6, 14, 29, 44, 59]


def test_resend_timers_without_a_wait_are_due_once() -> None:
    timers = ResendTimers(0.0, 0.0)
    timers.start("a", 5.0)
    assert (timers.pop(4.9), timers.pop(5.0), timers.pop(99.0)) == ([], ["a"], [])
    assert len(timers) == 0


def test_stopped_key_is_never_resent_and_not_waited_for() -> None:
    timers = ResendTimers(1.0, 9.0)
    timers.start("a", 1.0)
    timers.start("b", 2.0)
    timers.stop("a")
    assert timers.next_s() == 2.0
    assert timers.pop(9.0) == ["b"]


def test_hurry_ends_a_long_wait_and_leaves_a_short_one() -> None:
    timers = ResendTimers(2.0, 15.0)
    timers.start("a", 0.0)
    timers.pop(0.0)
    timers.make_due("a", 0.5)
    assert timers.pop(0.5) == []
    timers.pop(2.0)
    timers.make_due("a", 2.5)
    assert timers.pop(2.5) == ["a"]


def test_key_at_rest_comes_due_after_the_longest_wait() -> None:
    timers = ResendTimers(2.0, 15.0)
    timers.start("a", 0.0)
    timers.slow_down("a", 1.0)
    timers.slow_down("unknown", 1.0)
    assert (timers.next_s(), list(timers)) == (16.0, ["a"])
    assert not timers.is_first_send("a")


def test_resumed_keys_keep_their_times_except_those_left_out() -> None:
    old, new = ResendTimers(2.0, 15.0), ResendTimers(2.0, 15.0)
    for key in ("a", "b", "gone"):
        old.start(key, 5.0)
    for key in ("a", "b", "new"):
        new.start(key, 7.0)
    new.resume(old, but=["b"])
    assert (new.pop(6.0), new.pop(7.0)) == (["a"], ["b", "new"])
