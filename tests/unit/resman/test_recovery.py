"""ResMan under its driver after a step that raised: nothing is lost and nothing is done twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from galaxy.driver.interfaces import Grant
from galaxy.driver.leadership import Leadership
from galaxy.model.messages.agent import HeartbeatsRead
from galaxy.model.messages.container import (
    ContainerOrders,
    ContainerState,
    GroupOrder,
    GroupOrders,
    GroupStatus,
    GroupStatuses,
)
from galaxy.model.messages.identity import IdentityAck, IdentityOrder
from galaxy.model.messages.names import RESMAN
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.step import Send, Step
from galaxy.nexus.in_memory import MemoryNexus
from galaxy.resman.logic import ResMan
from tests.unit.resman.old_cluster import START_S, FakeAgent, demand, info

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


class LedResMan:
    """A ResMan under its driver, with two agents."""

    def __init__(self) -> None:
        self.now_s = START_S
        self.nexus = nexus = MemoryNexus(lambda: self.now_s)
        grant = nexus.campaign(RESMAN, "a", ttl_s=1e9, address="a")
        assert isinstance(grant, Grant)
        self.resman = RaisingResMan()
        self.leadership = Leadership(self.resman, nexus, grant)
        self.leadership.begin(self.now_s)
        self.agents = {name: FakeAgent(info(name)) for name in ("h1", "h2")}
        self.tick(*(agent.report(full=True) for agent in self.agents.values()), self.beats())

    def beats(self) -> HeartbeatsRead:
        return HeartbeatsRead(
            now_s=self.now_s, beats=tuple(agent.beat(self.now_s) for agent in self.agents.values())
        )

    def tick(self, *events: Any) -> list[Send]:
        self.now_s += 1.0
        return [send for done in self.leadership.advance(self.now_s, events) for send in done.sends]

    def order(self, replicas: int, serial: int = 1) -> GroupOrders:
        order = GroupOrder(group="web-0", epoch=1, serial=serial, replicas=replicas, demand=demand())
        return GroupOrders(orders=(order,))

    def obey(self, sends: list[Send]) -> list[Any]:
        """Let agents obey what was sent; return their reports."""
        orders = [send.body for send in sends if isinstance(send.body, ContainerOrders)]
        return [report for one in orders for report in self.agents[one.agent].obey(one)]

    def step_that_raises(self, *events: Any) -> None:
        """Have a step with these events raise at its end, alone and with the others of its tick."""
        self.resman.raises_left = 1 if len(events) < 2 else 1 + len(events)
        assert self.tick(*events) == []

    def events_of(self, agent: str) -> list[TraceEvent]:
        return [event for event in self.nexus.trace([agent]) if event.kind != "agent.joined"]

    def states(self) -> list[ContainerState]:
        return [row.state for row in self.resman.state.containers.values()]


def test_reports_in_the_tick_of_a_poisonous_event_are_applied() -> None:
    led = LedResMan()
    reports = led.obey(led.tick(led.order(4)))
    led.tick(*reports, POISONOUS)
    assert led.leadership.poisonous == 1
    assert led.states() == [ContainerState.READY] * 4


def test_step_that_raised_does_not_make_an_older_report_valid() -> None:
    led = LedResMan()
    led.agents["h1"].epoch = led.agents["h2"].epoch = led.leadership.grant.epoch
    old = [agent.report(full=True) for agent in led.agents.values()]
    led.tick(*led.obey(led.tick(led.order(4))))
    led.tick(POISONOUS)
    assert led.obey(led.tick(*old)) == []
    assert led.states() == [ContainerState.READY] * 4


def test_containers_ordered_beside_a_poisonous_event_in_every_tick_are_created_and_reported() -> None:
    led = LedResMan()
    statuses: list[GroupStatuses] = []
    events: list[Any] = [led.order(4)]
    for _ in range(20):
        sends = led.tick(led.beats(), *events, POISONOUS)
        statuses += [send.body for send in sends if isinstance(send.body, GroupStatuses)]
        events = led.obey(sends)
    assert led.states() == [ContainerState.READY] * 4
    sent = {slot.container: slot for one in statuses for status in one.statuses for slot in status.slots}
    assert [slot.state for slot in sent.values()] == [ContainerState.READY] * 4


def test_lost_commands_are_resent_beside_a_poisonous_event_in_every_tick() -> None:
    led = LedResMan()
    led.tick(led.order(4))
    for _ in range(20):
        led.tick(*led.obey(led.tick(led.beats(), POISONOUS)))
    assert led.states() == [ContainerState.READY] * 4


def test_step_that_raised_closes_no_agent_and_enters_no_safe_mode() -> None:
    led = LedResMan()
    led.tick(led.beats())
    led.tick(POISONOUS)
    led.obey(sends := led.tick(led.order(2)))
    assert led.resman.safe_mode is None
    assert sum(len(s.body.create) for s in sends if isinstance(s.body, ContainerOrders)) == 2


def test_safe_mode_of_a_new_leader_survives_a_first_step_that_raised() -> None:
    led = LedResMan()
    led.resman.lead(led.leadership.grant.epoch, led.now_s)
    led.tick(POISONOUS)
    led.tick(led.order(2))
    assert led.resman.safe_mode is not None
    assert led.states() == [ContainerState.PENDING] * 2
    assert "safe-mode" in led.resman.tables["cluster"]


def test_versions_and_message_ids_are_not_repeated_after_a_step_that_raised() -> None:
    led = LedResMan()
    ids: list[str] = []
    versions = [0]
    for serial in range(1, 12):
        sends = led.tick(led.order(serial, serial), *([POISONOUS] if serial % 2 else []))
        sent = [send for send in sends if isinstance(send.body, GroupStatuses)]
        ids += [send.id for send in sent]
        versions += [status.version for send in sent for status in send.body.statuses]
    assert len(set(ids)) == len(ids)
    assert versions == sorted(set(versions))


def _statuses(sends: list[Send]) -> list[GroupStatus]:
    return [one for send in sends if isinstance(send.body, GroupStatuses) for one in send.body.statuses]


def _report_requests(sends: list[Send]) -> list[str]:
    return [send.body.agent for send in sends if isinstance(send.body, ContainerOrders) and send.body.report]


@pytest.mark.parametrize("times", [1, 2])
def test_group_status_of_a_step_that_raised_is_sent_in_full_by_the_next(times: int) -> None:
    led = LedResMan()
    led.tick(*led.obey(led.tick(led.order(4))))
    led.step_that_raises(led.order(4))
    for _ in range(times - 1):
        led.step_that_raises()
    (sent,) = _statuses(led.tick())
    assert sent.full
    assert [slot.state for slot in sent.slots] == [ContainerState.READY] * 4
    assert _statuses(led.tick()) == [], "once"


@pytest.mark.parametrize("times", [1, 2])
def test_report_request_of_a_step_that_raised_is_sent_by_the_next(times: int) -> None:
    led = LedResMan()
    beats = replace(led.beats(), beats=tuple(replace(beat, boot="new") for beat in led.beats().beats))
    led.step_that_raises(beats)
    for _ in range(times - 1):
        led.step_that_raises()
    assert _report_requests(led.tick()) == ["h1", "h2"]
    assert _report_requests(led.tick()) == [], "once"


def test_identity_acknowledgement_of_a_step_that_raised_is_sent_by_the_next() -> None:
    led = LedResMan()
    order = GroupOrders(orders=(), identity=IdentityOrder(epoch=1, serial=1))
    led.tick(order)
    led.step_that_raises(order)
    (send,) = led.tick()
    assert send.body.identity == IdentityAck(epoch=1, serial=1)


def test_status_of_an_ended_group_of_a_step_that_raised_is_sent_by_the_next() -> None:
    led = LedResMan()
    remove = GroupOrders(orders=(replace(led.order(0).orders[0], remove=True),))
    led.tick(remove)
    led.step_that_raises(remove)
    (sent,) = _statuses(led.tick())
    assert not sent.known


def test_trouble_of_an_agent_is_recorded_once_although_a_step_raised() -> None:
    led = LedResMan()
    led.step_that_raises(_beats(led, trouble="its disk is full"))
    assert led.events_of("h1") == []
    led.tick(_beats(led, trouble="its disk is full"))
    led.tick(_beats(led, trouble="its disk is full"))
    assert [event.kind for event in led.events_of("h1")] == ["agent.trouble"]
    led.step_that_raises(led.beats())
    led.tick(led.beats())
    assert [event.kind for event in led.events_of("h1")] == ["agent.trouble", "agent.well"]


def test_agent_of_a_foreign_version_is_recorded_once_although_a_step_raised() -> None:
    led = LedResMan()
    led.step_that_raises(_beats(led, wire=99))
    led.tick(_beats(led, wire=99))
    led.tick(_beats(led, wire=99))
    led.step_that_raises(_beats(led, wire=99))
    led.tick(_beats(led, wire=99))
    assert [event.kind for event in led.events_of("h1")] == ["agent.refused"]


def _beats(led: LedResMan, **changed: Any) -> HeartbeatsRead:
    seen = led.beats()
    return replace(seen, beats=tuple(replace(beat, **changed) for beat in seen.beats))
