"""What ResMan keeps of agents beside its tables is bounded."""

from __future__ import annotations

from galaxy.model.base import WIRE_VERSION, Struct
from galaxy.model.messages.agent import AgentReport, Heartbeat, HeartbeatsRead
from galaxy.model.messages.container import (
    ContainerOrders,
    ContainerState,
    GroupOrder,
    GroupOrders,
    ObservedContainer,
    ObservedContainerState,
)
from galaxy.resman.logic import ResMan
from galaxy.resman.logic.agents.reports import NEWER_KEPT_MAX, NEWER_MAX
from galaxy.statemachine.backoff import AskLimiter
from tests.unit.resman.cluster import demand, gone, info


class SteppedResMan:
    """ResMan's logic alone, with reports written by the test. ``h1`` has joined."""

    def __init__(self) -> None:
        self.resman = ResMan()
        self.now_s = 1000.0
        self.serial = 0
        self.resman.lead(1, self.now_s)
        beat = Heartbeat(agent="h1", at_s=self.now_s, boot="boot-1", wire=WIRE_VERSION)
        self.step(self.report(full=True))
        self.step(HeartbeatsRead(now_s=self.now_s, heartbeats=(beat,)))

    def step(self, *events: Struct) -> list[ContainerOrders]:
        """Step one second later; return the messages to the agent."""
        self.now_s += 1.0
        step = self.resman.step(self.now_s, events)
        for table in self.resman.tables.values():
            table.accept()
        return [send.body for send in step.sends if isinstance(send.body, ContainerOrders)]

    def report(self, *containers: ObservedContainer, full: bool = False) -> AgentReport:
        self.serial += 1
        return AgentReport(
            agent="h1", boot="boot-1", serial=self.serial, epoch=1, full=full, containers=containers,
            info=info("h1") if full else None,
        )  # fmt: skip


def test_serials_kept_since_the_last_full_report_are_bounded() -> None:
    stepped = SteppedResMan()
    full_reports = 0
    for first in range(0, 3 * NEWER_MAX, 100):
        report = stepped.report(*(gone(f"job{number}-0.0", 1) for number in range(first, first + 100)))
        for orders in stepped.step(report):
            if orders.report:
                stepped.step(stepped.report(full=True))
                full_reports += 1
    assert full_reports >= 2
    assert len(stepped.resman.state.watches["h1"].newer_serials) <= NEWER_MAX + 200


def test_agent_without_full_reports_takes_bounded_memory_and_is_believed_again_after_one() -> None:
    stepped = SteppedResMan()
    for first in range(0, 2 * NEWER_KEPT_MAX, 100):
        stepped.step(stepped.report(*(gone(f"job{n}-0.0", 1) for n in range(first, first + 100))))
    assert len(stepped.resman.state.watches["h1"].newer_serials) <= NEWER_KEPT_MAX
    order = GroupOrder(group="web-0", epoch=1, serial=1, replicas=4, demand=demand())
    created = [one for orders in stepped.step(GroupOrders(orders=(order,))) for one in orders.create]
    ready = [
        ObservedContainer(
            container=one.container, incarnation=one.incarnation, state=ObservedContainerState.READY,
            resources=one.demand.resources,
        )
        for one in created
    ]  # fmt: skip
    stepped.step(stepped.report(*ready))
    rows = stepped.resman.state.containers
    assert [rows[key].state for key in rows.where("agent", "h1")] == [ContainerState.ALLOCATING] * 4
    stepped.step(stepped.report(*ready, full=True))
    assert [rows[key].state for key in rows.where("agent", "h1")] == [ContainerState.READY] * 4
    assert stepped.resman.state.watches["h1"].newer_serials == {}


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
