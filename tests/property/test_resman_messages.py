"""ResMan that gets messages with absurd values never raises, and its state stays consistent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxy.model.base import WIRE_VERSION, encode
from galaxy.model.messages.agent import AgentReport, Heartbeat, HeartbeatsRead
from galaxy.model.messages.container import ContainerState, GroupOrder, GroupOrders
from galaxy.model.messages.identity import IdentityOrder
from galaxy.model.resources import FIELDS, NOTHING, Ceiling, Resources
from galaxy.model.step import Step
from galaxy.model.stored.container import Container
from galaxy.model.stored.quota import Quota
from galaxy.resman.logic import ResMan, ResManConfig
from galaxy.resman.logic.state.container_index import PLACED, counts
from tests.property.effort import examples
from tests.property.hostile_messages import AGENTS, JOBS, floats, hostile
from tests.property.tables import Disk, snapshot
from tests.unit.resman.cluster import demand, info

START_S = 1_000_000.0
CONFIG = ResManConfig(replicas_max=30, placements_max=25)

ORDERS = st.builds(
    GroupOrder,
    group=st.sampled_from(JOBS),
    epoch=st.just(1),
    serial=st.integers(0, 9),
    replicas=st.integers(0, 12),
    demand=st.sampled_from([demand(), demand(cpu=500, ports=(0, 9000)), demand(max_per_host=1, tag="ssd")]),
    remove=st.booleans(),
    user=st.sampled_from(("", "ann", "bob")),
).map(lambda order: GroupOrders(orders=(order,)))
QUOTAS = st.builds(
    IdentityOrder,
    epoch=st.just(1),
    serial=st.integers(0, 9),
    quotas=st.lists(
        st.builds(
            Quota,
            user=st.sampled_from(("ann", "bob")),
            ceiling=st.builds(
                Ceiling, cpu_milli=st.none() | st.integers(0, 5000), containers=st.integers(0, 9)
            ),
            pool=st.sampled_from(("*", "far")),
        ),
        max_size=3,
    ).map(tuple),
).map(lambda order: GroupOrders(orders=(), identity=order))
HEARTBEATS = st.integers(0, 40).map(
    lambda age: HeartbeatsRead(
        now_s=START_S,
        heartbeats=tuple(
            Heartbeat(agent=name, at_s=START_S - age, boot="boot-1", wire=WIRE_VERSION) for name in AGENTS
        ),
    )
)
REPORTS = st.builds(
    AgentReport,
    agent=st.sampled_from(AGENTS),
    boot=st.just("boot-1"),
    serial=st.integers(0, 9),
    full=st.booleans(),
    containers=st.lists(hostile(AgentReport), max_size=1).map(lambda one: one[0].containers if one else ()),
)
EVENTS = st.one_of(
    hostile(GroupOrders),
    hostile(AgentReport),
    hostile(HeartbeatsRead),
    ORDERS,
    ORDERS,
    QUOTAS,
    REPORTS,
    HEARTBEATS,
)
BATCHES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.2, 2.5, 31.0, 130.0]), st.lists(EVENTS, max_size=4)), max_size=7
)


class Leader:
    """A ResMan of three agents, stepped and committed as its driver does."""

    def __init__(self) -> None:
        self.resman = ResMan(CONFIG)
        self.disk = Disk(self.resman.tables)
        self.now_s = START_S
        self.epoch = 0
        self.lead()
        reports = [
            AgentReport(agent=name, boot="boot-1", serial=1, full=True, info=info(name)) for name in AGENTS
        ]
        self.step(reports)

    def lead(self) -> None:
        self.epoch += 1
        self.resman.lead(self.epoch, self.now_s)

    def step(self, events: list[Any]) -> Step:
        before = dict(self._rows())
        step = self.resman.step(self.now_s, events)
        for send in step.sends:
            encode(send.body)
        self.check_places(before)
        self.check_quotas()
        self.disk.commit(self.resman.tables)
        return step

    def check_places(self, before: dict[str, Container]) -> None:
        """Assert that every new container fits on its agent, and that no static port is assigned twice."""
        view = self.resman.state.view
        for key, row in self._rows().items():
            old = before.get(key)
            if row.state is not ContainerState.ALLOCATING or (old and old.incarnation == row.incarnation):
                continue
            at = view.row(row.agent)
            assert min(column[at] for column in (*view.free, view.ports)) >= 0
            for port in self.resman.state.groups[row.group].order.demand.ports:
                assert not port.port or view.port_rows[port.port][at] == 1

    def check_quotas(self) -> None:
        """Assert that each user is charged the sum of what the user's slots count."""
        state = self.resman.state
        sums: dict[tuple[str, tuple[str, ...]], Resources] = {}
        for key in state.containers:
            row = state.containers[key]
            if counts(key, row):
                group = state.groups[row.group]
                of = group.order.user, group.order.demand.pools
                sums[of] = sums.get(of, NOTHING) + state.quota_amount(group, key, row)
        used = state.quota_usage._used
        assert {(user, pools): used[user][pools] for user in used for pools in used[user]} == sums

    def check_state(self) -> None:
        """Assert that the view of each agent matches the tables: containers, and free resources."""
        state = self.resman.state
        view = state.view
        for agent in state.agents:
            keys = [
                key for key in state.containers.where("agent", agent) if state.containers[key].state in PLACED
            ]
            loads = [state.load_of(key, state.containers[key]) for key in keys]
            at, facts = view.row(agent), state.agents[agent].info
            assert view.placed[at] == len(keys)
            taken = sum((load.resources for load in loads), start=NOTHING)
            left = facts.resources.bounded() - taken
            assert [int(column[at]) for column in view.free] == [getattr(left, field) for field in FIELDS]

    def succeed(self) -> Leader:
        """Replace the leader by a new one that loads the committed tables."""
        old = snapshot(self.resman.tables)
        self.resman = ResMan(CONFIG)
        self.disk.load(self.resman.tables)
        assert snapshot(self.resman.tables) == old
        self.lead()
        return self

    def _rows(self) -> dict[str, Container]:
        table = self.resman.state.containers
        return {key: table[key] for key in table}


