"""A leader's shell with a real server: it commits, then sends, and survives a crash in between."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from galaxy.driver.interfaces import FeedPosition, FeedRead, Grant, Publish
from galaxy.driver.shell import LeaderShell, ShellOptions
from galaxy.errors import Unreachable
from galaxy.model.api.answers import Answer
from galaxy.model.base import decode
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.step import Send
from galaxy.model.stored.table import Table, TableChange
from galaxy.nexus import Nexus, keys
from tests.support.redis_server import RedisServer
from tests.support.tally import Add, Count, Tally


@pytest.fixture
def nexus(redis_server: RedisServer) -> Iterator[Nexus]:
    nexus = Nexus.connect(redis_server.url, name="shell")
    yield nexus
    nexus.close()


@contextmanager
def leading(
    nexus: Nexus, publish: Publish, *, owner: str = "a", logic: Tally | None = None
) -> Iterator[LeaderShell]:
    leads = threading.Event()
    shell = LeaderShell(
        role="tally",
        owner=owner,
        address=owner,
        logic=logic or Tally(),
        nexus=nexus,
        publish=publish,
        on_lead=leads.set,
        options=ShellOptions(ttl_s=10.0, heartbeats_every_s=0.2),  # Long enough for a busy machine.
    )
    shell.start()
    try:
        assert leads.wait(20.0)
        yield shell
    finally:
        shell.stop()


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "the condition did not become true"
        threading.Event().wait(0.005)


def stored(nexus: Nexus) -> dict[str, int]:
    return {name: row.total for name, row in nexus.read_table("tally", "counts", Count).items()}


def test_state_is_stored_before_its_message_is_published(nexus: Nexus) -> None:
    seen: list[tuple[list[str], dict[str, int]]] = []

    def publish(sends: Sequence[Send]) -> None:
        seen.append(([send.id for send in sends], stored(nexus)))

    with leading(nexus, publish) as shell:
        shell.offer(Add(name="x", by=5))
        until(lambda: bool(seen))
    assert seen == [(["count:x:5"], {"x": 5})]


def test_next_leader_continues_from_the_commit_of_a_leader_killed_while_publishing(
    nexus: Nexus, redis_server: RedisServer
) -> None:
    crash = (
        "import os, signal, sys, threading\n"
        "from galaxy.driver.shell import LeaderShell\n"
        "from galaxy.nexus import Nexus\n"
        "from tests.support.tally import Add, Tally\n"
        "leads = threading.Event()\n"
        "shell = LeaderShell(role='tally', owner='doomed', address='doomed', logic=Tally(),\n"
        "    nexus=Nexus.connect(sys.argv[1], name='doomed'), on_lead=leads.set,\n"
        "    publish=lambda sends: os.kill(os.getpid(), signal.SIGKILL))\n"
        "shell.start(); leads.wait(30); shell.offer(Add(name='x', by=7)); threading.Event().wait(30)\n"
    )
    process = subprocess.run([sys.executable, "-c", crash, redis_server.url], timeout=60, check=False)
    assert process.returncode == -signal.SIGKILL
    assert stored(nexus) == {"x": 7}
    logic = Tally()
    with leading(nexus, lambda sends: None, owner="next", logic=logic) as shell:
        assert logic.counts["x"].total == 7
        shell.offer(Add(name="x", reply="r"))
        data = nexus.await_reply("r", 10.0)
    assert data is not None and decode(data, Answer).result == 8


def test_leader_keeps_committing_while_publishing_fails(nexus: Nexus) -> None:
    def publish(sends: Sequence[Send]) -> None:
        raise Unreachable("cannot publish")

    with leading(nexus, publish) as shell:
        shell.offer(Add(name="x"))
        until(lambda: stored(nexus) == {"x": 1})
        shell.offer(Add(name="x"))
        until(lambda: stored(nexus) == {"x": 2})
        assert shell.leading


def test_many_events_at_once_share_commits(nexus: Nexus) -> None:
    """The first tick may contain a few events; those that arrive meanwhile share a commit."""
    sizes: list[int] = []
    with leading(nexus, lambda sends: sizes.append(len(sends))) as shell:
        for _ in range(1000):
            shell.offer(Add(name="x"))
        until(lambda: stored(nexus) == {"x": 1000})
    assert sum(sizes) == 1000
    assert len(sizes) < 500


def test_heartbeats_reach_the_logic_repeatedly(nexus: Nexus) -> None:
    logic = Tally()
    with leading(nexus, lambda sends: None, logic=logic):
        until(lambda: len(logic.steps) >= 5, timeout_s=10.0)
    assert sum(events for _, events in logic.steps) >= 3


def test_logic_is_stepped_at_the_time_that_it_asked_for(nexus: Nexus) -> None:
    logic = Tally(wake_every_s=0.05)
    with leading(nexus, lambda sends: None, logic=logic):
        until(lambda: len(logic.steps) >= 20, timeout_s=10.0)


def test_standby_in_the_same_process_leads_when_the_leader_stops(nexus: Nexus) -> None:
    took = threading.Event()
    second = LeaderShell(
        role="tally",
        owner="b",
        address="b",
        logic=Tally(),
        nexus=nexus,
        publish=lambda sends: None,
        on_lead=took.set,
    )
    with leading(nexus, lambda sends: None) as first:
        second.start()
        assert not second.leading
        first.offer(Add(name="x"))
    assert took.wait(5.0)  # Half of what the first one's lease had left.
    second.offer(Add(name="x", reply="r"))
    data = nexus.await_reply("r", 20.0)
    second.stop()
    assert data is not None and decode(data, Answer).result == 2


class ReadTables(Nexus):
    """Records the tables that were loaded."""

    def __init__(self, url: str, *, name: str) -> None:
        super().__init__(url, name=name)
        self.loaded: list[str] = []
        self.current = threading.Event()

    def load(self, role: str, tables: Iterable[Table[Any]]) -> None:
        named = list(tables)
        self.loaded += [table.name for table in named]
        super().load(role, named)

    def read_changes(self, role: str, after: FeedPosition | None, timeout_s: float) -> FeedRead:
        if after is not None:
            self.current.set()
        return super().read_changes(role, after, timeout_s)


@pytest.mark.parametrize("lost", ["nothing", "feed", "everything", "connections"])
def test_standby_that_has_followed_begins_with_what_is_stored_whatever_redis_lost(
    nexus: Nexus, redis_server: RedisServer, lost: str
) -> None:
    logic, took = Tally(), threading.Event()
    with ReadTables.connect(redis_server.url, name="standby") as other:
        assert isinstance(other, ReadTables)
        second = LeaderShell(
            role="tally", owner="b", address="b", logic=logic, nexus=other, publish=lambda _: None,
            on_lead=took.set,
        )  # fmt: skip
        with leading(nexus, lambda sends: None) as first:
            first.offer(Add(name="x"))
            second.start()
            assert other.current.wait(20.0)
            for total in (2, 3):
                first.offer(Add(name="x"))
                until(lambda total=total: stored(nexus) == {"x": total})  # type: ignore[misc]
            if lost == "everything":
                nexus.client.flushall()
            elif lost == "connections":
                redis_server.stop()
                redis_server.start()
                until(lambda: first.leading, 30.0)
                first.offer(Add(name="x", by=0))
            elif lost == "feed":
                nexus.client.delete(keys.changes("tally"))
        assert took.wait(20.0)
        second.offer(Add(name="x", reply="r"))
        data = nexus.await_reply("r", 20.0)
        second.stop()
    assert data is not None and decode(data, Answer).result == (1 if lost == "everything" else 4)
    assert lost != "nothing" or "counts" not in other.loaded


def test_events_offered_before_the_stop_are_committed(nexus: Nexus) -> None:
    with leading(nexus, lambda sends: None) as shell:
        for _ in range(100):
            assert shell.offer(Add(name="x"))
    assert stored(nexus) == {"x": 100}
    assert nexus.leader("tally") is None


def test_commit_of_ten_rows_takes_well_under_a_lease(nexus: Nexus) -> None:
    grant = nexus.campaign("tally", "a", ttl_s=60.0, address="a")
    assert isinstance(grant, Grant)
    changes = [
        TableChange(table="counts", key=f"k{n}", value=b'{"name":"k","total":1}' * 10) for n in range(10)
    ]
    times_ms = []
    for serial in range(200):
        start_s = time.perf_counter()
        nexus.commit(grant, serial, changes, [TraceEvent(kind="k", subject="s")])
        times_ms.append((time.perf_counter() - start_s) * 1000)
    times_ms.sort()
    print(f"\ncommit of 10 rows and an event: median {times_ms[100]:.3f} ms, p99 {times_ms[197]:.3f} ms")
    assert times_ms[100] < 20
