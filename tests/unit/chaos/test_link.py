"""The link with real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from galaxy.testing.chaos.tcp_proxy import TcpProxy

SILENCE_S = 0.1


@dataclass
class Ends:
    link: TcpProxy
    near: socket.socket
    far: socket.socket


@pytest.fixture
def ends() -> Iterator[Ends]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = TcpProxy(server.getsockname())
        with socket.create_connection(("127.0.0.1", link.port), timeout=30) as near:
            far, _ = server.accept()
            far.settimeout(30)
            with far:
                yield Ends(link, near, far)
                link.close()


def silent(one: socket.socket) -> bool:
    one.settimeout(SILENCE_S)
    try:
        return not one.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        one.settimeout(30)


def test_bytes_go_both_ways(ends: Ends) -> None:
    ends.near.sendall(b"question")
    assert ends.far.recv(100) == b"question"
    ends.far.sendall(b"answer")
    assert ends.near.recv(100) == b"answer"


def test_what_is_sent_while_it_is_cut_arrives_when_it_is_joined(ends: Ends) -> None:
    ends.link.cut()
    ends.near.sendall(b"late")
    ends.far.sendall(b"too")
    assert silent(ends.far)
    assert silent(ends.near)
    ends.link.join()
    assert ends.far.recv(100) == b"late"
    assert ends.near.recv(100) == b"too"


def test_outward_cut_begins_with_the_message_it_is_told_and_lets_answers_in(ends: Ends) -> None:
    ends.link.cut("out", at=b"commit")
    ends.near.sendall(b"renew")
    assert ends.far.recv(100) == b"renew"
    ends.near.sendall(b"commit 1")
    assert silent(ends.far)
    ends.far.sendall(b"answer")
    assert ends.near.recv(100) == b"answer"
    ends.link.join()
    assert ends.far.recv(100) == b"commit 1"


def test_closed_end_closes_the_other_after_what_it_had_sent(ends: Ends) -> None:
    ends.link.cut()
    ends.near.sendall(b"last words")
    ends.near.close()
    assert silent(ends.far)
    ends.link.join()
    assert ends.far.recv(100) == b"last words"
    assert ends.far.recv(100) == b""
