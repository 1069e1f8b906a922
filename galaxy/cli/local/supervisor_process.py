"""``galaxy up``'s front: the process at the terminal. It starts the back, shows it, and ends it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

from galaxy.cli.local.layout import ClusterLock, Layout
from galaxy.cli.local.local_cluster import ClusterUp, LocalCluster, UpOptions
from galaxy.cli.local.supervisor import PartChanged
from galaxy.errors import GalaxyError, error_from
from galaxy.model.api.answers import Problem
from galaxy.model.base import Struct, decode, encode

LINE_BYTES_MAX: Final = 64 * 1024


class SupervisorMessage(Struct, frozen=True, kw_only=True):
    """What the back says to the front, one JSON line each."""

    happened: PartChanged | None = None
    up: ClusterUp | None = None
    problem: Problem | None = None


class SupervisorHandle:
    """The back, as its front sees it."""

    def __init__(self, pid: int, words: int, lifeline: int) -> None:
        self.pid = pid
        self._words = words
        self._lifeline = lifeline
        self._buffer = b""

    def words(self) -> Iterator[SupervisorMessage]:
        """Yield what the back says, until it ends."""
        while True:
            head, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                yield decode(head, SupervisorMessage)
                continue
            data = os.read(self._words, LINE_BYTES_MAX)
            if not data:
                return
            self._buffer += data

    def until_up(self, show: Callable[[PartChanged], None]) -> ClusterUp:
        """Show what happens until the cluster is up.

        Raises:
            GalaxyError: it does not come up, and why.
        """
        for word in self.words():
            if word.happened is not None:
                show(word.happened)
            elif word.up is not None:
                return word.up
            elif word.problem is not None:
                raise _error(word.problem)
        raise GalaxyError("the cluster's supervisor ended before the cluster was up")

    def until_end(self, show: Callable[[PartChanged], None]) -> None:
        """Show what happens until the back has ended.

        Raises:
            GalaxyError: not everything could be ended, and what is left.
        """
        for word in self.words():
            if word.happened is not None:
                show(word.happened)
            elif word.problem is not None:
                raise _error(word.problem)

    def end(self) -> None:
        """Ask the back to end everything; its words say when it has."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> None:
        """Take the back's exit status, so that nothing is left of it."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def readable(self, timeout_s: float) -> bool:
        return bool(select.select([self._words], [], [], timeout_s)[0])


@contextlib.contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP are Ctrl-C in here: the cluster ends with its front."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = {n: signal.signal(n, interrupt) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start_supervisor(wishes: UpOptions, layout: Layout, held: ClusterLock) -> SupervisorHandle:
    """Fork the back, in a session of its own; it holds the folder from now on.

    Unless detached it runs as long as its front: the kernel closes the lifeline whatever
    ends the front.
    """
    words_out, words_in = os.pipe()
    life_out, life_in = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(words_out)
        os.close(life_in)
        if wishes.detach:
            os.close(life_out)
            life_out = -1
        _run_supervisor(wishes, layout, held, words_in, life_out)
    held.release()
    os.close(words_in)
    os.close(life_out)
    if wishes.detach:
        os.close(life_in)
        life_in = -1
    return SupervisorHandle(pid, words_out, life_in)


def _run_supervisor(
    wishes: UpOptions, layout: Layout, held: ClusterLock, words: int, lifeline: int
) -> NoReturn:
    """Run the cluster and end the process, without ever returning into the front's code."""
    status = 1
    try:
        os.setsid()
        _redirect(layout)
        os.set_blocking(words, False)

        def say(word: SupervisorMessage) -> None:
            _log(word)
            # A front that went away, or that does not read: nobody to say it to.
            with contextlib.suppress(OSError):
                os.write(words, encode(word) + b"\n")

        try:
            cluster = LocalCluster(
                wishes, lambda happened: say(SupervisorMessage(happened=happened)), lifeline
            )
            cluster.run(held, lambda up: say(SupervisorMessage(up=up)))
            status = 0
        except GalaxyError as error:
            problem = Problem(kind=error.kind, message=error.message, details=error.details, hint=error.hint)
            say(SupervisorMessage(problem=problem))
    except BaseException:  # noqa: BLE001  # the last thing this process does is to say why it ends
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def _log(word: SupervisorMessage) -> None:
    """Write a word into the log; what holds the password is not written."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    if word.happened is not None:
        happened = word.happened
        print(
            f"{now} event=part.{happened.state} part={happened.part!r} detail={happened.detail!r}", flush=True
        )
    elif word.up is not None:
        print(f"{now} event=cluster.up took_s={word.up.took_s:.2f}", flush=True)
    elif word.problem is not None:
        print(f"{now} event=cluster.failed cause={_error(word.problem)}", flush=True)


def _redirect(layout: Layout) -> None:
    log = os.open(layout.logs / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for handle in (null, log):
        os.close(handle)


def _error(problem: Problem) -> GalaxyError:
    return error_from(problem.kind, problem.message, problem.details, problem.hint)
