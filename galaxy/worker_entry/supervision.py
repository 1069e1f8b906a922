"""A command beside a task's program, with a supervisor: a child of AppWorker that ends all of it.

The supervisor is the subreaper of everything that the command starts, daemons included. When the command
ends, or the supervisor gets SIGTERM, it kills what is left and exits with the command's status. It stays
out of the task's cgroup, and keeps AppWorker's user, so the command cannot signal it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from galaxy.container.kernel import prctl
from galaxy.model.messages.worker import TaskCgroup
from galaxy.worker_entry.processes import kill_descendants
from galaxy.worker_entry.spawn import Limits, Spawner, close_all_but, exit_code

_SIGNALS: Final = (signal.SIGCHLD, signal.SIGTERM)


def supervise(
    spawner: Spawner,
    argv: Sequence[str],
    env: Mapping[str, str],
    cgroup: TaskCgroup,
    streams: Sequence[int],
    *,
    name: str,
    limits: Limits,
    tty: bool = False,
) -> NoReturn:
    """Run a command to its end, kill what is left of it, and exit with its status; in the supervisor.

    ``streams`` are stdin, stdout and stderr; -1 means /dev/null. ``name`` is what ``ps`` shows.

    Raises:
        OSError: no process could be created.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    prctl.die_with_parent(signal.SIGTERM)  # Without a PID namespace nothing else ends it.
    prctl.become_subreaper()
    prctl.set_process_name(name)
    program = spawner.program(
        argv, env, cgroup, stdin=streams[0], stdout=streams[1], stderr=streams[2], limits=limits, tty=tty
    )
    close_all_but(())
    for fd in range(3):
        os.close(fd)
    status: int | None = None
    is_ending = False
    while True:
        is_ending |= signal.sigwait(_SIGNALS) == signal.SIGTERM
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == program:
                    status = ended[1]
        except ChildProcessError:
            os._exit(exit_code(status or 0))
        if is_ending or status is not None:
            kill_descendants()
