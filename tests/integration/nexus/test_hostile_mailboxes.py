"""A stolen agent's login may write any name and time into the set of agents that wait: it hurts nobody."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from galaxy.driver.interfaces import Grant
from galaxy.model.messages.agent import AgentReport
from galaxy.model.messages.container import ObservedContainer, ObservedContainerState
from galaxy.model.messages.names import PARTS, RESMAN
from galaxy.nexus import Nexus, keys
from galaxy.nexus.mailboxes import (
    BYTES_PER_S,
    FALSE_S,
    KNOWN_S,
    POPPED_MAX,
    TAKEN_MAX,
    TURN_MAX,
    WAITING_SLACK,
    Mailboxes,
    Turns,
    pack_report,
)
from tests.support.redis_server import RedisServer

ROGUE = "h0"
HOSTS = [f"h{number}" for number in range(1, 301)]


@pytest.fixture
def nexus(redis_server: RedisServer) -> Iterator[Nexus]:
    nexus = Nexus.connect(redis_server.url, name="mailboxes")
    nexus.client.hset(keys.table(RESMAN, "agents"), mapping=dict.fromkeys([ROGUE, *HOSTS], "{}"))
    yield nexus
    nexus.close()


@pytest.fixture(params=PARTS)
def grant(nexus: Nexus, request: pytest.FixtureRequest) -> Grant:
    grant = nexus.campaign(request.param, "a", ttl_s=60.0, address="a")
    assert isinstance(grant, Grant)
    return grant


def report(agent: str, *, containers: int = 0) -> AgentReport:
    found = tuple(
        ObservedContainer(container=f"job-{number}.0", incarnation=1, state=ObservedContainerState.READY)
        for number in range(containers)
    )
    return AgentReport(agent=agent, boot="b", serial=1, containers=found)


def rounds_until(nexus: Nexus, grant: Grant, agents: set[str], attack: Callable[[], object]) -> int:
    """Return after how many round trips the reports of ``agents`` are taken; an ``attack`` precedes each."""
    missing = set(agents)
    for count in range(1, 20):
        attack()
        missing -= {one.agent for one in nexus.take_reports(grant, 0.0).reports}
        if not missing:
            return count
    raise AssertionError(f"{len(missing)} reports are not taken, among them {min(missing)}")


def turns_of(hosts: int) -> int:
    """Return in how many round trips each of ``hosts`` has had a turn, if all have reports."""
    return -(-(hosts + 1) // (TAKEN_MAX // 2)) + 1


def test_names_without_reports_do_not_delay_others(nexus: Nexus, grant: Grant) -> None:
    waiting = keys.reporting(grant.role)
    for host in HOSTS:
        nexus.post_report(grant.role, report(host))

    def attack() -> None:
        nexus.client.zadd(waiting, {f"false-{number}": "-inf" for number in range(10 * POPPED_MAX)})

    assert rounds_until(nexus, grant, set(HOSTS), attack) <= turns_of(len(HOSTS))


def test_set_with_more_names_than_agents_is_deleted(nexus: Nexus, grant: Grant) -> None:
    waiting = keys.reporting(grant.role)
    most = 2 * (len(HOSTS) + 1) + WAITING_SLACK
    nexus.client.zadd(waiting, {f"false-{number}": 1.0 for number in range(most + POPPED_MAX)})
    nexus.take_reports(grant, 0.0)
    assert nexus.client.zcard(waiting) == most
    nexus.client.zadd(waiting, {f"false-{number}": 1.0 for number in range(most + POPPED_MAX + 1)})
    nexus.take_reports(grant, 0.0)
    assert nexus.client.zcard(waiting) == 0


def test_agent_that_is_put_behind_all_others_has_its_turn(nexus: Nexus, grant: Grant) -> None:
    victim = HOSTS[-1]
    nexus.post_report(grant.role, report(victim))

    def attack() -> None:
        nexus.client.zadd(keys.reporting(grant.role), {victim: "inf"})
        for host in HOSTS[:-1]:
            nexus.post_report(grant.role, report(host))

    assert rounds_until(nexus, grant, {victim}, attack) <= turns_of(len(HOSTS))


def test_agent_that_is_not_named_at_all_has_its_turn(nexus: Nexus, grant: Grant) -> None:
    for host in HOSTS:
        nexus.post_report(grant.role, report(host))
    nexus.client.delete(keys.reporting(grant.role))
    assert rounds_until(nexus, grant, set(HOSTS), lambda: None) <= turns_of(len(HOSTS))


def test_large_reports_of_one_agent_again_and_again_do_not_fill_every_round(
    nexus: Nexus, grant: Grant
) -> None:
    now_s = [1000.0]
    mailboxes = Mailboxes(nexus.client, nexus.address, now_s=lambda: now_s[0])
    large = report(ROGUE, containers=20_000)

    def rounds(count: int) -> Counter[str]:
        taken: Counter[str] = Counter()
        for _ in range(count):
            nexus.client.zadd(keys.reporting(grant.role), {ROGUE: "-inf"})
            mailboxes.post(grant.role, large, replaces=True)
            mailboxes.post(grant.role, report(HOSTS[0]), replaces=False)
            taken.update(one.agent for one in mailboxes.take(grant, 0.0).reports)
        return taken

    assert rounds(5) == {ROGUE: 1, HOSTS[0]: 5}
    now_s[0] += len(pack_report(large)) / BYTES_PER_S
    assert rounds(5) == {ROGUE: 1, HOSTS[0]: 5}


def test_agent_that_is_held_is_taken_as_soon_as_its_time_has_come(nexus: Nexus, grant: Grant) -> None:
    for _ in range(2):
        nexus.post_report(grant.role, report(ROGUE, containers=2000))
        reports: tuple[AgentReport, ...] = ()
        for _ in range(20):
            reports = nexus.take_reports(grant, 30.0).reports
            if reports:
                break
        assert [one.agent for one in reports] == [ROGUE]


def test_name_whose_report_was_taken_in_its_turn_does_not_wait_any_more(nexus: Nexus, grant: Grant) -> None:
    nexus.post_report(grant.role, report(HOSTS[0]))
    assert [one.agent for one in nexus.take_reports(grant, 0.0).reports] == [HOSTS[0]]
    assert nexus.client.zcard(keys.reporting(grant.role)) == 0


def test_leader_does_not_follow_names_without_reports_at_their_speed(nexus: Nexus, grant: Grant) -> None:
    over = threading.Event()

    def attack() -> None:
        while not over.is_set():
            nexus.client.zadd(keys.reporting(grant.role), {"false": 1.0})

    thread = threading.Thread(target=attack)
    thread.start()
    try:
        began_s, rounds = time.monotonic(), 20
        for _ in range(rounds):
            assert nexus.take_reports(grant, 30.0).reports == ()
        assert time.monotonic() - began_s >= rounds * FALSE_S
    finally:
        over.set()
        thread.join()


def test_only_agents_with_a_report_count_as_unread(nexus: Nexus, grant: Grant) -> None:
    nexus.post_report(grant.role, report(HOSTS[0]))
    nexus.client.zadd(keys.reporting(grant.role), {HOSTS[1]: "-inf", "\x00 odd \xff": 1.0})
    assert nexus.heartbeats(grant.role).unread == {HOSTS[0]}


def test_agents_that_join_take_turns_after_a_while(nexus: Nexus, grant: Grant) -> None:
    now_s = [1000.0]
    mailboxes = Mailboxes(nexus.client, nexus.address, now_s=lambda: now_s[0])
    mailboxes.take(grant, 0.0)
    nexus.client.hset(keys.table(RESMAN, "agents"), "later", "{}")
    nexus.post_report(grant.role, report("later"))
    nexus.client.delete(keys.reporting(grant.role))
    assert mailboxes.take(grant, 0.0).reports == ()
    now_s[0] += KNOWN_S
    taken = [one.agent for _ in range(turns_of(len(HOSTS))) for one in mailboxes.take(grant, 0.0).reports]
    assert taken == ["later"]


def test_every_agent_has_a_turn_before_any_has_its_next() -> None:
    turns = Turns(lambda: 0.0)
    names = [f"h{number:04d}".encode() for number in range(2 * TURN_MAX + 7)]
    turns.set_known(reversed(names))
    seen: list[bytes] = []
    while len(seen) < len(names):
        part = turns.next_ones()[:150]
        turns.looked_into(len(part))
        seen += part
    assert seen[: len(names)] == names


def test_turns_of_few_agents_name_each_once() -> None:
    turns = Turns(lambda: 0.0)
    turns.set_known([b"h2", b"h1"])
    turns.looked_into(1)
    assert turns.next_ones() == [b"h2", b"h1"]
    assert Turns().next_ones() == []
