"""No item in the queues and mailboxes of ResMan and AppMaster stops a leader from leading and answering.

Real processes on a real Redis: Celery worker, handlers, loop, logic, commit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from galaxy.client import Galaxy
from galaxy.model.api.catalog import bodies_of
from galaxy.model.api.request import Request
from galaxy.model.base import WIRE_VERSION, Struct, encode
from galaxy.model.messages import names
from galaxy.model.messages.agent import AgentReport
from galaxy.model.messages.container import GroupOrders, GroupStatuses
from galaxy.model.messages.names import APPMASTER, RESMAN
from galaxy.nexus import Nexus, keys
from galaxy.nexus.mailboxes import pack_report
from tests.property.effort import PROCESSES_S, examples
from tests.property.hostile_messages import hostile
from tests.property.test_wire import STRANGE, places, put
from tests.support.malformed_messages import (
    call_of,
    celery_headers,
    celery_item,
    galaxy_item,
    malformed_items,
)
from tests.support.redis_server import RedisServer, running_server

KINDS: dict[str, list[tuple[str, type[Struct]]]] = {
    RESMAN: [
        (names.GROUP_APPLY, GroupOrders),
        *[(op, Request) for op in sorted(bodies_of(RESMAN))],
    ],
    APPMASTER: [
        (names.GROUP_STATUS, GroupStatuses),
        *[(op, Request) for op in sorted(bodies_of(APPMASTER))],
    ],
}


class Leaders:
    """Both leaders, each a process with a log."""

    def __init__(self, server: RedisServer, top: Path) -> None:
        self.server = server
        self.client = redis.Redis.from_url(server.url, socket_timeout=30)
        self.galaxy = Galaxy(server.url, timeout_s=60.0)
        self._logs = {role: top / f"{role}.log" for role in KINDS}
        self.processes = {role: self._start(role) for role in KINDS}
        self._read = dict.fromkeys(KINDS, 0)

    def _start(self, role: str) -> subprocess.Popen[bytes]:
        with open(self._logs[role], "wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "galaxy.cli.main", role, "--name", "t"],
                env=os.environ | {"GALAXY_REDIS": self.server.url},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def await_leading(self) -> None:
        nexus = Nexus.connect(self.server.url, name="test")
        end_s = time.monotonic() + 90
        try:
            for role, process in self.processes.items():
                while nexus.leader(role) is None:
                    assert process.poll() is None and time.monotonic() < end_s, self.log(role)[-2000:]
                    threading.Event().wait(0.05)
        finally:
            nexus.close()

    def log(self, role: str) -> str:
        return self._logs[role].read_text(errors="replace")

    def new_log(self, role: str) -> str:
        """Return what was logged since the last call."""
        log = self.log(role)
        new, self._read[role] = log[self._read[role] :], len(log)
        # A busy machine may lose a lease; a message must not cause it.
        lost = [line for line in new.splitlines() if "event=leader.lost" in line]
        assert all("not renewed in time" in line or "cannot reach Redis" in line for line in lost), lost
        return new

    def post(self, role: str, agent: str, data: bytes) -> None:
        """Put anything into the mailbox of an agent, as a stolen login of it could."""
        self.client.set(keys.report(role, agent), data)
        self.client.zadd(keys.reporting(role), {agent: 1.0})

    def await_empty_queues(self, role: str) -> None:
        """Return when the queues and mailboxes of ``role`` are empty."""
        end_s = time.monotonic() + 60
        queues = names.leader_queues(role)
        while any(self.client.llen(queue) for queue in queues) or self.client.zcard(keys.reporting(role)):
            assert time.monotonic() < end_s, f"{role} reads no more messages:\n{self.log(role)[-3000:]}"
            threading.Event().wait(0.01)

    def check_serving(self) -> None:
        """Assert that both processes run and lead, and that AppMaster answers."""
        self.galaxy.jobs()
        self.galaxy.agents()
        self.await_leading()
        assert [process.poll() for process in self.processes.values()] == [None, None]

    def close(self) -> None:
        self.galaxy.close()
        self.client.close()
        for process in self.processes.values():
            process.kill()
            process.wait(timeout=30)


@pytest.fixture(scope="module")
def leaders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Leaders]:
    with running_server() as server:
        started = Leaders(server, tmp_path_factory.mktemp("leaders"))
        try:
            started.await_leading()
            yield started
        finally:
            started.close()


@st.composite
def items(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw an item for a leader's queue: a struct with absurd values, or a malformed item."""
    role = draw(st.sampled_from(sorted(KINDS)))
    task, kind = draw(st.sampled_from(KINDS[role]))
    plain = json.loads(encode(draw(hostile(kind))))
    where = draw(st.sampled_from(["nowhere", "nowhere", "struct", "call", "bytes"]))
    if where == "struct":
        plain = put(plain, draw(st.sampled_from(places(plain))), draw(STRANGE))
    call: Any = call_of(plain)
    if where == "call":
        call = put(call, draw(st.sampled_from(places(call)[:12])), draw(STRANGE))
    queue = names.queue_of(task, role)
    shape = draw(st.sampled_from([celery_item, galaxy_item]))
    data = shape(call, queue=queue, headers=celery_headers(task))
    if where == "bytes":
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=6)) + data[at + draw(st.integers(0, 6)) :]
    return queue, data


