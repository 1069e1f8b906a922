"""Leaders as processes: they consume only while they lead, fail over, recover, and stop quickly."""

from __future__ import annotations

import signal
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from galaxy.model.api.answers import Answer
from galaxy.model.base import decode
from galaxy.model.step import Send
from galaxy.nexus import Nexus
from galaxy.nexus.publisher import Publisher
from tests.support.malformed_messages import malformed_items
from tests.support.redis_server import RedisServer
from tests.support.tally import Add, Count
from tests.support.tally_node import ADD, Node, running_node
from tests.support.waiting import until, within_limit


class Asker:
    """Sends counts to the role and waits for the new totals."""

    def __init__(self, url: str) -> None:
        self.nexus = Nexus.connect(url, name="asker")
        self.publisher = Publisher(url, name="asker")
        self._asked = 0

    def send(self, name: str, by: int = 1) -> str:
        self._asked += 1
        reply = f"reply-{self._asked}"
        self.publisher.publish(
            [Send(queue="tally", task=ADD, body=Add(name=name, by=by, reply=reply), id=reply)]
        )
        return reply

    def total(self, reply: str, timeout_s: float = 60.0) -> int | None:
        data = self.nexus.await_reply(reply, timeout_s)
        return None if data is None else decode(data, Answer).result

    def add(self, name: str, timeout_s: float = 60.0) -> int | None:
        return self.total(self.send(name), timeout_s)

    def consumers(self) -> set[str]:
        """Return the names of the connections that wait for a message."""
        return {c["name"] for c in self.nexus.client.client_list() if c["cmd"] == "brpop"}

    def stored(self, name: str) -> int:
        return self.nexus.read_table("tally", "counts", Count)[name].total


@pytest.fixture
def asker(redis_server: RedisServer) -> Iterator[Asker]:
    asker = Asker(redis_server.url)
    yield asker
    asker.publisher.close()
    asker.nexus.close()


@pytest.fixture
def leader(redis_server: RedisServer, asker: Asker) -> Iterator[Node]:
    with running_node(redis_server.url, "h1") as node:
        node.await_log("event=worker.ready")
        assert asker.add("start") == 1
        yield node


@pytest.fixture
def standby(redis_server: RedisServer, leader: Node) -> Iterator[Node]:
    with running_node(redis_server.url, "h2") as node:
        node.await_log("event=worker.ready")
        yield node


def test_message_is_answered_within_milliseconds(leader: Node, asker: Asker) -> None:
    times_ms = []
    for number in range(100):
        start_s = time.perf_counter()
        assert asker.add("x") == number + 1
        times_ms.append((time.perf_counter() - start_s) * 1000)
    print(f"\nround trip: median {statistics.median(times_ms):.2f} ms, worst {max(times_ms):.2f} ms")
    assert statistics.median(times_ms) < 50


def test_malformed_messages_in_the_queue_do_not_stop_the_worker(leader: Node, asker: Asker) -> None:
    for number, (what, data) in enumerate(malformed_items("tally", ADD)):
        for _ in range(5):  # More than there are prefetch slots.
            asker.nexus.client.lpush("tally", data)
        assert asker.add("good") == number + 1, f"after {what}:\n{leader.log()[-3000:]}"
    assert leader.process.poll() is None
    end_s = time.monotonic() + 30  # The last acknowledgement may follow its answer.
    while left := asker.nexus.client.hgetall("tally@h1.unacked"):
        assert time.monotonic() < end_s, left
        threading.Event().wait(0.05)
    assert asker.stored("good") == number + 1


def test_malformed_messages_are_counted_and_logged_by_cause(leader: Node, asker: Asker) -> None:
    for _, data in malformed_items("tally", ADD):
        if len(data) < 1_000_000:
            asker.nexus.client.lpush("tally", data)
    assert asker.add("good") == 1
    for cause in (
        "not-json",
        "not-a-message",
        "malformed",
        "foreign",
        "expired",
        "bad-message",
        "unknown-task",
    ):
        leader.await_log(f"event=message.dropped cause={cause} count=")


def test_standby_never_consumes(leader: Node, standby: Node, asker: Asker) -> None:
    for _ in range(50):
        assert asker.add("x")
        assert "tally@h2" not in asker.consumers()
    assert "event=leader.leading" not in standby.log()


@contextmanager
def two_ready(url: str, asker: Asker) -> Iterator[tuple[Node, Node]]:
    """Run a node that leads and answers, and a standby."""
    with running_node(url, "h1") as first:
        first.await_log("event=worker.ready")
        assert asker.add("start") is not None
        with running_node(url, "h2") as second:
            second.await_log("event=worker.ready")
            yield first, second


