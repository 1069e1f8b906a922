"""Commands that users run in a task's container with ``galaxy exec``.

Each command has a supervisor (``supervision``): when the command ends, or its session is over, the
supervisor kills everything that the command has started.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import struct
import termios
from collections.abc import Callable

from galaxy.model.messages.worker import (
    EXECS_MAX,
    Exec,
    ExecEnded,
    ExecKill,
    ExecResize,
    ExecStarted,
    TaskCgroup,
)
from galaxy.model.raw_text import from_message
from galaxy.worker_entry.channel import close_all
from galaxy.worker_entry.spawn import Limits, Spawner, exit_code
from galaxy.worker_entry.supervision import supervise
from galaxy.worker_entry.task_logs import READABLE, WRITABLE


class Execs:
    """The running commands, by the agent's request number."""

    def __init__(
        self,
        spawner: Spawner,
        run_uid: int,
        *,
        send: Callable[[ExecStarted | ExecEnded, int], None],
        on_exit: Callable[[int, Callable[[int], None]], None],
    ) -> None:
        self._spawner = spawner
        self._run_uid = run_uid
        self._send = send
        self._on_exit = on_exit
        self._running: dict[int, _Exec] = {}
        self._unattended: set[_Exec] = set()
        """Detached commands, and those whose agent is gone: requests of agents do not refer to them."""

    def start(
        self, packet: Exec, files: list[int], env: dict[str, str], limits: Limits, cgroup: TaskCgroup
    ) -> None:
        """Run a command; ``files`` are stdin, stdout and stderr, and are closed here."""
        try:
            _let_reopen(files)
            self._start(packet, files, env, limits, cgroup)
        except OSError as error:
            self.refuse(packet.request, f"cannot run {packet.argv[0]!r}: {error.strerror}")
        finally:
            close_all(files)

    def refuse(self, request: int, message: str) -> None:
        """Answer a request with an error."""
        self._send(ExecStarted(request=request, error=message), -1)

    def resize(self, packet: ExecResize) -> None:
        command = self._running.get(packet.request)
        if command is not None and command.terminal >= 0:
            _set_size(command.terminal, packet.rows, packet.columns)

    def kill(self, packet: ExecKill) -> None:
        command = self._running.get(packet.request)
        if command is not None:
            command.kill()

    def kill_attended(self) -> None:
        """Kill every command that is not detached: the agent is gone."""
        for command in self._running.values():
            command.kill()
        self._unattended |= set(self._running.values())
        self._running.clear()

    def kill_all(self, task: str) -> None:
        """Kill every command of a task, detached ones too: the task stops."""
        for command in self._commands():
            if task == command.task:
                command.kill()

    def supervisors(self) -> set[int]:
        """Return the pids from which all commands and their processes descend."""
        return {command.supervisor for command in self._commands()}

    def _commands(self) -> list[_Exec]:
        return [*self._running.values(), *self._unattended]

    def _start(
        self, packet: Exec, files: list[int], env: dict[str, str], limits: Limits, cgroup: TaskCgroup
    ) -> None:
        if not packet.argv or packet.request in self._running or len(self._commands()) >= EXECS_MAX:
            self.refuse(
                packet.request, f"no command given, its number is in use, or {EXECS_MAX} commands are running"
            )
            return
        if len(files) != (0 if packet.tty or packet.detach else 3) or (packet.tty and packet.detach):
            self.refuse(
                packet.request,
                "the request must carry stdin, stdout and stderr, or no files with a tty or detached",
            )
            return
        terminal, inside, passed = -1, -1, -1
        if packet.tty:
            terminal, inside = os.openpty()
            try:
                passed = os.dup(terminal)
            except OSError:
                close_all((terminal, inside))
                raise
            _set_size(terminal, packet.rows, packet.columns)
            if self._run_uid >= 0:
                with contextlib.suppress(OSError):  # Without it the command cannot reopen /dev/tty.
                    os.fchown(inside, self._run_uid, -1)
            env = {"TERM": "xterm", **env}
        streams = [inside] * 3 if packet.tty else files or [-1] * 3

        def work() -> None:
            argv = tuple(map(from_message, packet.argv))
            supervise(
                self._spawner,
                argv,
                env,
                cgroup,
                streams,
                name="galaxy-exec",
                limits=limits,
                tty=packet.tty,
            )

        try:
            supervisor = self._spawner.supervisor(work)
        except OSError:
            close_all(fd for fd in (terminal, passed) if fd >= 0)
            raise
        finally:
            if inside >= 0:
                os.close(inside)
        command = _Exec(packet.task, supervisor, terminal)
        if packet.detach:
            self._unattended.add(command)
        else:
            self._running[packet.request] = command
        self._on_exit(supervisor, lambda status: self._on_ended(packet.request, command, status))
        self._send(ExecStarted(request=packet.request), passed)

    def _on_ended(self, request: int, command: _Exec, status: int) -> None:
        if command.terminal >= 0:
            os.close(command.terminal)
        if command in self._unattended:
            self._unattended.remove(command)
            return
        del self._running[request]
        self._send(ExecEnded(request=request, status=exit_code(status)), -1)


class _Exec:
    """A running command; ``terminal`` is the master side of its terminal, or -1."""

    def __init__(self, task: str, supervisor: int, terminal: int) -> None:
        self.task = task
        self.supervisor = supervisor
        self.terminal = terminal

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.supervisor, signal.SIGTERM)


def _let_reopen(streams: list[int]) -> None:
    """Let a command of any user open its pipes again, as /dev/stdin, /dev/stdout or /dev/stderr."""
    for fd, mode in zip(streams, (READABLE, WRITABLE, WRITABLE), strict=False):
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            with contextlib.suppress(PermissionError):  # It is of another user, in a lesser mode.
                os.fchmod(fd, mode)


def _set_size(terminal: int, rows: int, columns: int) -> None:
    with contextlib.suppress(OSError, struct.error):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
