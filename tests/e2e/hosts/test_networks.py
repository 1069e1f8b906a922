"""The simulated network of the other tests cuts, blocks and slows links as requested."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.netns import Host, Network, missing

pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(missing()), reason=missing())]


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


class HostPair:
    """Two hosts, and a datagram socket on each."""

    def __init__(self, network: Network) -> None:
        self.one, self.two = network.add("one"), network.add("two")
        self.at_one, self.at_two = _datagrams(self.one), _datagrams(self.two)

    def delivers(self, sender: str, expected: bool) -> bool:
        """Return whether datagrams from ``sender`` arrive; tries for longer if they should."""
        return any(self._arrives(sender) for _ in range(30 if expected else 1))

    def _arrives(self, sender: str, wait_s: float = 0.3) -> bool:
        source, target, target_host = (
            (self.at_one, self.at_two, self.two) if sender == "one" else (self.at_two, self.at_one, self.one)
        )
        target.settimeout(wait_s)
        data = os.urandom(8)
        source.sendto(data, (target_host.address, 7))
        try:
            while target.recv(8) != data:
                continue
        except TimeoutError:
            return False
        return True


def _datagrams(host: Host) -> socket.socket:
    with host.inside():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host.address, 7))
    return sock


def test_cut_host_neither_sends_nor_receives_until_it_is_reconnected(network: Network) -> None:
    pair = HostPair(network)
    assert pair.delivers("one", True)
    assert pair.delivers("two", True)
    for direction, (sends, receives) in {
        "both": (False, False), "out": (False, True), "in": (True, False)
    }.items():  # fmt: skip
        pair.one.cut(direction)  # type: ignore[arg-type]
        arrived = (pair.delivers("one", sends), pair.delivers("two", receives))
        assert arrived == (sends, receives), direction
        pair.one.reconnect()
        assert (pair.delivers("one", True), pair.delivers("two", True)) == (True, True), direction


def test_two_hosts_are_blocked_one_way_or_both_and_a_third_is_not(network: Network) -> None:
    pair, third = HostPair(network), network.add("three")
    at_third = _datagrams(third)
    pair.one.block(pair.two)
    assert (pair.delivers("one", False), pair.delivers("two", True)) == (False, True)
    pair.one.unblock(pair.two)
    assert (pair.delivers("one", True), pair.delivers("two", True)) == (True, True)
    network.partition([pair.one, third], [pair.two])
    assert (pair.delivers("one", False), pair.delivers("two", False)) == (False, False)
    pair.at_one.sendto(b"data", (third.address, 7))
    at_third.settimeout(30)
    assert at_third.recv(8) == b"data"
    network.heal()
    assert (pair.delivers("one", True), pair.delivers("two", True)) == (True, True)


def test_slow_link_delivers_a_complete_stream_late_and_at_its_rate(network: Network) -> None:
    pair = HostPair(network)
    pair.one.slow(delay_ms=50, jitter_ms=10, loss=0.01, rate_bit=4_000_000)
    with pair.two.inside():
        listener = socket.create_server((pair.two.address, 80))
    with pair.one.inside():
        began_s = time.monotonic()
        sending = socket.create_connection((pair.two.address, 80), timeout=30)
    assert time.monotonic() - began_s > 0.08
    receiving = listener.accept()[0]
    sent = os.urandom(200_000)
    began_s = time.monotonic()
    sender = threading.Thread(target=sending.sendall, args=(sent,))
    sender.start()
    receiving.settimeout(60)
    got = b""
    while len(got) < len(sent):
        got += receiving.recv(65536)
    sender.join(timeout=30)
    assert got == sent
    assert time.monotonic() - began_s > 200_000 * 8 / 4_000_000
    pair.one.cut()
    assert not pair.delivers("one", False)
    pair.one.fast()
    assert pair.delivers("one", True)


def test_closed_network_leaves_no_process(network: Network) -> None:
    pair = HostPair(network)
    with pair.one.popen(["sh", "-c", "echo inside; exec sleep 1000"], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"inside\n"
        assert running.pid in pair.one.pids()
        network.close()
        assert running.wait(timeout=10) == -9
