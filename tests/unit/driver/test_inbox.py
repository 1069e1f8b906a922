"""The inbox of a leader is bounded, and a new event wakes its reader."""

from __future__ import annotations

import threading
import time

from galaxy.driver.inbox import EVENTS_PER_TICK, ROWS_PER_TICK, LeaderInbox
from galaxy.model.messages.agent import AgentReport
from galaxy.model.messages.container import ObservedContainer, ObservedContainerState


def report(serial: int, *, containers: int = 0) -> AgentReport:
    observed = (
        ObservedContainer(container=f"web.{slot}", incarnation=1, state=ObservedContainerState.READY)
        for slot in range(containers)
    )
    return AgentReport(agent="h1", boot="b", serial=serial, containers=tuple(observed))


def test_events_are_taken_in_the_order_they_came() -> None:
    inbox = LeaderInbox(10)
    for event in "abc":
        inbox.put(event)
    assert inbox.take(0.0) == ["a", "b", "c"]
    assert inbox.take(0.0) == []


def test_event_beyond_the_limit_is_counted_and_dropped() -> None:
    inbox = LeaderInbox(2)
    assert [inbox.put(event) for event in "abc"] == [True, True, False]
    assert inbox.dropped == 1
    assert inbox.take(0.0) == ["a", "b"]


def test_only_the_latest_reading_of_a_kind_is_taken_and_before_other_events() -> None:
    inbox = LeaderInbox(2)
    inbox.put("event")
    inbox.put_latest("heartbeats", 1)
    inbox.put_latest("heartbeats", 2)
    assert inbox.take(0.0) == [2, "event"]


def test_request_is_taken_before_the_reports_that_came_first() -> None:
    inbox = LeaderInbox(10)
    inbox.put_reports([report(1), report(2)])
    inbox.put("request")
    assert inbox.take(0.0) == ["request", report(1), report(2)]


def test_request_in_a_burst_of_reports_waits_for_one_bounded_tick_of_them() -> None:
    inbox = LeaderInbox(10)
    inbox.put_reports(report(serial, containers=9) for serial in range(1000))
    assert len(inbox.take(0.0)) == ROWS_PER_TICK // 10
    inbox.put("request")
    assert inbox.take(0.0)[0] == "request"
    assert len(inbox) == 1000 - 2 * ROWS_PER_TICK // 10


def test_report_larger_than_a_tick_is_taken_alone() -> None:
    inbox = LeaderInbox(10)
    inbox.put_reports([report(1, containers=2 * ROWS_PER_TICK), report(2)])
    assert [one.serial for one in inbox.take(30.0)] == [1]
    assert [one.serial for one in inbox.take(30.0)] == [2]


def test_flood_of_requests_is_taken_in_bounded_ticks() -> None:
    inbox = LeaderInbox(10_000)
    for number in range(EVENTS_PER_TICK + 1):
        inbox.put(number)
    assert [len(inbox.take(30.0)), len(inbox.take(30.0))] == [EVENTS_PER_TICK, 1]


def test_take_returns_as_soon_as_something_is_put() -> None:
    inbox = LeaderInbox(2)
    taken: list[list[str]] = []
    thread = threading.Thread(target=lambda: taken.append(inbox.take(30.0)))
    thread.start()
    start_s = time.monotonic()
    inbox.put("event")
    thread.join(10.0)
    assert taken == [["event"]]
    assert time.monotonic() - start_s < 5.0


def test_wake_makes_take_return_without_events_once() -> None:
    inbox = LeaderInbox(2)
    inbox.wake()
    assert inbox.take(30.0) == []
    start_s = time.monotonic()
    assert inbox.take(0.05) == []
    assert time.monotonic() - start_s >= 0.04


def test_events_put_by_many_threads_all_arrive_once() -> None:
    inbox = LeaderInbox(10_000)
    threads = [
        threading.Thread(target=lambda base=base: [inbox.put(base + n) for n in range(500)])
        for base in range(0, 4000, 1000)
    ]
    for thread in threads:
        thread.start()
    seen: list[int] = []
    while len(seen) < 2000:
        got = inbox.take(10.0)
        assert got
        seen += got
    for thread in threads:
        thread.join(10.0)
    assert sorted(seen) == sorted(base + n for base in range(0, 4000, 1000) for n in range(500))
