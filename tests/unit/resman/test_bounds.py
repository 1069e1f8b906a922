"""What ResMan keeps of agents beside its tables is bounded."""

from __future__ import annotations

from galaxy.model.messages.container import ContainerState
from galaxy.model.step import Send
from galaxy.resman.logic.agents.reports import NEWER_KEPT_MAX, NEWER_MAX
from galaxy.statemachine.backoff import AskLimiter
from tests.unit.resman.old_cluster import _gone
from tests.unit.resman.test_recovery import LedResMan


def test_serials_kept_since_the_last_full_report_are_bounded() -> None:
    led = LedResMan()
    agent = led.agents["h1"]
    sends: list[Send] = []
    for first in range(0, 3 * NEWER_MAX, 100):
        gone = [_gone(f"job{number}-0.0", 1) for number in range(first, first + 100)]
        sends = led.tick(agent.report(gone))
        led.tick(*led.obey(sends))
    assert len(led.resman.state.watches["h1"].newer_serials) <= NEWER_MAX + 200


def test_agent_without_full_reports_takes_bounded_memory_and_is_believed_again_after_one() -> None:
    led = LedResMan()
    agent = led.agents["h1"]
    for first in range(0, 2 * NEWER_KEPT_MAX, 100):
        led.tick(agent.report([_gone(f"job{number}-0.0", 1) for number in range(first, first + 100)]))
    assert len(led.resman.state.watches["h1"].newer_serials) <= NEWER_KEPT_MAX
    reports = led.obey(led.tick(led.order(4)))
    led.tick(*(report for report in reports if not report.full))
    rows = led.resman.state.containers
    assert {rows[key].state for key in rows.where("agent", "h1")} == {ContainerState.ALLOCATING}
    led.tick(agent.report(full=True))
    assert {rows[key].state for key in rows.where("agent", "h1")} == {ContainerState.READY}
    assert led.resman.state.watches["h1"].newer_serials == {}


def test_ask_limiter_drops_keys_when_their_wait_is_over_and_not_before() -> None:
    asked = AskLimiter(1.0, 30.0)
    assert asked.due("steady", 0.0)
    for number in range(10_000):
        assert asked.due(f"h{number}", number / 10)
        if number % 100 == 50:
            asked.due("steady", number / 10)
    assert len(asked) < 1000
    assert not asked.due("h9999", 1000.0)
    assert not asked.due("steady", 999.0), "its wait has grown, and that was kept"
