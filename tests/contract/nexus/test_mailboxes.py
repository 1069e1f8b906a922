"""Agents' mailboxes: one unread report per agent and leader, and only the leader takes them."""

from __future__ import annotations

import pytest

from galaxy.errors import NotLeader
from galaxy.model.messages.agent import AgentReport
from galaxy.nexus.mailboxes import TAKEN_MAX
from tests.contract.nexus.conftest import ROLE, TTL_S, World


def report(agent: str = "h1", serial: int = 1) -> AgentReport:
    return AgentReport(agent=agent, boot="b", serial=serial)


def test_posted_reports_are_taken_once_the_longest_waiting_first(world: World) -> None:
    grant = world.grant()
    for agent in ("h2", "h1", "h3"):
        assert world.other.post_report(ROLE, report(agent))
    assert world.nexus.take_reports(grant, 0.0).reports == (report("h2"), report("h1"), report("h3"))
    assert world.nexus.take_reports(grant, 0.0).reports == ()


def test_unread_report_is_kept_unless_the_next_one_replaces_it(world: World) -> None:
    grant = world.grant()
    assert world.other.post_report(ROLE, report(serial=1))
    assert not world.other.post_report(ROLE, report(serial=2))
    assert world.other.post_report(ROLE, report(serial=3), replaces=True)
    assert world.nexus.take_reports(grant, 0.0).reports == (report(serial=3),)
    assert world.other.post_report(ROLE, report(serial=4))


def test_replaced_report_keeps_its_place(world: World) -> None:
    grant = world.grant()
    world.other.post_report(ROLE, report("h1"))
    world.other.post_report(ROLE, report("h2"))
    world.other.post_report(ROLE, report("h1", 2), replaces=True)
    assert world.nexus.take_reports(grant, 0.0).reports == (report("h1", 2), report("h2"))


def test_one_call_takes_a_bounded_number_of_reports(world: World) -> None:
    grant = world.grant()
    agents = [f"h{number}" for number in range(TAKEN_MAX + 5)]
    for agent in agents:
        world.other.post_report(ROLE, report(agent))
    first = world.nexus.take_reports(grant, 0.0).reports
    second = world.nexus.take_reports(grant, 0.0).reports
    assert (len(first), len(second)) == (TAKEN_MAX, 5)
    assert [one.agent for one in (*first, *second)] == agents


def test_reports_to_one_role_are_not_those_to_another(world: World) -> None:
    grant = world.grant()
    world.other.post_report("another", report())
    assert world.nexus.take_reports(grant, 0.0).reports == ()


def test_former_leader_takes_nothing(world: World) -> None:
    grant = world.grant("a", TTL_S)
    world.other.post_report(ROLE, report())
    world.let_pass(TTL_S * 1.2)
    for wait_s in (0.0, 0.05):
        with pytest.raises(NotLeader):
            world.nexus.take_reports(grant, wait_s)
    assert world.nexus.take_reports(world.grant("b"), 0.0).reports == (report(),)


def test_heartbeats_name_the_agents_with_unread_reports(world: World) -> None:
    grant = world.grant()
    world.other.post_report(ROLE, report("h1"))
    assert world.nexus.heartbeats(ROLE).unread == {"h1"}
    assert world.nexus.heartbeats("another").unread == frozenset()
    assert world.nexus.heartbeats().unread == frozenset()
    world.nexus.take_reports(grant, 0.0)
    assert world.nexus.heartbeats(ROLE).unread == frozenset()
