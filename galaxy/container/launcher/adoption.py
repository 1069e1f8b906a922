"""Find out what happened to a container of an earlier launcher, from its directory and /proc."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from galaxy.container.kernel import processes
from galaxy.container.launcher.directory import END_RECORD, INIT_RECORD
from galaxy.container.launcher.entry import ContainerEntry, EntryPhase
from galaxy.container.launcher.protocol import Ended, InitRecord
from galaxy.container.record_file import load_record


def adopt(entry: ContainerEntry, directory: str, *, boot: str, ended: Callable[[int], None]) -> None:
    """Make ``entry`` RUNNING with an open pidfd, or ENDED with its recorded end.

    ``ended`` is called with the exit status of a PID 1 that died while this process was becoming another
    release: it is still a child of this process, and its end was not recorded.

    Raises:
        OSError: no free descriptor.
    """
    record = load_record(f"{directory}/{INIT_RECORD}", InitRecord)
    known_end = load_record(f"{directory}/{END_RECORD}", Ended)
    entry.phase = EntryPhase.ENDED
    entry.ended = known_end or Ended(container=entry.container, incarnation=entry.incarnation)
    if record is None:
        return
    entry.mode = record.mode
    if known_end is not None or record.boot != boot:
        return
    # The pidfd is opened before the start time is compared. If the time matches, the pidfd cannot be of
    # another process that got the same pid.
    with contextlib.suppress(ProcessLookupError):
        entry.pidfd = os.pidfd_open(record.pid)
    if not record.start_ticks or processes.start_ticks(record.pid) != record.start_ticks:
        entry.close_pidfd()
        status = _reap(record.pid)
        if status is not None:
            ended(status)
        return
    entry.phase, entry.ended = EntryPhase.RUNNING, None
    entry.pid, entry.start_ticks = record.pid, record.start_ticks
    entry.is_child = processes.parent(record.pid) == os.getpid()


def _reap(pid: int) -> int | None:
    """Return the exit code, or minus the signal, of a dead child of this process; None if it is no child."""
    with contextlib.suppress(ChildProcessError):
        reaped, status = os.waitpid(pid, os.WNOHANG)
        if reaped:
            return os.waitstatus_to_exitcode(status)
    return None
