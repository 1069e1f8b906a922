"""An agent that gets orders and events with absurd values never raises, and its table stays consistent."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from galaxy.agent.logic.effects import LaunchContainer, RemoveContainer
from galaxy.agent.logic.events import (
    ContainerDestroyed,
    ContainerEnded,
    ContainerLaunched,
    ContainerLaunchFailed,
    HostInspected,
    PortsScanned,
    PortsUnavailable,
    ReportPublished,
    ShutdownRequested,
    UsageMeasured,
    WorkerConnected,
    WorkerLost,
    WorkerReported,
)
from galaxy.model.base import decode, encode
from galaxy.model.messages.agent import AgentReport
from galaxy.model.messages.container import ContainerOrders
from galaxy.model.messages.pod import PodOrders, PodState
from tests.property.effort import examples
from tests.property.hostile_messages import hostile
from tests.property.tables import check_indexes, snapshot
from tests.unit.agent.build import Driven, create, creates, destroys, order, orders, reported

OWN_EVENTS = st.sampled_from(
    [
        ContainerLaunched, ContainerLaunchFailed, ContainerEnded, ContainerDestroyed, PortsUnavailable,
        HostInspected, WorkerConnected, WorkerLost, WorkerReported, UsageMeasured,
        PortsScanned, ShutdownRequested,
    ]
).flatmap(hostile)  # fmt: skip
ORDERS = st.sampled_from([ContainerOrders, PodOrders]).flatmap(hostile)


def to_us(event: Any) -> Any:
    """Return an order for this agent, of an epoch that it accepts."""
    return msgspec.structs.replace(event, agent="h1", epoch=min(event.epoch, 5))


PODS = st.sampled_from(("web-abc123.0", "web-abc123.1"))
INCARNATIONS = st.integers(1, 4)
PLAUSIBLE = st.one_of(
    st.builds(lambda pod, incarnation: creates(create(pod, incarnation), epoch=5), PODS, INCARNATIONS),
    st.builds(lambda pod, incarnation: destroys(pod, incarnation, epoch=5), PODS, INCARNATIONS),
    st.builds(
        lambda pod, number, incarnation: orders(order(number, pod=pod, incarnation=incarnation), epoch=5),
        PODS,
        INCARNATIONS,
        INCARNATIONS,
    ),
    st.builds(ContainerLaunched, container=PODS, incarnation=INCARNATIONS, pid=st.just(7)),
    st.builds(WorkerConnected, container=PODS, incarnation=INCARNATIONS),
    st.builds(lambda pod, state: reported(state, pod=pod), PODS, st.sampled_from(PodState)),
)
EVENTS = st.one_of(ORDERS, ORDERS.map(to_us), ORDERS.map(to_us), OWN_EVENTS, PLAUSIBLE, PLAUSIBLE)
BATCHES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.5, 6.0, 40.0]), st.lists(EVENTS, min_size=1, max_size=4)), max_size=8
)


class Agent(Driven):
    """An agent that publishes every report, and whose table is checked after every step."""

    def play(self, batches: list[Any]) -> None:
        for seconds, events in batches:
            self.now_s += seconds
            before = self.running()
            effects = self.step(*events)
            for effect in effects:
                encode(effect)
                if isinstance(effect, LaunchContainer):
                    assert effect.hosted.key in self.logic.tables["containers"]
                if isinstance(effect, RemoveContainer):
                    assert effect.incarnation is not None
            self.check(before)
            flush = self.logic.flush(self.now_s)
            for due in flush.reports:
                assert decode(encode(due.report), AgentReport) == due.report
                count = len(events)
                self.step(ReportPublished(role=due.role, ok=count % 2 == 0, unread=count % 3 == 0))
            self.logic.digests()
            self.logic.wake_s()
            self.logic.needs_port_scan(events)

    def running(self) -> set[str]:
        hosted = self.logic.hosted_containers()
        return {entry.key for entry in hosted if entry.phase in ("launching", "ready")}

    def check(self, before: set[str]) -> None:
        """Assert that no container has two active incarnations, and no port two owners."""
        logic = self.logic
        for table in logic.tables.values():
            check_indexes(table)
        mine = [hosted for hosted in logic.hosted_containers() if hosted.phase in ("launching", "ready")]
        names = [hosted.container for hosted in mine]
        assert len(names) == len(set(names)), "two incarnations of one container"
        assigned = [port for hosted in mine if hosted.key not in before for port in hosted.ports.values()]
        owned = [port for hosted in mine if hosted.key in before for port in hosted.ports.values()]
        assert not set(assigned) & set(owned), "a port was assigned twice"
        assert len(mine) <= logic.info.containers


@examples(200)
@given(BATCHES)
def test_no_messages_make_an_agent_raise_or_run_a_container_twice(batches: list[Any]) -> None:
    Agent().begin().play(batches)  # type: ignore[attr-defined]


@examples(60)
@given(BATCHES, BATCHES)
def test_agent_restarted_after_any_messages_continues_from_its_table(
    first: list[Any], then: list[Any]
) -> None:
    agent = Agent()
    agent.begin()
    agent.play(first)
    before = snapshot(agent.logic.tables)
    reloaded = agent.restart()
    assert {name: dict(sorted(rows.items())) for name, rows in before.items()} == snapshot(
        reloaded.logic.tables
    )
    restarted = Agent(reloaded.logic)
    restarted.disk, restarted.now_s = reloaded.disk, reloaded.now_s
    restarted.step(HostInspected(running=()))
    restarted.play(then)


@examples(100)
@given(st.lists(ORDERS, min_size=1, max_size=4))
def test_order_for_another_agent_changes_nothing(events: list[Any]) -> None:
    agent = Agent()
    agent.begin()
    foreign = [msgspec.structs.replace(event, agent="h2") for event in events]
    before = snapshot(agent.logic.tables)
    agent.step(*foreign)
    assert snapshot(agent.logic.tables) == before
