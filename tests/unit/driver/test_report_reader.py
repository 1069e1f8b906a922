"""Reports move from Nexus into the inbox only as fast as the leader handles them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from galaxy.driver.inbox import ROWS_PER_TICK, LeaderInbox
from galaxy.driver.interfaces import Grant, RefusedReport, TakenReports
from galaxy.driver.report_reader import ReportCounts, ReportReader
from galaxy.errors import NotLeader, Unreachable
from galaxy.model.messages.agent import AgentReport, HeartbeatsRead
from galaxy.nexus.in_memory import MemoryNexus

GRANT = Grant(role="tally", owner="a", epoch=1, ttl_s=2.0)


class Source(MemoryNexus):
    """Hands out what the test lists; an exception is raised."""

    def __init__(self, *answers: TakenReports | Exception) -> None:
        super().__init__(time.time)
        self.answers = list(answers)
        self.calls = 0

    def take_reports(self, grant: Grant, wait_s: float = 0.0) -> TakenReports:
        self.calls += 1
        if not self.answers:
            threading.Event().wait(0.001)
            return TakenReports()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def some(count: int, first: int = 0) -> TakenReports:
    reports = (AgentReport(agent=f"h{n}", boot="b", serial=1) for n in range(first, first + count))
    return TakenReports(reports=tuple(reports))


def reading(source: Source, inbox: LeaderInbox, until: Callable[[], bool]) -> ReportCounts:
    """Run a reader until ``until()`` is true."""
    counts, stopping = ReportCounts(), threading.Event()
    thread = threading.Thread(target=ReportReader(source, GRANT, inbox, counts, stopping).run)
    thread.start()
    end_s = time.monotonic() + 20
    while not until():
        assert time.monotonic() < end_s
        threading.Event().wait(0.001)
    stopping.set()
    thread.join(10)
    assert not thread.is_alive()
    return counts


def test_reader_leaves_reports_with_nexus_while_the_inbox_has_a_tick_of_them() -> None:
    source, inbox = Source(some(ROWS_PER_TICK), some(5, ROWS_PER_TICK)), LeaderInbox(10)
    reading(source, inbox, lambda: len(inbox) == ROWS_PER_TICK)
    assert len(source.answers) == 1
    inbox.take(0.0)
    counts = reading(source, inbox, lambda: len(inbox) == 5)
    assert counts.__json__() == {"taken": 5, "rounds": 1, "refused": 0}


def test_reader_continues_after_errors() -> None:
    source = Source(Unreachable("no answer"), ValueError("a bug"), NotLeader("for now"), some(1))
    inbox = LeaderInbox(10)
    reading(source, inbox, lambda: len(inbox) == 1)


def test_refused_reports_are_counted_beside_the_others() -> None:
    refused = RefusedReport(agent="h9", why="not a report")
    source = Source(TakenReports(reports=some(1).reports, refused=(refused,)))
    inbox = LeaderInbox(10)
    counts = reading(source, inbox, lambda: source.calls > 1)
    assert counts.__json__() == {"taken": 1, "rounds": 1, "refused": 1}
    assert len(inbox) == 1


def test_agents_whose_reports_are_in_the_inbox_count_as_unread() -> None:
    inbox = LeaderInbox(10)
    inbox.put_reports(some(2).reports)
    inbox.put_latest("heartbeats", HeartbeatsRead(now_s=1.0, heartbeats=(), unread=frozenset({"h7"})))
    read, *reports = inbox.take(0.0)
    assert read.unread == {"h0", "h1", "h7"}
    assert len(reports) == 2
