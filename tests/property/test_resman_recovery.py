"""A step of ResMan that raises at any line has no effect once ResMan has recovered."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from galaxy.model.messages.agent import AgentState
from galaxy.model.messages.container import ContainerOrders, GroupStatuses
from galaxy.model.step import Step
from galaxy.model.stored.agent import AgentRecord
from galaxy.resman.logic import ResMan
from galaxy.resman.logic.state.container_index import DIGEST
from galaxy.resman.logic.state.state import ResManState
from galaxy.resman.logic.state.tables import IDENTITY
from galaxy.scheduler.cluster_view import PlacementStatus
from tests.property.effort import examples
from tests.property.test_resman_messages import BATCHES, CONFIG, EVENTS, Leader
from tests.support.step_fault import raise_at_line

FILES = ("/galaxy/resman/logic/", "/galaxy/scheduler/")
COLUMNS = ("ports", "ports_low", "ports_high", "creating", "placed")
FIRST = 16
"""Before this line of a step, ResMan has changed nothing."""
LINES = st.one_of(st.integers(FIRST, 60), st.integers(FIRST, 600), st.integers(FIRST, 6000))


def derived(state: ResManState) -> dict[str, Any]:
    """Return the state derived from the tables, independent of the order of derivation."""
    view, names = state.view, state.view.names
    view.update_room()
    return {
        "free": {name: [int(column[view.row(name)]) for column in view.free] for name in names},
        "columns": {name: [int(getattr(view, c)[view.row(name)]) for c in COLUMNS] for name in names},
        "ports": {(port, names[r]): n for port, rows in view.port_rows.items() for r, n in rows.items()},
        "groups": {(group, names[r]): n for group, rows in view.group_rows.items() for r, n in rows.items()},
        "records": {name: placement_facts(view.records[view.row(name)]) for name in names},
        "digests": dict(state.containers.sums(DIGEST)),
        "unacknowledged": set(state.unacknowledged),
        "charged": {user: dict(used) for user, used in state.quota_usage._used.items()},
    }


def placement_facts(record: AgentRecord) -> AgentRecord:
    """Return what placement reads of a record. The view has its liveness in a column of its own."""
    return replace(record, state=AgentState.ALIVE, since_s=0.0, left=0)


def leadership_state(resman: ResMan) -> dict[str, Any]:
    """Return the state of this leadership that is in no table."""
    state = resman.state
    return {
        "watches": {
            name: (
                w.boot,
                w.past_boots,
                w.full_serial,
                w.has_full_report,
                dict(w.newer_serials),
                w.failures,
                w.failed_s,
                w.in_trouble,
            )
            for name, w in state.watches.items()
        },
        "foreign": dict(state.incompatible_agents),
        "flaky": (set(state.flaky_agents), state.view.flaky_any),
        "flaky in view": [name for name in state.agents if state.view.flaky[state.view.row(name)]],
        "safe": (resman.safe_mode, resman._safe_mode.since_s, resman._safe_mode.loss_confirmed),
        "stored safe": dict.fromkeys(state.cluster),
        "tokens": (resman._replace_lost.tokens, resman._replace_lost.refilled_s),
    }


def to_send(state: ResManState) -> tuple[set[str], set[str], bool]:
    """Return agents to ask, known groups to report, and whether to acknowledge the identity order."""
    reported = {
        group
        for group in {**state.outbox.changed_slots, **state.outbox.status_requests}
        if group in state.groups
    }
    return (
        set(state.outbox.report_requests),
        reported,
        state.outbox.acknowledge_identity and IDENTITY in state.identity,
    )


def sent_in(step: Step) -> tuple[set[str], set[str], bool]:
    """Return agents asked, groups reported in full, and whether the identity order was acknowledged."""
    bodies = [send.body for send in step.sends]
    asked = {body.agent for body in bodies if isinstance(body, ContainerOrders) and body.report}
    statuses = [body for body in bodies if isinstance(body, GroupStatuses)]
    reported = {status.group for body in statuses for status in body.statuses if status.full}
    return asked, reported, any(body.identity is not None for body in statuses)


def statuses_of(state: ResManState) -> dict[str, PlacementStatus]:
    return {name: PlacementStatus(int(state.view.status[state.view.row(name)])) for name in state.view.names}


@examples(100)
@given(BATCHES, st.lists(EVENTS, max_size=4), LINES, BATCHES)
def test_step_that_raises_at_any_line_is_undone_by_recovery(
    first: list[Any], bad: list[Any], line: int, then: list[Any]
) -> None:
    leader = Leader()
    for seconds, events in first:
        leader.now_s += seconds
        leader.step(events)
    resman, state = leader.resman, leader.resman.state
    before, known, open_before = derived(state), leadership_state(resman), statuses_of(state)
    version, serial, gapless_since_s = (
        state.versions.last,
        resman._messages._message_count,
        state.heartbeats.gapless_since_s,
    )
    heartbeats = {name: state.heartbeats.at_s(state.view.row(name)) for name in state.view.names}

    raise_at_line(lambda: resman.step(leader.now_s + 1, bad), at=line, within=FILES)
    for table in resman.tables.values():
        table.discard()
    asks, groups, quotas = to_send(state)
    resman.recover(leader.now_s + 1)

    assert derived(state) == before
    assert leadership_state(resman) == known
    assert (state.versions.last, resman._messages._message_count, state.heartbeats.gapless_since_s) >= (
        version,
        serial,
        gapless_since_s,
    )
    for name, at_s in heartbeats.items():
        assert state.heartbeats.at_s(state.view.row(name)) >= at_s
    for name, status in statuses_of(state).items():
        dead = PlacementStatus.DEAD in (status, open_before[name])
        assert status is open_before[name] if dead else status >= PlacementStatus.OPEN
    successor = ResMan(CONFIG)
    leader.disk.load(successor.tables)
    successor.lead(leader.epoch + 1, leader.now_s)
    assert derived(successor.state) == before
    asked, reported, answered = sent_in(leader.step([]))
    assert asks <= asked
    assert groups <= reported
    assert answered >= quotas
    for seconds, events in then:
        leader.now_s += seconds
        leader.step(events)
        leader.check_state()
