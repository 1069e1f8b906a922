"""ResMan under its driver after a step that raised: nothing is lost and nothing is done twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from galaxy.driver.leadership import Leadership
from galaxy.model.base import WIRE_VERSION
from galaxy.model.messages.agent import HeartbeatsRead
from galaxy.model.messages.container import (
    ContainerOrders,
    ContainerState,
    GroupOrders,
    GroupStatus,
    GroupStatuses,
    Reason,
)
from galaxy.model.messages.identity import IdentityAck, IdentityOrder
from galaxy.model.messages.names import RESMAN
from galaxy.model.step import Send, Step
from galaxy.resman.logic import ResMan
from tests.unit.resman.cluster import Cluster, info

POISONOUS: Any = GroupOrders(orders=(None,))  # type: ignore[arg-type]
"""Makes ResMan raise, as a bug would; no decoder returns it."""


class RaisingResMan(ResMan):
    """A ResMan whose next ``raises_left`` steps raise when all their work is done."""

    raises_left = 0

    def step(self, now_s: float, events: Sequence[Any]) -> Step:
        step = super().step(now_s, events)
        if self.raises_left:
            self.raises_left -= 1
            raise RuntimeError("a bug")
        return step


class LedResMan(Cluster):
    """A ResMan under its driver, with two agents; its steps raise when a test says so."""

    def __init__(self) -> None:
        self.beside: list[Any] = []
        """Events that each tick of ResMan gets besides its own."""
        led = self

        class WatchedLeadership(Leadership):
            def advance(self, now_s: float, events: Sequence[Any]) -> Any:
                led.leadership = self
                return super().advance(now_s, [*events, *led.beside])

        super().__init__(info("h1"), info("h2"), resman=RaisingResMan, leadership=WatchedLeadership)

    def step_that_raises(self, *events: Any) -> None:
        """Have a step with these events raise at its end, alone and with the others of its tick."""
        self.resman.raises_left = 1 if len(events) < 2 else 1 + len(events)
        assert self.step(*events) == []

    def step_beside_poison(self) -> None:
        """Have the next tick contain a poisonous event."""
        before = self.leadership.poisonous
        self.beside = [POISONOUS]
        self.step()
        self.beside = []
        assert self.leadership.poisonous > before

    def set_heartbeats(self, *, trouble: str = "", wire: int = WIRE_VERSION) -> HeartbeatsRead:
        """Have every agent send heartbeats with these facts from now on; return what ResMan reads."""
        for host in self.hosts.values():
            host.trouble, host.wire = trouble, wire
            host.send_heartbeat()
        return self.nexus.heartbeats()

    def events_of(self, agent: str) -> list[str]:
        """Return the kinds of the events that are recorded of an agent since it has joined."""
        return [event.kind for event in self.nexus.trace([agent]) if event.kind != "agent.joined"]

    def states(self) -> list[ContainerState]:
        return [row.state for row in self.resman.state.containers.values()]


def test_reports_in_the_tick_of_a_poisonous_event_are_applied() -> None:
    led = LedResMan()
    led.order("web-0", 4)
    led.step()
    assert led.states() == [ContainerState.ALLOCATING] * 4
    led.beside = [POISONOUS]
    led.settle()
    assert led.leadership.poisonous > 0
    assert led.states() == [ContainerState.READY] * 4


def test_step_that_raised_does_not_make_an_older_report_valid() -> None:
    led = LedResMan()
    epoch = led.leaders[RESMAN].epoch
    old = [replace(led.full_report(host), epoch=epoch) for host in led.hosts]
    led.order("web-0", 4)
    led.settle()
    led.step_beside_poison()
    assert led.step(*old) == []
    assert led.states() == [ContainerState.READY] * 4


def test_containers_ordered_beside_a_poisonous_event_in_every_tick_are_created_and_reported() -> None:
    led = LedResMan()
    led.beside = [POISONOUS]
    led.order("web-0", 4)
    led.run(2.0)
    assert led.states() == [ContainerState.READY] * 4
    assert [slot.state for slot in led.slots.values()] == [ContainerState.READY] * 4


def test_lost_commands_are_resent_beside_a_poisonous_event_in_every_tick() -> None:
    led = LedResMan()
    led.bus.loses = lambda send: isinstance(send.body, ContainerOrders)
    led.order("web-0", 4)
    led.settle()
    led.bus.loses = None
    led.beside = [POISONOUS]
    led.run(3.0)
    assert led.states() == [ContainerState.READY] * 4


def test_step_that_raised_closes_no_agent_and_enters_no_safe_mode() -> None:
    led = LedResMan()
    led.run(1.0)
    led.step_beside_poison()
    led.order("web-0", 2)
    sends = led.step()
    assert led.resman.safe_mode is None
    assert sum(len(s.body.create) for s in sends if isinstance(s.body, ContainerOrders)) == 2


def test_safe_mode_of_a_new_leader_survives_a_first_step_that_raised() -> None:
    led = LedResMan()
    led.cut_off("h1", "h2")
    led.run(12.0)
    led.beside = [POISONOUS]
    led.failover(RESMAN)
    led.order("web-0", 2)
    led.settle()
    assert led.leadership.poisonous > 0
    assert led.resman.safe_mode is not None
    assert led.resman.safe_mode.code == "start"
    assert led.states() == [ContainerState.PENDING] * 2
    assert "safe-mode" in led.stored(RESMAN, "cluster", Reason)


def test_versions_and_message_ids_are_not_repeated_after_a_step_that_raised() -> None:
    led = LedResMan()
    led.sends.clear()
    for serial in range(1, 12):
        led.beside = [POISONOUS] if serial % 2 else []
        led.order("web-0", serial)
        led.settle()
    sent = [send for send in led.sends if isinstance(send.body, GroupStatuses)]
    ids = [send.id for send in sent]
    versions = [status.version for send in sent for status in send.body.statuses]
    assert len(versions) >= 11
    assert len(set(ids)) == len(ids)
    assert versions == sorted(set(versions))


def _statuses(sends: list[Send]) -> list[GroupStatus]:
    return [one for send in sends if isinstance(send.body, GroupStatuses) for one in send.body.statuses]


def _report_requests(sends: list[Send]) -> list[str]:
    return [send.body.agent for send in sends if isinstance(send.body, ContainerOrders) and send.body.report]


@pytest.mark.parametrize("times", [1, 2])
def test_group_status_of_a_step_that_raised_is_sent_in_full_by_the_next(times: int) -> None:
    led = LedResMan()
    order = led.order("web-0", 4)
    led.settle()
    led.step_that_raises(order)
    for _ in range(times - 1):
        led.step_that_raises()
    (sent,) = _statuses(led.step())
    assert sent.full
    assert [slot.state for slot in sent.slots] == [ContainerState.READY] * 4
    assert _statuses(led.step()) == [], "once"


@pytest.mark.parametrize("times", [1, 2])
def test_report_request_of_a_step_that_raised_is_sent_by_the_next(times: int) -> None:
    led = LedResMan()
    read = led.nexus.heartbeats()
    led.step_that_raises(
        replace(read, heartbeats=tuple(replace(beat, boot="new") for beat in read.heartbeats))
    )
    for _ in range(times - 1):
        led.step_that_raises()
    assert _report_requests(led.step()) == ["h1", "h2"]
    assert _report_requests(led.step()) == [], "once"


def test_identity_acknowledgement_of_a_step_that_raised_is_sent_by_the_next() -> None:
    led = LedResMan()
    order = GroupOrders(orders=(), identity=IdentityOrder(epoch=1, serial=1))
    led.step(order)
    led.step_that_raises(order)
    (send,) = led.step()
    assert send.body.identity == IdentityAck(epoch=1, serial=1)


def test_status_of_an_ended_group_of_a_step_that_raised_is_sent_by_the_next() -> None:
    led = LedResMan()
    remove = led.order("web-0", 0, remove=True)
    led.settle()
    led.step_that_raises(remove)
    (sent,) = _statuses(led.step())
    assert not sent.known


def test_trouble_of_an_agent_is_recorded_once_although_a_step_raised() -> None:
    led = LedResMan()
    led.step_that_raises(led.set_heartbeats(trouble="its disk is full"))
    assert led.events_of("h1") == []
    led.run(2.5)
    assert led.events_of("h1") == ["agent.trouble"]
    led.step_that_raises(led.set_heartbeats())
    led.run(2.5)
    assert led.events_of("h1") == ["agent.trouble", "agent.well"]


def test_agent_of_a_foreign_version_is_recorded_once_although_a_step_raised() -> None:
    led = LedResMan()
    led.step_that_raises(led.set_heartbeats(wire=99))
    led.run(2.5)
    led.step_that_raises(led.nexus.heartbeats())
    led.run(2.5)
    assert led.events_of("h1") == ["agent.refused"]
