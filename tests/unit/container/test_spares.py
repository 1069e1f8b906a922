"""What a process that waits for a plan hears of a launcher that has gone on already."""

from __future__ import annotations

import os
import socket

from galaxy.container.launcher.warm_process import receive


def test_plan_is_heard_though_the_launcher_closed_before_it_read_that_we_wait() -> None:
    launcher, spare = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with spare, open(os.devnull) as null:
        launcher.send(b"place")
        socket.send_fds(launcher, [b"the rest"], [null.fileno()])
        spare.send(b"R")
        launcher.close()
        assert receive(spare) == (b"place", [])
        data, fds = receive(spare)
        assert data == b"the rest"
        assert os.path.sameopenfile(fds[0], null.fileno())
        os.close(fds[0])
        assert receive(spare) == (b"", [])
