"""How differing answers of Sentinels are used; fake Sentinels implement the few commands needed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from redis.sentinel import MasterNotFoundError

from galaxy.nexus import Nexus, sentinel
from galaxy.nexus.sentinel import MasterConnection, MasterPool, Sentinels, connection_class, master_options
from galaxy.nexus.url import parse
from tests.support.waiting import until

Answer = Callable[[bytes], bytes]


def bulk(value: object) -> bytes:
    data = str(value).encode()
    return b"$%d\r\n%s\r\n" % (len(data), data)


def pairs(facts: dict[str, object]) -> bytes:
    values = [value for pair in facts.items() for value in pair]
    return b"*%d\r\n" % len(values) + b"".join(map(bulk, values))


@dataclass
class SentinelAnswers:
    """The answers of a fake Sentinel; with ``refuses`` it refuses the password."""

    port: int = 7000
    epoch: int = 1
    flags: str = "master"
    replicas: list[int] = field(default_factory=lambda: [7001])
    refuses: bool = False

    def __call__(self, data: bytes) -> bytes:
        if self.refuses:
            return b"-NOAUTH Authentication required.\r\n" * max(1, data.upper().count(b"CLIENT"))
        answer = b"+OK\r\n" * data.upper().count(b"CLIENT\r\n")
        master = pairs(
            {
                "name": "g", "ip": "127.0.0.1", "port": self.port, "flags": self.flags,
                "num-slaves": len(self.replicas), "config-epoch": self.epoch,
            }
        )  # fmt: skip
        if b"MASTERS" in data:
            answer += b"*1\r\n" + master
        elif b"\r\nMASTER\r\n" in data:
            answer += master
        elif b"SLAVES" in data:
            answer += b"*%d\r\n" % len(self.replicas)
            for port in self.replicas:
                answer += pairs({"name": "r", "ip": "127.0.0.1", "port": port, "flags": "slave"})
        return answer


def server(name: str) -> Answer:
    def answer(data: bytes) -> bytes:
        answers = b"+OK\r\n" * data.upper().count(b"CLIENT\r\n")
        if b"HELLO" in data:
            answers += pairs({"role": "master", "version": "7.2.0"})
        return answers + (bulk(name) if b"GET\r\n" in data else b"")

    return answer


@pytest.fixture
def listen() -> Iterator[Callable[[Answer], int]]:
    """Yield a function that opens a port with given answers."""
    with ExitStack() as stack:

        def opened(answer: Answer) -> int:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            threading.Thread(target=_accept, args=(listener, answer), daemon=True).start()
            port: int = listener.getsockname()[1]
            return port

        yield opened


def _accept(listener: socket.socket, answer: Answer) -> None:
    while True:
        try:
            caller, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(caller, answer), daemon=True).start()


def _serve(caller: socket.socket, answer: Answer) -> None:
    with caller:
        while data := caller.recv(65536):
            caller.sendall(answer(data))


def sentinels(*ports: int) -> Sentinels:
    where = ",".join(f"127.0.0.1:{port}" for port in ports)
    return Sentinels(parse(f"sentinel://{where}/0?master=g"), name="t")


def test_replica_that_joins_is_counted_once_the_cache_expires(
    listen: Callable[[Answer], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentinel, "REPLICAS_CACHED_S", 0.05)
    answers = SentinelAnswers(replicas=[])
    group = sentinels(listen(answers))
    assert group.known_replicas("g") == 0
    answers.replicas = [7001, 7002]
    until("the cache expires", lambda: group.known_replicas("g") == 2, every_s=0.01)


def test_sentinel_with_a_failover_in_progress_is_overruled_by_one_of_the_same_epoch(
    listen: Callable[[Answer], int],
) -> None:
    failing_over = SentinelAnswers(port=7009, flags="master,failover_in_progress")
    assert sentinels(listen(failing_over), listen(SentinelAnswers())).discover_master("g") == (
        "127.0.0.1",
        7000,
    )


def test_one_sentinel_that_refuses_the_password_is_ignored(listen: Callable[[Answer], int]) -> None:
    refusing = listen(SentinelAnswers(refuses=True))
    assert sentinels(refusing, listen(SentinelAnswers())).discover_master("g") == ("127.0.0.1", 7000)
    with pytest.raises(redis.AuthenticationError, match="sentinel_password"):
        sentinels(refusing).discover_master("g")


def test_sentinel_that_does_not_answer_is_asked_by_the_first_commit_only(
    listen: Callable[[Answer], int],
) -> None:
    asked: list[bytes] = []
    silent = threading.Event()

    def unanswered(data: bytes) -> bytes:
        asked.append(data)
        silent.wait(30)
        return b""

    group = sentinels(listen(unanswered), listen(SentinelAnswers()), listen(SentinelAnswers()))
    for _ in range(5):
        assert group.live_replicas("g", ("127.0.0.1", 7000)) == 1
    silent.set()
    assert len(asked) == 1


def test_sentinel_in_the_minority_with_an_older_epoch_does_not_stop_a_commit(
    listen: Callable[[Answer], int],
) -> None:
    """The Sentinel is cut off from the others together with the old master, but not from the client."""
    old = listen(SentinelAnswers(port=7001, epoch=1, replicas=[7000, 7002]))
    new = [listen(SentinelAnswers(port=7000, epoch=2, replicas=[7001, 7002])) for _ in range(2)]
    assert sentinels(old, *new).live_replicas("g", ("127.0.0.1", 7000)) == 2


@pytest.mark.parametrize(
    "third",
    [
        SentinelAnswers(port=7001, epoch=2),
        SentinelAnswers(port=7001, epoch=1),
        SentinelAnswers(epoch=1, flags="master,failover_in_progress"),
        SentinelAnswers(port=7001, epoch=0, flags="master,failover_in_progress"),
    ],
    ids=["newer", "as new", "at a failover", "older, and at a failover"],
)
def test_sentinel_that_may_have_newer_information_stops_a_commit(
    listen: Callable[[Answer], int], third: SentinelAnswers
) -> None:
    group = sentinels(listen(SentinelAnswers(epoch=1)), listen(SentinelAnswers(epoch=1)), listen(third))
    with pytest.raises(MasterNotFoundError, match="being replaced"):
        group.live_replicas("g", ("127.0.0.1", 7000))


def test_master_that_a_minority_of_sentinels_know_gets_no_commit(listen: Callable[[Answer], int]) -> None:
    new, old = SentinelAnswers(epoch=2), SentinelAnswers(port=7001, epoch=1)
    group = sentinels(listen(new), listen(old), listen(old))
    with pytest.raises(MasterNotFoundError, match="being replaced"):
        group.live_replicas("g", ("127.0.0.1", 7000))


def test_new_connection_waits_once_for_a_sentinel_that_does_not_answer(
    listen: Callable[[Answer], int],
) -> None:
    asked: list[bytes] = []
    silent = threading.Event()

    def unanswered(data: bytes) -> bytes:
        asked.append(data)
        silent.wait(30)
        return b""

    answers = SentinelAnswers(port=listen(server("master")))
    where = ",".join(f"127.0.0.1:{listen(one)}" for one in (unanswered, answers, answers))
    with Nexus.connect(f"sentinel://{where}/0?master=g", name="t") as nexus:
        assert nexus.client.get("k") == b"master"
    silent.set()
    assert len(asked) == 1


def test_connection_opened_to_the_old_master_during_a_failover_is_not_used(
    listen: Callable[[Answer], int],
) -> None:
    old, new = listen(server("old")), listen(server("new"))
    answers = SentinelAnswers(port=old)
    port = listen(answers)
    group = sentinels(port)
    url = parse(f"sentinel://127.0.0.1:{port}/0?master=g")
    moved, opening = threading.Event(), threading.Event()

    class Slow(MasterConnection):
        def _connect(self) -> Any:
            if self.port == old:
                opening.set()
                assert moved.wait(10)
            return super()._connect()

    def client(kind: type[MasterConnection]) -> redis.Redis:
        options = {"protocol": 2, "timeout": 5, "socket_timeout": 5, **master_options(url)}
        return redis.Redis(connection_pool=MasterPool("g", group, connection_class=kind, **options))

    slow, got = client(Slow), []

    def read() -> None:
        try:
            got.append(slow.get("k"))
        except redis.ConnectionError as error:
            got.append(error)

    reading = threading.Thread(target=read)
    reading.start()
    assert opening.wait(10)
    answers.port, answers.epoch = new, 2
    assert client(connection_class(url)).get("k") == b"new"
    moved.set()
    reading.join(10)
    assert [type(answer) for answer in got] == [redis.ConnectionError]
    assert slow.get("k") == b"new"
