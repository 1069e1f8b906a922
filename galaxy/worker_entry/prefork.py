"""Starting the first program without a fork, through the child that the launcher forked ahead of time.

AppWorker sends the child the container's config when it starts, and later, once, what to run. The
child then does what a forked child of AppWorker would do, and becomes the program.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn

from galaxy.model.base import Struct, decode, encode
from galaxy.model.messages.worker import TaskCgroup, WorkerConfig
from galaxy.worker_entry.spawn import Limits, Spawner, run_as_child
from galaxy.worker_entry.warmup import SAMPLE_CONFIG

_PACKET_BYTES_MAX: Final = 256 * 1024
_FILES_MAX: Final = 64


class StartRequest(Struct, frozen=True, kw_only=True):
    """What to run. stdin, stdout, stderr and the procs files of the task's cgroup are sent with it."""

    argv: tuple[str, ...]
    env: dict[str, str]
    limits: dict[str, tuple[int, int]] = {}


class PreforkedProgram:
    """AppWorker's side of the child; it can start one program."""

    def __init__(self, config: WorkerConfig) -> None:
        self._pid = config.prefork_pid
        self._sock = socket.socket(fileno=config.prefork_fd)
        try:
            self._sock.send(encode(config), socket.MSG_NOSIGNAL)
        except OSError:
            self._pid = 0

    def start(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        cgroup: TaskCgroup,
        limits: Limits,
        streams: tuple[int, int, int],
    ) -> int:
        """Have the child become ``argv``. Return its pid, or 0 if it is dead or was used already."""
        pid, self._pid = self._pid, 0
        if not pid:
            return 0
        files = array.array("i", (*streams, *cgroup.procs_fds))
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)]
        try:
            request = StartRequest(argv=tuple(argv), env=dict(env), limits=dict(limits))
            self._sock.sendmsg([encode(request)], ancillary, socket.MSG_NOSIGNAL)
        except OSError:
            pid = 0
        self._sock.close()
        return pid


def run_prefork(sock: socket.socket, follow: Callable[[], None]) -> NoReturn:
    """Run in the child: follow PID 1 into its container, read the config and the request, become the program.

    ``follow`` returns when the child has followed PID 1. The codec is warmed up before that.
    """
    decode(encode(SAMPLE_CONFIG), WorkerConfig)
    decode(encode(StartRequest(argv=("true",), env={"PATH": "/"})), StartRequest)
    follow()
    config = sock.recv(_PACKET_BYTES_MAX)
    if not config:
        os._exit(0)
    spawner = Spawner(decode(config, WorkerConfig))
    message, files, _, _ = socket.recv_fds(sock, _PACKET_BYTES_MAX, _FILES_MAX)
    if not message:
        os._exit(0)
    request = decode(message, StartRequest)
    stdin, stdout, stderr, *procs = files
    cgroup = TaskCgroup(name="", procs_fds=tuple(procs))
    os.setpriority(os.PRIO_PROCESS, 0, 0)  # The launcher's high priority is not for programs.
    run_as_child(
        lambda: spawner.exec_program(
            request.argv, request.env, cgroup, request.limits, stdin=stdin, stdout=stdout, stderr=stderr
        )
    )
