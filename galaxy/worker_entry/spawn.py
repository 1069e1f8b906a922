"""From fork to exec: starting a user's program, or a helper process of AppWorker.

The order inside the child matters: it enters its cgroup first, so that everything after is charged to
it; then it does what needs privileges, drops them, and installs the seccomp filter last.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import signal
import termios
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NoReturn

from galaxy.container.kernel import inherited, prctl
from galaxy.model.messages.worker import TaskCgroup, WorkerConfig

Limits = Mapping[str, tuple[int, int]]
"""Soft and hard resource limits that a task sets for itself, by name; the others are documented ones."""
CANNOT_EXEC: Final = 126
NOT_FOUND: Final = 127
_FDS_MAX: Final = 1 << 30
_DEVNULL: Final = "/dev/null"
_ALL_SIGNALS: Final = signal.valid_signals()
HANDLED: Final = (signal.SIGCHLD, signal.SIGTERM)
IGNORED: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that AppWorker handles or ignores. An exec would pass ignored ones on, so a child resets them."""
_RESET: Final = (*HANDLED, *IGNORED, signal.SIGPIPE, signal.SIGXFSZ)


class Spawner:
    """Starts processes with the user, seccomp filter and directory of the container's config."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self.devnull = os.open(_DEVNULL, os.O_RDWR | os.O_CLOEXEC)
        filtered = config.seccomp and config.seccomp_program
        self._seccomp = prctl.SeccompFilter(base64.b64decode(config.seccomp_program)) if filtered else None

    def program(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        cgroup: TaskCgroup,
        *,
        stdin: int = -1,
        stdout: int = -1,
        stderr: int = -1,
        limits: Limits | None = None,
        tty: bool = False,
    ) -> int:
        """Start ``argv`` in its own session and return its pid; -1 for a stream means /dev/null.

        With ``tty`` stdin is a terminal and becomes the controlling one. An error after the fork is
        a line on stderr and exit code 126, or 127 if there is no such program.

        Raises:
            OSError: no process could be created.
        """
        return self._fork(
            lambda: self.exec_program(
                argv, env, cgroup, limits or {}, stdin=stdin, stdout=stdout, stderr=stderr, tty=tty
            )
        )

    def exec_program(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        cgroup: TaskCgroup,
        limits: Limits,
        *,
        stdin: int,
        stdout: int,
        stderr: int,
        tty: bool = False,
    ) -> None:
        """Replace this process, a child of AppWorker, with ``argv``; does not return.

        Raises:
            OSError: the process cannot be prepared, or there is no such program.
        """
        self._streams(stdin, stdout, stderr)
        if tty:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        self._restrict(cgroup, limits)
        os.chdir(self._config.workspace)
        os.closerange(3, _FDS_MAX)
        try:
            os.execvpe(argv[0], list(argv), dict(env))  # noqa: S606  (argv is the user's)
        except FileNotFoundError as error:
            # Name the program: the error names the last directory of PATH that was tried.
            raise FileNotFoundError(error.errno, "no such program", argv[0]) from error

    def helper(self, work: Callable[[], None], cgroup: TaskCgroup, keep: Collection[int]) -> int:
        """Run ``work`` in a child with the privileges and the cgroup of the program.

        Only the descriptors of ``keep`` stay open; the standard streams are /dev/null.

        Raises:
            OSError: no process could be created.
        """

        def run() -> None:
            self._streams(-1, -1, -1)
            self._restrict(cgroup, {})
            close_all_but(keep)
            work()

        return self._fork(run)

    def supervisor(self, work: Callable[[], None]) -> int:
        """Run ``work`` in a child with AppWorker's own privileges and descriptors, in its own session.

        Raises:
            OSError: no process could be created.
        """
        return self._fork(work)

    def _fork(self, run: Callable[[], None]) -> int:
        # Signals stay blocked until the child has reset its handlers: one in between must neither be
        # lost nor be written to AppWorker's wake-up pipe, which the child shares until exec.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL_SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                run_as_child(run)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid

    def _streams(self, stdin: int, stdout: int, stderr: int) -> None:
        sources = [self.devnull if fd < 0 else fd for fd in (stdin, stdout, stderr)]
        # Copy above 2 first: a source may have the number of another target.
        copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in sources]
        for target, copy in enumerate(copies):
            os.dup2(copy, target)
            os.close(copy)

    def _restrict(self, cgroup: TaskCgroup, limits: Limits) -> None:
        config = self._config
        for fd in cgroup.procs_fds:
            os.write(fd, b"0")
        with contextlib.suppress(OSError):  # Without it the OOM killer may choose AppWorker.
            fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
            os.write(fd, b"1000")
            os.close(fd)
        inherited.limit_program(limits)
        os.umask(inherited.UMASK)
        if config.run_uid >= 0:
            # A change of user does this as well, except a change to root.
            prctl.deny_memory_access()
            with contextlib.suppress(PermissionError):  # Without CAP_SETPCAP no exec can gain any either.
                prctl.limit_bounding_set()
            os.setgroups([])
            os.setresgid(config.run_gid, config.run_gid, config.run_gid)
            os.setresuid(config.run_uid, config.run_uid, config.run_uid)
            prctl.limit_capabilities()
        prctl.set_no_new_privileges()
        if self._seccomp is not None:
            self._seccomp.install()


def run_as_child(run: Callable[[], None]) -> NoReturn:
    """Run ``run`` in a child with reset signals, in its own session, and exit: 126 or 127 on an error."""
    code = CANNOT_EXEC
    try:
        signal.set_wakeup_fd(-1)
        for number in _RESET:
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        run()
        code = 0
    except FileNotFoundError as error:
        _write_error(error)
        code = NOT_FOUND
    except BaseException as error:  # noqa: BLE001  (a child must never return into the parent's loop)
        _write_error(error)
    finally:
        os._exit(code)


def _write_error(error: BaseException) -> None:
    text = f": {error}"
    if isinstance(error, OSError) and error.filename is not None:
        text = f" {os.fsdecode(error.filename)}: {error.strerror}"
    with contextlib.suppress(OSError):
        os.write(2, f"galaxy: cannot start{text}\n".encode(errors="replace"))


def close_all_but(keep: Collection[int]) -> None:
    """Close every descriptor from 3 on that is not in ``keep``."""
    first = 3
    for fd in sorted(fd for fd in set(keep) if fd >= 3):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, _FDS_MAX)


def status_of(wait_status: int) -> tuple[int | None, int | None, bool]:
    """Return (exit code, signal, core dumped) of a wait status; one of code and signal is None."""
    if os.WIFSIGNALED(wait_status):
        return None, os.WTERMSIG(wait_status), os.WCOREDUMP(wait_status)
    return os.WEXITSTATUS(wait_status), None, False


def exit_code(wait_status: int) -> int:
    """Return the shell's exit code of a wait status: 128 + N for signal N."""
    code, number, _ = status_of(wait_status)
    return code if code is not None else 128 + (number or 0)
