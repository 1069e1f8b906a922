"""Starting a program without a fork: by the child that the launcher has made for it ahead of time.

AppWorker tells it the container's config at birth, and later, once, what to run. AfterStop the child does
what a fork of AppWorker would have done, and becomes the program.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn

from galaxy.model.base import Struct, decode, encode
from galaxy.model.messages.worker import TaskCgroup, WorkerConfig
from galaxy.worker_entry.spawn import Spawner, as_child
from galaxy.worker_entry.warmup import REHEARSED

_PACKET_MAX: Final = 256 * 1024
_FILES_MAX: Final = 64


class Part(Struct, frozen=True, kw_only=True):
    """What to run; stdin, stdout, stderr and the files of the task's cgroup ride along."""

    argv: tuple[str, ...]
    env: dict[str, str]


class PreforkedProgram:
    """AppWorker's side of it; good for one program."""

    def __init__(self, config: WorkerConfig) -> None:
        self._pid = config.prefork_pid
        self._sock = socket.socket(fileno=config.prefork_fd)
        try:
            self._sock.send(encode(config), socket.MSG_NOSIGNAL)
        except OSError:
            self._pid = 0

    def start(
        self, argv: Sequence[str], env: Mapping[str, str], cgroup: TaskCgroup, streams: tuple[int, int, int]
    ) -> int:
        """Have it become ``argv`` and return its pid, or 0: it is dead or used up."""
        pid, self._pid = self._pid, 0
        if not pid:
            return 0
        files = array.array("i", (*streams, *cgroup.procs_fds))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)]
        try:
            part = Part(argv=tuple(argv), env=dict(env))
            self._sock.sendmsg([encode(part)], rights, socket.MSG_NOSIGNAL)
        except OSError:
            pid = 0
        self._sock.close()
        return pid


def run_prefork(sock: socket.socket, follow: Callable[[], None]) -> NoReturn:
    """Be the child: ``follow`` PID 1, hear the config, get ready, hear what to run, and become it."""
    decode(encode(REHEARSED), WorkerConfig)
    decode(encode(Part(argv=("true",), env={"PATH": "/"})), Part)
    follow()
    said = sock.recv(_PACKET_MAX)
    if not said:
        os._exit(0)
    spawner = Spawner(decode(said, WorkerConfig))
    said, files, _, _ = socket.recv_fds(sock, _PACKET_MAX, _FILES_MAX)
    if not said:
        os._exit(0)
    part = decode(said, Part)
    stdin, stdout, stderr, *procs = files
    cgroup = TaskCgroup(name="", procs_fds=tuple(procs))
    os.setpriority(os.PRIO_PROCESS, 0, 0)  # The launcher's haste ends here, once we have been woken.
    as_child(lambda: spawner.become(part.argv, part.env, cgroup, stdin=stdin, stdout=stdout, stderr=stderr))
