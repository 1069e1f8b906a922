"""Agents' mailboxes in Redis: waiting, names that are lost, and content that is no report."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from galaxy.driver.interfaces import Grant
from galaxy.errors import NotLeader
from galaxy.model.base import WIRE_VERSION, encode
from galaxy.model.messages.agent import AgentReport
from galaxy.nexus import Nexus, keys
from tests.support.redis_server import RedisServer

ROLE = "tally"


@pytest.fixture
def nexus(redis_server: RedisServer) -> Iterator[Nexus]:
    nexus = Nexus.connect(redis_server.url, name="mailboxes")
    yield nexus
    nexus.close()


def grant_of(nexus: Nexus) -> Grant:
    grant = nexus.campaign(ROLE, "a", ttl_s=60.0, address="a")
    assert isinstance(grant, Grant)
    return grant


def report(agent: str = "h1", serial: int = 1) -> AgentReport:
    return AgentReport(agent=agent, boot="b", serial=serial)


def test_waiting_leader_gets_a_report_as_soon_as_it_is_posted(nexus: Nexus) -> None:
    grant = grant_of(nexus)
    threading.Timer(0.1, lambda: nexus.post_report(ROLE, report())).start()
    reports: tuple[AgentReport, ...] = ()
    for _ in range(10):
        reports = nexus.take_reports(grant, 30.0).reports
        if reports:
            break
    assert reports == (report(),)


def test_leader_that_loses_the_lead_while_it_waits_leaves_the_report(nexus: Nexus) -> None:
    grant = grant_of(nexus)
    untyped = nexus.client
    untyped.set(keys.lock(ROLE), f"a:{grant.epoch}", px=100)

    def post() -> None:
        untyped.set(keys.lock(ROLE), "b:1")
        nexus.post_report(ROLE, report())

    timer = threading.Timer(0.05, post)
    timer.start()
    with pytest.raises(NotLeader):
        nexus.take_reports(grant, 2.0)
    timer.join()
    assert untyped.zrange(keys.reporting(ROLE), 0, -1) == [b"h1"]
    assert untyped.exists(keys.report(ROLE, "h1"))


def test_report_whose_agent_was_dropped_from_the_waiting_ones_is_found_by_the_next_post(nexus: Nexus) -> None:
    """A leader may die after it has read the name of an agent, and before it takes the report."""
    grant = grant_of(nexus)
    nexus.post_report(ROLE, report())
    nexus.client.delete(keys.reporting(ROLE))
    assert not nexus.post_report(ROLE, report(serial=2))
    assert nexus.take_reports(grant, 0.0).reports == (report(),)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not a"),
        (b"\xff", "not a"),
        (b"{}", "wire version"),
        (b'{"v": 99, "body": {"new": 1}}', "wire version '99'"),
        (encode({"v": WIRE_VERSION, "body": {"agent": "h1"}}), "boot"),
        (encode({"v": WIRE_VERSION, "body": report("h2")}), "a report of 'h2'"),
        (b"[" * 100_000, "not a"),
        (b" " * (16 * 1024 * 1024 + 1), "too many"),
    ],
)
def test_mailbox_without_a_report_of_its_agent_is_emptied_and_refused(
    nexus: Nexus, content: bytes, why: str
) -> None:
    grant = grant_of(nexus)
    nexus.client.set(keys.report(ROLE, "h1"), content)
    nexus.client.zadd(keys.reporting(ROLE), {"h1": 1, "h3": 2})
    nexus.post_report(ROLE, report("h3"))
    taken = nexus.take_reports(grant, 0.0)
    assert taken.reports == (report("h3"),)
    assert [(one.agent, why in one.why) for one in taken.refused] == [("h1", True)]
    assert nexus.client.exists(keys.report(ROLE, "h1")) == 0


def test_mailbox_of_another_type_does_not_stop_the_others(nexus: Nexus) -> None:
    grant = grant_of(nexus)
    nexus.client.lpush(keys.report(ROLE, "h1"), "x")
    nexus.client.zadd(keys.reporting(ROLE), {"h1": 1, "\x00 odd \xff": 2, "nobody": 3})
    nexus.post_report(ROLE, report("h3"))
    taken = nexus.take_reports(grant, 0.0)
    assert taken.reports == (report("h3"),)
    assert [one.agent for one in taken.refused] == ["h1"]
    assert nexus.client.exists(keys.report(ROLE, "h1")) == 0


def test_posted_report_expires(nexus: Nexus) -> None:
    nexus.post_report(ROLE, report())
    assert 500_000 < int(nexus.client.pttl(keys.report(ROLE, "h1"))) <= 600_000
