"""The networks that the tests beside stand on do what they say."""

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
    with Network() as made:
        yield made


class Pair:
    """Two hosts, and a datagram socket on each."""

    def __init__(self, network: Network) -> None:
        self.one, self.two = network.add("one"), network.add("two")
        self.at_one, self.at_two = _datagrams(self.one), _datagrams(self.two)

    def hears(self, sender: str, wanted: bool) -> bool:
        """Return whether words from ``sender`` reach the other; a busy machine has time if they should."""
        return any(self._heard(sender) for _ in range(30 if wanted else 1))

    def _heard(self, sender: str, wait_s: float = 0.3) -> bool:
        """Return whether a word from ``sender`` reaches the other."""
        at, to, there = (
            (self.at_one, self.at_two, self.two) if sender == "one" else (self.at_two, self.at_one, self.one)
        )
        to.settimeout(wait_s)
        word = os.urandom(8)
        at.sendto(word, (there.address, 7))
        try:
            while to.recv(8) != word:
                continue
        except TimeoutError:
            return False
        return True


def _datagrams(host: Host) -> socket.socket:
    with host.inside():
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((host.address, 7))
    return made


def test_cut_host_is_neither_heard_nor_hears_until_it_joins(network: Network) -> None:
    pair = Pair(network)
    assert pair.hears("one", True)
    assert pair.hears("two", True)
    for way, (speaks, hears) in {
        "both": (False, False), "out": (False, True), "in": (True, False)
    }.items():  # fmt: skip
        pair.one.cut(way)  # type: ignore[arg-type]
        assert (pair.hears("one", speaks), pair.hears("two", hears)) == (speaks, hears), way
        pair.one.join()
        assert (pair.hears("one", True), pair.hears("two", True)) == (True, True), way


def test_host_may_lose_another_in_one_way_or_both_and_no_third(network: Network) -> None:
    pair, third = Pair(network), network.add("three")
    at_third = _datagrams(third)
    pair.one.lose(pair.two)
    assert (pair.hears("one", False), pair.hears("two", True)) == (False, True)
    pair.one.find(pair.two)
    assert (pair.hears("one", True), pair.hears("two", True)) == (True, True)
    network.part([pair.one, third], [pair.two])
    assert (pair.hears("one", False), pair.hears("two", False)) == (False, False)
    pair.at_one.sendto(b"word", (third.address, 7))
    at_third.settimeout(30)
    assert at_third.recv(8) == b"word"
    network.heal()
    assert (pair.hears("one", True), pair.hears("two", True)) == (True, True)


def test_slow_link_carries_a_stream_whole_late_and_at_its_rate(network: Network) -> None:
    pair = Pair(network)
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
    assert not pair.hears("one", False)
    pair.one.fast()
    assert pair.hears("one", True)


def test_closed_network_leaves_no_process(network: Network) -> None:
    pair = Pair(network)
    with pair.one.popen(["sh", "-c", "echo inside; exec sleep 1000"], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"inside\n"
        assert running.pid in pair.one.pids()
        network.close()
        assert running.wait(timeout=10) == -9
