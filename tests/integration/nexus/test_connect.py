"""A connection that fails gives one clear error within five seconds."""

from __future__ import annotations

import socket
import socketserver
import threading
import time

import pytest

from galaxy.errors import GalaxyError, Refused, Unreachable, UsageError
from galaxy.nexus import Nexus, keys
from tests.support.redis_server import RedisServer
from tests.support.waiting import within_limit


def test_valid_url_connects(locked_redis_server: RedisServer) -> None:
    nexus = Nexus.connect(locked_redis_server.url, name="test@here")
    nexus.ping()
    assert {client["name"] for client in nexus.client.client_list()} == {"test@here"}
    nexus.close()


@pytest.mark.parametrize("password", ["", "wrong"])
def test_wrong_or_missing_password_is_refused_without_showing_it(
    locked_redis_server: RedisServer, password: str
) -> None:
    login = f":{password}@" if password else ""
    with pytest.raises(Refused) as caught:
        Nexus.connect(f"redis://{login}127.0.0.1:{locked_redis_server.port}/0", name="x")
    assert f"127.0.0.1:{locked_redis_server.port}" in caught.value.message
    assert "\n" not in caught.value.message
    assert not password or password not in str(caught.value)


def test_call_in_another_thread_continues_when_the_nexus_is_closed(redis_server: RedisServer) -> None:
    nexus = Nexus.connect(redis_server.url, name="x")
    answers: list[object] = []
    waiting = threading.Thread(target=lambda: answers.append(nexus.await_reply("r", 10.0)))
    waiting.start()
    with Nexus.connect(redis_server.url, name="y") as other:
        end_s = time.monotonic() + 10
        while not other.client.info("clients")["blocked_clients"]:  # type: ignore[index]
            assert time.monotonic() < end_s
            time.sleep(0.01)
        nexus.close()
        other.client.rpush(keys.reply("r"), b"answer")
    waiting.join(20)
    assert answers == [b"answer"]


def test_closed_port_is_unreachable(redis_server: RedisServer) -> None:
    redis_server.stop()
    with pytest.raises(Unreachable, match=r"cannot reach Redis at 127\.0\.0\.1:"):
        Nexus.connect(redis_server.url, name="x")


def test_server_that_hangs_is_unreachable_within_five_seconds(redis_server: RedisServer) -> None:
    redis_server.pause()
    within_limit("failed", 5.5, lambda: _refused(redis_server.url))


def test_listener_that_accepts_no_connection_is_unreachable_within_five_seconds() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        within_limit("failed", 5.5, lambda: _refused(url))


def _refused(url: str) -> None:
    with pytest.raises(Unreachable):
        Nexus.connect(url, name="x")


def test_server_that_is_not_redis_is_reported_as_such() -> None:
    class Web(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(Unreachable, match="is not Redis"):
            Nexus.connect(f"redis://127.0.0.1:{server.server_address[1]}/0", name="x")
        server.shutdown()


@pytest.mark.parametrize(
    "url", ["", "localhost", "http://h:1/0", "redis://", "redis://h:port/0", "redis://h/base"]
)
def test_invalid_redis_url_is_wrong_usage(url: str) -> None:
    with pytest.raises(UsageError, match="not a Redis URL"):
        Nexus.connect(url, name="x")


def test_every_call_fails_with_the_servers_address_while_it_is_away_and_works_again_afterwards(
    redis_server: RedisServer,
) -> None:
    nexus = Nexus.connect(redis_server.url, name="x")
    nexus.send_heartbeat("h1", boot="b")
    redis_server.stop()
    calls = [
        nexus.ping,
        nexus.heartbeats,
        lambda: nexus.leader("resman"),
        lambda: nexus.campaign("resman", "a", ttl_s=1.0, address="a"),
        lambda: nexus.await_reply("r", 1.0),
    ]
    for call in calls:
        with pytest.raises(Unreachable, match=f"127.0.0.1:{redis_server.port}"):
            call()
    redis_server.start()
    for call in calls:
        call()
    assert [beat.agent for beat in nexus.heartbeats().heartbeats] == ["h1"]
    nexus.close()


def test_server_too_old_is_named_with_its_version() -> None:
    answer = b"*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n6.2.14\r\n"
    with FakeRedis(answer) as port, pytest.raises(GalaxyError, match=r"redis 6\.2\.14; Galaxy needs Redis 7"):
        Nexus.connect(f"redis://127.0.0.1:{port}/0", name="x")


class FakeRedis:
    """A server that answers HELLO with ``answer`` and everything else with OK."""

    def __init__(self, answer: bytes) -> None:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                while data := self.request.recv(65536):
                    commands = data.count(b"*") or 1
                    self.request.sendall(answer if b"HELLO" in data else b"+OK\r\n" * commands)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> int:
        self._thread.start()
        port: int = self._server.server_address[1]
        return port

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
