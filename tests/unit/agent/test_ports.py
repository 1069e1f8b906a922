"""Ports: the host's sockets, and reservations between agents."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from galaxy.agent.host_ports import PortReservations, scan_sockets


def test_listening_and_bound_sockets_are_seen() -> None:
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        udp.bind(("127.0.0.1", 0))
        listening, used = scan_sockets()
        assert {tcp.getsockname()[1], udp.getsockname()[1]} <= listening <= used


def test_connected_socket_is_used_but_does_not_listen() -> None:
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
        listening, used = scan_sockets()
        port = client.getsockname()[1]
        assert port in used
        assert port not in listening


def test_port_of_another_agent_is_seen_and_refused(tmp_path: Path) -> None:
    one, two = PortReservations(tmp_path), PortReservations(tmp_path)
    assert one.reserve([21000, 21007]) == ()
    assert two.reserve([21006, 21007]) == (21007,)
    assert two.of_others() == {21000, 21007}
    assert one.of_others() == frozenset()
    one.keep_only(frozenset({21000}))
    assert two.reserve([21006, 21007]) == ()
    one.close()
    two.close()


def test_every_port_of_others_is_found_among_many(tmp_path: Path) -> None:
    one, two = PortReservations(tmp_path), PortReservations(tmp_path)
    ports = frozenset(range(20000, 20100, 3)) | {1, 65535, 30000, 30001}
    assert one.reserve(ports) == ()
    assert two.of_others() == ports
    one.close()
    two.close()


def test_reservations_end_with_the_process(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from galaxy.agent.host_ports import PortReservations
assert PortReservations(Path({str(tmp_path)!r})).reserve([21000]) == ()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    own = PortReservations(tmp_path)
    assert own.reserve([21000]) == ()
    own.close()
