"""A warm process reads all messages of the launcher, also after the launcher has closed its socket."""

from __future__ import annotations

import os
import socket

from galaxy.container.launcher.warm_process import receive


def test_messages_are_received_after_the_launcher_closed_without_reading_an_answer() -> None:
    launcher, warm = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with warm, open(os.devnull) as null:
        launcher.send(b"root plan")
        socket.send_fds(launcher, [b"handover"], [null.fileno()])
        warm.send(b"R")
        launcher.close()
        assert receive(warm) == (b"root plan", [])
        data, fds = receive(warm)
        assert data == b"handover"
        assert os.path.sameopenfile(fds[0], null.fileno())
        os.close(fds[0])
        assert receive(warm) == (b"", [])