@st.composite
def posts(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """Draw what an agent leaves in a leader's mailbox: a report with absurd values, or malformed data."""
    role = draw(st.sampled_from(sorted(KINDS)))
    report = draw(hostile(AgentReport))
    plain: Any = {"v": WIRE_VERSION, "body": json.loads(encode(report))}
    where = draw(st.sampled_from(["nowhere", "nowhere", "report", "bytes"]))
    if where == "report":
        plain = put(plain, draw(st.sampled_from(places(plain))), draw(STRANGE))
    data = json.dumps(plain).encode()
    if where == "bytes":
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=6)) + data[at + draw(st.integers(0, 6)) :]
    return role, draw(st.sampled_from([report.agent, report.agent, "h1"])), data


@examples(25, slow_s=PROCESSES_S)
@given(st.lists(items(), min_size=1, max_size=20), st.lists(posts(), min_size=1, max_size=10))
def test_no_messages_and_reports_keep_a_leader_from_leading_and_answering(
    leaders: Leaders, drawn: list[tuple[str, bytes]], posted: list[tuple[str, str, bytes]]
) -> None:
    for queue, data in drawn:
        leaders.client.lpush(queue, data)
    for role, agent, data in posted:
        leaders.post(role, agent, data)
    for role in KINDS:
        leaders.await_empty_queues(role)
    leaders.check_serving()
    for role in KINDS:
        logged = leaders.new_log(role)
        assert "Traceback" not in logged, logged
        assert "event=event.poison" not in logged, logged


@pytest.mark.parametrize("role", sorted(KINDS))
def test_malformed_messages_are_dropped_and_logged(leaders: Leaders, role: str) -> None:
    leaders.new_log(role)
    for _what, data in malformed_items(role, KINDS[role][0][0]):
        leaders.client.lpush(role, data)
    leaders.await_empty_queues(role)
    leaders.check_serving()
    logged = leaders.new_log(role)
    assert "event=message.dropped" in logged
    assert "Traceback" not in logged


@pytest.mark.parametrize("role", sorted(KINDS))
def test_report_in_the_mailbox_of_another_host_is_refused_and_logged(leaders: Leaders, role: str) -> None:
    leaders.new_log(role)
    report = AgentReport(agent="h2", boot="b", serial=1)
    leaders.post(role, "h1", pack_report(report))
    leaders.await_empty_queues(role)
    leaders.check_serving()
    logged = leaders.new_log(role)
    assert "event=message.dropped cause=bad-report" in logged
    assert "agent='h1'" in logged and "a report of 'h2'" in logged
