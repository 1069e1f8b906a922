"""Only the agent's user can connect to AppWorker's socket, and malformed messages do not stop programs."""

from __future__ import annotations

import os
import socket
import subprocess

from galaxy.model.messages.worker import PACKET_BYTES_MAX
from tests.support.waiting import until

CONNECT = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(sys.argv[1])"
)


def test_other_users_of_the_host_cannot_connect(host) -> None:
    container = host.container("quiet")
    path = host.runtime.socket_path(container.name, 1)
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-c", CONNECT, str(path)],
        user=65534,
        group=65534,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "PermissionError" in done.stderr
    container.destroy()


def test_many_connections_with_malformed_messages_leave_programs_running(host) -> None:
    container = host.container("flooded", start="echo begun; exec sleep 1000000")
    container.until_state("running")
    path = host.runtime.socket_path(container.name, 1)
    place = os.open(path.parent, os.O_PATH)
    malformed = (b"{", b"\xff" * 100, b'{"type":"order"}', b"[" * 5000, os.urandom(PACKET_BYTES_MAX + 1))
    descriptors = len(os.listdir(f"/proc/{container.pid}/fd"))
    try:
        for turn in range(300):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                sock.connect(f"/proc/self/fd/{place}/{path.name}")
                sock.settimeout(20)
                try:
                    for packet in malformed:
                        socket.send_fds(sock, [packet], [0, 1, 2, 0][: turn % 5])
                except (BrokenPipeError, ConnectionResetError):
                    pass  # A newer connection has replaced this one, or AppWorker closed it.
    finally:
        os.close(place)
    container.connect()
    container.until_state("running")
    assert container.sh("echo alive")[1] == "alive\n"
    assert container.log() == "begun\n"
    until("the connections are closed", lambda: len(os.listdir(f"/proc/{container.pid}/fd")) <= descriptors)
    with open(f"/proc/{container.pid}/status") as status:
        kib = next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
    assert kib < 24 * 1024
    container.destroy()