def test_standby_leads_within_three_seconds_after_the_leader_is_killed(
    redis_server: RedisServer, asker: Asker
) -> None:
    def fail() -> float:
        with two_ready(redis_server.url, asker) as (leader, _):
            before = asker.add("x")
            assert before is not None
            leader.signal(signal.SIGKILL)
            start_s = time.monotonic()
            leader.wait()
            total = asker.add("x")
            took_s = time.monotonic() - start_s
            assert total == before + 1
        return took_s

    print(f"\nfailover after kill -9: {within_limit('failover', 3.0, fail):.2f} s")


def test_standby_leads_within_a_second_after_the_leader_stops(
    redis_server: RedisServer, asker: Asker
) -> None:
    def stop() -> float:
        with two_ready(redis_server.url, asker) as (leader, standby):
            start_s = time.monotonic()
            leader.signal(signal.SIGTERM)
            standby.await_log("event=leader.leading")
            took_s = time.monotonic() - start_s
            assert leader.wait() == 0
            assert asker.add("x") is not None
        return took_s

    print(f"\nfailover after SIGTERM: {within_limit('failover', 1.0, stop):.2f} s")


def test_leader_paused_past_its_lease_writes_nothing_and_stands_by(
    leader: Node, standby: Node, asker: Asker
) -> None:
    assert asker.add("x") == 1
    leader.signal(signal.SIGSTOP)
    standby.await_log("event=leader.leading")
    epoch = asker.nexus.leader("tally")
    for _ in range(5):
        asker.send("x")  # Redis may deliver some to the paused leader, which must put them back.
    leader.signal(signal.SIGCONT)
    leader.await_log("event=leader.lost")
    until("messages delivered to the paused leader are handled", lambda: asker.stored("x") >= 6, every_s=0.05)
    assert asker.stored("x") == 6
    assert asker.nexus.leader("tally") == epoch
    standby.signal(signal.SIGKILL)
    standby.wait()
    assert asker.add("x") == 7


def test_leader_recovers_by_itself_when_redis_comes_back(
    redis_server: RedisServer, leader: Node, asker: Asker
) -> None:
    assert asker.add("x") == 1
    redis_server.stop()
    leader.await_log("event=leader.stopped")
    redis_server.start()
    assert asker.add("x") == 2
    assert leader.process.poll() is None


def test_busy_leader_survives_repeated_restarts_of_redis(
    redis_server: RedisServer, leader: Node, asker: Asker
) -> None:
    for _ in range(5):
        for _ in range(60):
            asker.send("burst")
        redis_server.stop()  # With messages taken and not acknowledged yet.
        redis_server.start()
        end_s = time.monotonic() + 30
        while asker.add("x", timeout_s=2.0) is None:  # A message may be lost with the server.
            assert time.monotonic() < end_s, leader.log()[-4000:]
    assert leader.process.poll() is None
    assert "Unrecoverable" not in leader.log()


def test_leader_recovers_by_itself_when_redis_hung_for_a_while(
    redis_server: RedisServer, leader: Node, asker: Asker
) -> None:
    assert asker.add("x") == 1
    redis_server.pause()
    leader.await_log("event=leader.lost")
    redis_server.resume()
    assert asker.add("x") == 2


def exit_s(node: Node) -> float:
    """Send SIGTERM to a node; return how long it took to exit."""
    start_s = time.monotonic()
    node.signal(signal.SIGTERM)
    assert node.wait() == 0
    return time.monotonic() - start_s


def test_leader_that_gets_sigterm_exits_within_two_seconds(redis_server: RedisServer, asker: Asker) -> None:
    def stop() -> float:
        with running_node(redis_server.url, "h1") as leader:
            leader.await_log("event=worker.ready")
            assert asker.add("start") is not None
            return exit_s(leader)

    print(f"\nexit of a leader: {within_limit('exit', 2.5, stop):.2f} s")


def test_leader_that_gets_sigterm_while_redis_is_away_exits(redis_server: RedisServer) -> None:
    def stop() -> float:
        with running_node(redis_server.url, "h1") as leader:
            leader.await_log("event=leader.leading")
            leader.await_log("event=worker.ready")
            redis_server.stop()
            leader.await_log("event=leader.stopped")
            took_s = exit_s(leader)
        redis_server.start()
        return took_s

    within_limit("exit", 5.0, stop)


def test_node_started_while_redis_is_away_reports_it_and_exits(redis_server: RedisServer) -> None:
    redis_server.stop()

    def start() -> None:
        with running_node(redis_server.url, "h1") as node:
            assert node.wait() != 0
            assert "cannot reach Redis at 127.0.0.1:" in node.log()

    within_limit("end", 5.0, start)
