"""A child that a spare's first process makes ahead of time, to be the container's first program.

To fork is the dearest thing that a Python process does on the way to a program, so it is done while
nothing else is to be done. The child waits with its parent's rights; once PID 1 has settled it
follows it, and from there on it listens to what PID 1 tells it.
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

Perform = Callable[[socket.socket, Callable[[], None]], NoReturn]
"""Gets ready, calls what it is given, which waits for PID 1 to settle, then listens to the socket."""

_FOLLOW: Final = b"F"
_CGROUPS_MAX: Final = 64


@dataclass(frozen=True, kw_only=True)
class PreforkedChild:
    """The child's pid in its PID namespace, and PID 1's end of the socket between them."""

    pid: int
    sock: socket.socket

    def follow(self, cgroups: Sequence[int]) -> None:
        """Have it enter ``cgroups`` and the cgroup namespace of PID 1, and give up rights.

        One that died is not missed. ``cgroups`` are open files of those that no task has of its own:
        what it enters when it becomes a task's program says nothing of them.
        """
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", cgroups))] if cgroups else []
        try:
            self.sock.sendmsg([_FOLLOW], rights, socket.MSG_NOSIGNAL)
        except OSError:
            return


def prefork_child(perform: Perform, capabilities: Sequence[str]) -> PreforkedChild:
    """Fork it; ``capabilities`` are those that it keeps when it follows.

    Raises:
        OSError: no process could be made.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        pid = os.fork()
        if pid == 0:
            _wait(theirs, perform, capabilities)
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return PreforkedChild(pid=pid, sock=ours)


def _wait(sock: socket.socket, perform: Perform, capabilities: Sequence[str]) -> NoReturn:
    try:
        syscalls.close_all_but((0, 1, 2, sock.fileno()))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        perform(sock, lambda: _follow(sock, capabilities))
    except BaseException as error:  # noqa: BLE001 - the last frame of this process
        os.write(2, f"event=understudy.failed cause={str(error)!r}\n".encode())
    finally:
        os._exit(1)


def _follow(sock: socket.socket, capabilities: Sequence[str]) -> None:
    said, cgroups, _, _ = socket.recv_fds(sock, 1, _CGROUPS_MAX)
    if said != _FOLLOW:
        os._exit(0)
    for fd in cgroups:
        os.write(fd, b"0")
        os.close(fd)
    namespace = os.open("/proc/1/ns/cgroup", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(namespace, syscalls.CLONE_NEWCGROUP)
    os.close(namespace)
    prctl.limit_capabilities(capabilities)
    prctl.set_no_new_privileges()
