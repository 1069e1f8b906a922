"""A child that a warm process forks ahead of time, to become the container's first program.

fork() dominates the start latency of a program, so it is done while the launcher is idle. The child
waits with its parent's privileges. When PID 1 has entered its cgroups, the child follows it there, drops
the same privileges, and then waits for PID 1 to send it what to run.
"""

from __future__ import annotations

import array
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from galaxy.container.kernel import prctl, syscalls

RunPrefork = Callable[[socket.socket, Callable[[], None]], NoReturn]
"""What the child runs. It prepares itself and calls its second argument, which returns when the child has
followed PID 1. Then it reads from the socket what to run."""

_FOLLOW: Final = b"F"
_CGROUPS_MAX: Final = 64


@dataclass(frozen=True, kw_only=True)
class PreforkedChild:
    """The child's pid in its PID namespace, and PID 1's end of the socket between them."""

    pid: int
    sock: socket.socket

    def follow(self, cgroups: Sequence[int]) -> None:
        """Make the child enter ``cgroups`` and PID 1's cgroup namespace, and drop privileges.

        ``cgroups`` are open ``cgroup.procs`` files of the hierarchies without task cgroups. In the
        others the child enters its task's cgroup later. A child that has died is ignored: PID 1 then
        forks its first program itself.
        """
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", cgroups))] if cgroups else []
        try:
            self.sock.sendmsg([_FOLLOW], ancillary, socket.MSG_NOSIGNAL)
        except OSError:
            return


def prefork_child(run_prefork: RunPrefork, capabilities: Sequence[str]) -> PreforkedChild:
    """Fork the child; it keeps ``capabilities`` when it follows PID 1.

    Raises:
        OSError: no process could be created.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        pid = os.fork()
        if pid == 0:
            _run(theirs, run_prefork, capabilities)
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return PreforkedChild(pid=pid, sock=ours)


def _run(sock: socket.socket, run_prefork: RunPrefork, capabilities: Sequence[str]) -> NoReturn:
    try:
        syscalls.close_all_but((0, 1, 2, sock.fileno()))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        run_prefork(sock, lambda: _await_follow(sock, capabilities))
    except BaseException as error:  # noqa: BLE001 - the last frame of this process
        os.write(2, f"event=prefork.failed cause={str(error)!r}\n".encode())
    finally:
        os._exit(1)


def _await_follow(sock: socket.socket, capabilities: Sequence[str]) -> None:
    message, cgroups, _, _ = socket.recv_fds(sock, 1, _CGROUPS_MAX)
    if message != _FOLLOW:
        os._exit(0)  # PID 1 is gone.
    for fd in cgroups:
        os.write(fd, b"0")
        os.close(fd)
    namespace = os.open("/proc/1/ns/cgroup", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(namespace, syscalls.CLONE_NEWCGROUP)
    os.close(namespace)
    prctl.limit_capabilities(capabilities)
    prctl.set_no_new_privileges()
