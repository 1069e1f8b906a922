"""Answers of Sentinels, right and wrong, from stand-ins that speak just enough of the protocol."""

from __future__ import annotations

import socket
import threading
import time
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

Answer = Callable[[bytes], bytes]


def bulk(word: object) -> bytes:
    data = str(word).encode()
    return b"$%d\r\n%s\r\n" % (len(data), data)


def pairs(facts: dict[str, object]) -> bytes:
    words = [word for pair in facts.items() for word in pair]
    return b"*%d\r\n" % len(words) + b"".join(map(bulk, words))


@dataclass
class Said:
    """What a Sentinel answers; ``refuses``: it refuses the password."""

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
        said = b"+OK\r\n" * data.upper().count(b"CLIENT\r\n")
        if b"HELLO" in data:
            said += pairs({"role": "master", "version": "7.2.0"})
        return said + (bulk(name) if b"GET\r\n" in data else b"")

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


def test_replica_that_joins_counts_soon(
    listen: Callable[[Answer], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentinel, "REPLICAS_CACHED_S", 0.05)
    said = Said(replicas=[])
    some = sentinels(listen(said))
    assert some.known_replicas("g") == 0
    said.replicas = [7001, 7002]
    time.sleep(0.06)  # What is tested is that it is believed no longer.
    assert some.known_replicas("g") == 2


def test_sentinel_that_runs_a_failover_is_believed_last_among_equal_epochs(
    listen: Callable[[Answer], int],
) -> None:
    going = Said(port=7009, flags="master,failover_in_progress")
    assert sentinels(listen(going), listen(Said())).discover_master("g") == ("127.0.0.1", 7000)


def test_one_sentinel_that_refuses_the_password_is_ignored(listen: Callable[[Answer], int]) -> None:
    refusing = listen(Said(refuses=True))
    assert sentinels(refusing, listen(Said())).discover_master("g") == ("127.0.0.1", 7000)
    with pytest.raises(redis.AuthenticationError, match="sentinel_password"):
        sentinels(refusing).discover_master("g")


def test_unreachable_sentinel_does_not_slow_a_commit_once_it_is_known(
    listen: Callable[[Answer], int],
) -> None:
    asked: list[bytes] = []
    silent = threading.Event()

    def dark(data: bytes) -> bytes:
        asked.append(data)
        silent.wait(30)
        return b""

    some = sentinels(listen(dark), listen(Said()), listen(Said()))
    for _ in range(5):
        assert some.live_replicas("g", ("127.0.0.1", 7000)) == 1
    silent.set()
    assert len(asked) == 1


def test_outvoted_sentinel_does_not_stop_a_commit(listen: Callable[[Answer], int]) -> None:
    """The Sentinel is cut off from the others together with the old master, but not from us."""
    old = listen(Said(port=7001, epoch=1, replicas=[7000, 7002]))
    new = [listen(Said(port=7000, epoch=2, replicas=[7001, 7002])) for _ in range(2)]
    assert sentinels(old, *new).live_replicas("g", ("127.0.0.1", 7000)) == 2


@pytest.mark.parametrize(
    "third",
    [
        Said(port=7001, epoch=2),
        Said(port=7001, epoch=1),
        Said(epoch=1, flags="master,failover_in_progress"),
        Said(port=7001, epoch=0, flags="master,failover_in_progress"),
    ],
    ids=["newer", "as new", "at a failover", "older, and at a failover"],
)
def test_sentinel_that_may_be_newer_stops_a_commit(listen: Callable[[Answer], int], third: Said) -> None:
    some = sentinels(listen(Said(epoch=1)), listen(Said(epoch=1)), listen(third))
    with pytest.raises(MasterNotFoundError, match="being replaced"):
        some.live_replicas("g", ("127.0.0.1", 7000))


def test_master_that_few_sentinels_know_gets_no_commit(listen: Callable[[Answer], int]) -> None:
    new, old = Said(epoch=2), Said(port=7001, epoch=1)
    some = sentinels(listen(new), listen(old), listen(old))
    with pytest.raises(MasterNotFoundError, match="being replaced"):
        some.live_replicas("g", ("127.0.0.1", 7000))


def test_unreachable_sentinel_is_waited_for_once_by_each_new_connection(
    listen: Callable[[Answer], int],
) -> None:
    asked: list[bytes] = []
    silent = threading.Event()

    def dark(data: bytes) -> bytes:
        asked.append(data)
        silent.wait(30)
        return b""

    said = Said(port=listen(server("master")))
    where = ",".join(f"127.0.0.1:{listen(one)}" for one in (dark, said, said))
    with Nexus.connect(f"sentinel://{where}/0?master=g", name="t") as nexus:
        assert nexus.client.get("k") == b"master"
    silent.set()
    assert len(asked) == 1


def test_connection_that_was_being_opened_while_the_master_moved_is_not_used(
    listen: Callable[[Answer], int],
) -> None:
    old, new = listen(server("old")), listen(server("new"))
    said = Said(port=old)
    port = listen(said)
    some = sentinels(port)
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
        return redis.Redis(connection_pool=MasterPool("g", some, connection_class=kind, **options))

    slow, got = client(Slow), []

    def read() -> None:
        try:
            got.append(slow.get("k"))
        except redis.ConnectionError as error:
            got.append(error)

    reading = threading.Thread(target=read)
    reading.start()
    assert opening.wait(10)
    said.port, said.epoch = new, 2
    assert client(connection_class(url)).get("k") == b"new"
    moved.set()
    reading.join(10)
    assert [type(answer) for answer in got] == [redis.ConnectionError]
    assert slow.get("k") == b"new"
