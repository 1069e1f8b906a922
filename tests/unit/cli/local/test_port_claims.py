"""Claims on ranges of ports, and free ports."""

from __future__ import annotations

import socket

from galaxy.cli.local.port_claims import PORTS_EACH, PORTS_LOW, claim_ports, free_port


def test_claimed_range_is_not_claimed_again_until_it_is_released() -> None:
    first = claim_ports(PORTS_LOW)
    second = claim_ports(first.low)
    try:
        assert {first.high - first.low, second.high - second.low} == {PORTS_EACH - 1}
        assert first.low != second.low
        first.release()
        again = claim_ports(first.low)
        again.release()
        assert again.low == first.low
    finally:
        first.release()
        second.release()


def test_port_with_a_listener_is_skipped() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) > port
