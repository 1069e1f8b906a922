"""An agent keeps at most one report that a leader has not read; the next one contains what changed since."""

from __future__ import annotations

from msgspec.structs import replace

from galaxy.agent.logic.events import ContainerLaunched, ReportPublished
from galaxy.agent.logic.reports import GATHER_UNREAD_S, KEYS_MAX, DueReport, Outbox
from galaxy.model.messages.agent import AgentReport
from galaxy.model.messages.names import RESMAN
from tests.unit.agent.build import Driven, create, creates


def due(agent: Driven) -> DueReport:
    """Return the one report to ResMan that is due within a second."""
    for _ in range(100):
        found = [one for one in agent.logic.flush(agent.now_s).reports if one.role == RESMAN]
        if found:
            (report,) = found
            return report
        agent.now_s += 0.01
    raise AssertionError("no report is due")


def posted(agent: Driven, *, unread: bool = False, ok: bool = True) -> None:
    agent.step(ReportPublished(role=RESMAN, ok=ok, unread=unread))


def named(report: AgentReport) -> dict[str, str]:
    return {one.container: str(one.state) for one in report.containers}


def reporting(*pods: str) -> tuple[Driven, DueReport]:
    """Return an agent that has posted a report of new containers, and that report."""
    agent = Driven().begin()
    agent.step(creates(*(create(pod) for pod in pods)))
    first = due(agent)
    posted(agent)
    return agent, first


def test_report_after_one_that_was_read_names_only_what_changed_since() -> None:
    agent, first = reporting("a-1.0")
    assert named(first.report) == {"a-1.0": "creating"}
    agent.step(creates(create("b-1.0")))
    second = due(agent)
    assert (named(second.report), second.replaces) == ({"b-1.0": "creating"}, False)


def test_report_after_an_unread_one_replaces_it_and_names_what_both_would() -> None:
    agent, first = reporting("a-1.0", "c-1.0")
    agent.step(creates(create("b-1.0")))
    second = due(agent)
    posted(agent, unread=True)
    agent.step(ContainerLaunched(container="a-1.0", incarnation=1, pid=7))
    third = due(agent)
    assert third.replaces
    assert third.report.serial > second.report.serial > first.report.serial
    assert named(third.report) == {"a-1.0": "ready", "b-1.0": "creating", "c-1.0": "creating"}


def test_unread_report_is_replaced_at_once() -> None:
    agent, _ = reporting("a-1.0")
    agent.step(creates(create("b-1.0")))
    due(agent)
    posted(agent, unread=True)
    assert agent.logic.wake_s() is not None
    assert [one.replaces for one in agent.logic.flush(agent.now_s).reports] == [True]


def test_replacement_that_is_read_is_not_repeated() -> None:
    agent, _ = reporting("a-1.0")
    agent.step(creates(create("b-1.0")))
    due(agent)
    posted(agent, unread=True)
    due(agent)
    posted(agent)
    agent.step(creates(create("d-1.0")))
    assert named(due(agent).report) == {"d-1.0": "creating"}


def test_chain_of_unread_reports_ends_in_one_that_names_all() -> None:
    agent, _ = reporting("p-1.0")
    for number in range(1, 20):
        agent.step(creates(create(f"p-1.{number}")))
        due(agent)
        posted(agent, unread=True)
        last = due(agent)
        posted(agent)
    assert set(named(last.report)) == {f"p-1.{number}" for number in range(20)}


def test_replacement_of_a_full_report_is_full() -> None:
    agent = Driven()
    agent.begin()
    agent.step(replace(creates(create("a-1.0")), report=True))
    assert due(agent).report.full
    posted(agent)
    agent.step(creates(create("a-1.0")))
    assert not due(agent).report.full
    posted(agent, unread=True)
    again = due(agent)
    assert again.report.full and again.report.info is not None
    assert named(again.report) == {"a-1.0": "creating"}


def test_failed_post_of_a_replacement_loses_nothing() -> None:
    agent, _ = reporting("a-1.0")
    agent.step(creates(create("b-1.0")))
    due(agent)
    posted(agent, unread=True)
    due(agent)
    posted(agent, ok=False)
    again = due(agent)
    assert set(named(again.report)) == {"a-1.0", "b-1.0"}
    assert not again.replaces  # It is not known whether the leader has read the last one.


def test_first_report_of_a_new_process_replaces_the_unread_one_of_the_process_before() -> None:
    agent, _ = reporting("a-1.0")
    restarted = agent.restart()
    restarted.step(creates())
    restarted.logic._outbox(RESMAN).mark_full()
    first = due(restarted)
    assert first.report.full and not first.replaces
    posted(restarted, unread=True)
    second = due(restarted)
    assert second.report.full and second.replaces


def test_agent_of_a_busy_leader_posts_no_oftener_than_the_gathering_time() -> None:
    outbox = Outbox()
    now_s, posts = 0.0, 0
    while now_s < 10.0:
        outbox.mark("key")
        wake_s = outbox.wake_s()
        if wake_s is not None and wake_s <= now_s:
            *_, replaces = outbox.take(now_s)
            posts += replaces
            outbox.on_published(now_s, ok=True, unread=not replaces)
        now_s += 0.001
    assert posts <= 10.0 / GATHER_UNREAD_S + 1


def test_very_long_report_becomes_a_full_one() -> None:
    outbox = Outbox()
    for number in range(KEYS_MAX):
        outbox.mark(f"a{number}")
    outbox.take(0.0)
    outbox.on_published(0.0, ok=True)
    outbox.mark("b")
    outbox.take(1.0)
    outbox.on_published(1.0, ok=True, unread=True)
    assert outbox.take(1.0) == (True, (), True)
