"""What ResMan remembers of agents beside its tables has an end."""

from __future__ import annotations

from galaxy.model.step import Send
from galaxy.resman.logic.reports import NEWS_MAX
from galaxy.resman.logic.timers import Backoff
from tests.unit.resman.cluster import _gone
from tests.unit.resman.test_recovery import Led


def test_what_an_agent_has_reported_since_its_last_full_report_is_bounded() -> None:
    led = Led()
    agent = led.agents["h1"]
    sends: list[Send] = []
    for first in range(0, 3 * NEWS_MAX, 100):
        gone = [_gone(f"job{number}-0.0", 1) for number in range(first, first + 100)]
        sends = led.tick(agent.report(gone))
        led.tick(*led.obey(sends))
    assert len(led.resman.books.watches["h1"].news) <= NEWS_MAX + 200


def test_names_that_were_asked_once_are_forgotten_when_forgiven_and_not_before() -> None:
    asked = Backoff(1.0, 30.0)
    assert asked.due("steady", 0.0)
    for number in range(10_000):
        assert asked.due(f"h{number}", number / 10)
        if number % 100 == 50:
            asked.due("steady", number / 10)
    assert len(asked) < 1000
    assert not asked.due("h9999", 1000.0)
    assert not asked.due("steady", 999.0), "its wait has grown, and that was kept"
