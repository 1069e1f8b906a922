"""The TCP proxy delays and relays bytes between real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from galaxy.testing.chaos.tcp_proxy import TcpProxy

SILENCE_S = 0.1


@dataclass
class Ends:
    """A proxy, the client's socket and the server's."""

    proxy: TcpProxy
    client: socket.socket
    server: socket.socket


@pytest.fixture
def ends() -> Iterator[Ends]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = TcpProxy(listener.getsockname())
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as client:
            server, _ = listener.accept()
            server.settimeout(30)
            with server:
                yield Ends(proxy, client, server)
                proxy.close()


def receives_nothing(one: socket.socket) -> bool:
    one.settimeout(SILENCE_S)
    try:
        return not one.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        one.settimeout(30)


def test_bytes_are_relayed_both_ways(ends: Ends) -> None:
    ends.client.sendall(b"question")
    assert ends.server.recv(100) == b"question"
    ends.server.sendall(b"answer")
    assert ends.client.recv(100) == b"answer"


def test_bytes_sent_during_a_cut_arrive_after_it(ends: Ends) -> None:
    ends.proxy.cut()
    ends.client.sendall(b"late")
    ends.server.sendall(b"too")
    assert receives_nothing(ends.server)
    assert receives_nothing(ends.client)
    ends.proxy.restore()
    assert ends.server.recv(100) == b"late"
    assert ends.client.recv(100) == b"too"


def test_outward_cut_starts_at_the_named_message_and_lets_answers_through(ends: Ends) -> None:
    ends.proxy.cut("out", at=b"commit")
    ends.client.sendall(b"renew")
    assert ends.server.recv(100) == b"renew"
    ends.client.sendall(b"commit 1")
    assert receives_nothing(ends.server)
    ends.server.sendall(b"answer")
    assert ends.client.recv(100) == b"answer"
    ends.proxy.restore()
    assert ends.server.recv(100) == b"commit 1"


def test_end_that_closes_during_a_cut_closes_the_other_after_its_last_bytes(ends: Ends) -> None:
    ends.proxy.cut()
    ends.client.sendall(b"last bytes")
    ends.client.close()
    assert receives_nothing(ends.server)
    ends.proxy.restore()
    assert ends.server.recv(100) == b"last bytes"
    assert ends.server.recv(100) == b""