@examples(150)
@given(BATCHES)
def test_no_message_makes_resman_raise_or_overcommit(batches: list[Any]) -> None:
    leader = Leader()
    for seconds, events in batches:
        leader.now_s += seconds
        leader.step(events)
        leader.check_state()


@pytest.mark.parametrize("most", [2**63, 10**40, -(2**63)])
def test_group_with_a_huge_max_per_host_is_placed(most: int) -> None:
    leader = Leader()
    order = GroupOrder(group="web", epoch=1, serial=1, replicas=9, demand=demand(cpu=1, max_per_host=most))
    leader.now_s += 1
    leader.step([GroupOrders(orders=(order,))])
    assert all(row.agent for row in leader.resman.state.containers.values())


@examples(60)
@given(BATCHES, BATCHES)
def test_new_leader_after_malformed_messages_derives_the_same_state(
    first: list[Any], then: list[Any]
) -> None:
    leader = Leader()
    for seconds, events in first:
        leader.now_s += seconds
        leader.step(events)
    leader.succeed()
    for seconds, events in then:
        leader.now_s += seconds
        leader.step(events)
        leader.check_state()


@examples(60)
@given(st.lists(EVENTS, max_size=5))
def test_step_that_was_not_committed_leaves_the_tables_unchanged(events: list[Any]) -> None:
    leader = Leader()
    before = snapshot(leader.resman.tables)
    leader.resman.step(leader.now_s + 1, events)
    for table in leader.resman.tables.values():
        table.discard()
    assert snapshot(leader.resman.tables) == before


@examples(40)
@given(st.lists(EVENTS, max_size=6), floats())
def test_valid_order_is_placed_after_malformed_messages(events: list[Any], skew: float) -> None:
    leader = Leader()
    leader.step(events)
    leader.step([HeartbeatsRead(now_s=leader.now_s + skew % 7, heartbeats=())])
    order = GroupOrder(
        group="later-000000", epoch=1, serial=1, replicas=1, demand=demand(cpu=1, memory=1, disk=1)
    )
    status = None
    for _ in range(40):
        leader.now_s += 1.0
        heartbeats = tuple(
            Heartbeat(agent=name, at_s=leader.now_s, boot=watch.boot, wire=WIRE_VERSION)
            for name, watch in leader.resman.state.watches.items()
        )
        leader.step([HeartbeatsRead(now_s=leader.now_s, heartbeats=heartbeats), GroupOrders(orders=(order,))])
        status = leader.resman.state.containers.get("later-000000.0")
    assert status is not None
    assert status.agent or status.reason is not None
