"""The supervisor process of ``galaxy up``: forked from the command, it reports over a pipe.

The command at the terminal is the foreground process. It forks the supervisor process, which
runs the cluster (``LocalCluster``) in its own session. The foreground process shows what the
supervisor process reports and asks it to stop.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

from galaxy.cli.local.layout import ClusterLock, Layout
from galaxy.cli.local.local_cluster import ClusterUp, LocalCluster, UpOptions
from galaxy.cli.local.supervisor import PartChanged
from galaxy.container.kernel import syscalls
from galaxy.errors import GalaxyError
from galaxy.model.api.answers import Problem, error_of, problem_of
from galaxy.model.base import Struct, decode, encode

LINE_BYTES_MAX: Final = 64 * 1024


class SupervisorMessage(Struct, frozen=True, kw_only=True):
    """One message of the supervisor process, a line of JSON; exactly one field is set."""

    changed: PartChanged | None = None
    up: ClusterUp | None = None
    problem: Problem | None = None


class SupervisorHandle:
    """The supervisor process, as the foreground process sees it."""

    def __init__(self, pid: int, messages: int, lifeline: int) -> None:
        self.pid = pid
        self._messages = messages
        self._lifeline = lifeline
        """Kept open: when this process ends, the kernel closes it and the cluster stops."""
        self._buffer = b""

    def messages(self) -> Iterator[SupervisorMessage]:
        """Yield messages until the supervisor process ends."""
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                yield decode(line, SupervisorMessage)
                continue
            data = os.read(self._messages, LINE_BYTES_MAX)
            if not data:
                return
            self._buffer += data

    def wait_until_up(self, show: Callable[[PartChanged], None]) -> ClusterUp:
        """Show changes until the cluster is up.

        Raises:
            GalaxyError: the cluster does not come up; it carries the reason.
        """
        for message in self.messages():
            if message.changed is not None:
                show(message.changed)
            elif message.up is not None:
                return message.up
            elif message.problem is not None:
                raise error_of(message.problem)
        raise GalaxyError("the cluster's supervisor ended before the cluster was up")

    def wait_until_stopped(self, show: Callable[[PartChanged], None]) -> None:
        """Show changes until the supervisor process has ended.

        Raises:
            GalaxyError: not everything could be stopped; it names what is left.
        """
        for message in self.messages():
            if message.changed is not None:
                show(message.changed)
            elif message.problem is not None:
                raise error_of(message.problem)

    def stop(self) -> None:
        """Ask the supervisor process to stop the cluster; its messages report when it has."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def reap(self) -> None:
        """Wait for the end of the supervisor process and reap it."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


@contextlib.contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM and SIGHUP as well, so that the cluster ends with its command."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = {n: signal.signal(n, interrupt) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start_supervisor(options: UpOptions, layout: Layout, lock: ClusterLock) -> SupervisorHandle:
    """Fork the supervisor process, in its own session. It holds the folder's lock from now on.

    Unless detached, it runs as long as this process does: the kernel closes the lifeline
    however this process ends.
    """
    messages_out, messages_in = os.pipe()
    lifeline_out, lifeline_in = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(messages_out)
        os.close(lifeline_in)
        if options.detach:
            os.close(lifeline_out)
            lifeline_out = -1
        _run_supervisor(options, layout, lock, messages_in, lifeline_out)
    lock.release()
    os.close(messages_in)
    os.close(lifeline_out)
    if options.detach:
        os.close(lifeline_in)
        lifeline_in = -1
    return SupervisorHandle(pid, messages_out, lifeline_in)


def _run_supervisor(
    options: UpOptions, layout: Layout, lock: ClusterLock, messages: int, lifeline: int
) -> NoReturn:
    """Run the cluster, then exit; never return into the foreground process' code."""
    status = 1
    try:
        os.setsid()
        _redirect(layout)
        os.chdir("/")
        # A descriptor of the caller's shell, such as a lock, must not stay open until the cluster ends.
        kept = {0, 1, 2, messages, lifeline, lock.fileno()}
        syscalls.close_all_but(fd for fd in kept if fd >= 0)
        os.set_blocking(messages, False)

        def send(message: SupervisorMessage) -> None:
            _log(message)
            # The foreground process may be gone, or may not read.
            with contextlib.suppress(OSError):
                os.write(messages, encode(message) + b"\n")

        try:
            cluster = LocalCluster(
                options, lambda changed: send(SupervisorMessage(changed=changed)), lifeline, _log_stop
            )
            cluster.run(lock, lambda up: send(SupervisorMessage(up=up)))
            status = 0
        except GalaxyError as error:
            send(SupervisorMessage(problem=problem_of(error)))
    except BaseException:  # noqa: BLE001  # the process exits below; the log gets the reason
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def _log(message: SupervisorMessage) -> None:
    """Write a message to the log, without ``ClusterUp.cluster``, which holds a password."""
    now = _now()
    if message.changed is not None:
        changed = message.changed
        print(f"{now} event=part.{changed.state} part={changed.part!r} detail={changed.detail!r}", flush=True)
    elif message.up is not None:
        print(f"{now} event=cluster.up took_s={message.up.took_s:.2f}", flush=True)
    elif message.problem is not None:
        print(f"{now} event=cluster.failed cause={error_of(message.problem)}", flush=True)


def _log_stop(cause: str) -> None:
    print(f"{_now()} event=cluster.stopping cause={cause!r}", flush=True)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _redirect(layout: Layout) -> None:
    """Redirect standard output and error into the supervisor's log."""
    log = os.open(layout.logs / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for handle in (null, log):
        os.close(handle)
