"""Every container of one launcher: creation, adoption, end and removal.

A container's directory is the durable record: ``init.json`` identifies PID 1 and is written before PID 1
may run anything, ``ended.json`` says how it ended. Cgroups that carry this launcher's mark and have no
directory are left from a creation that was interrupted, and are removed. Directories and cgroups that
Galaxy did not make, whatever their names, are left alone.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Final

import galaxy
from galaxy.container.cgroup.tree import CgroupTree
from galaxy.container.fs.prepared_roots import PreparedRoots
from galaxy.container.kernel import processes
from galaxy.container.launcher import init_process
from galaxy.container.launcher.adoption import adopt
from galaxy.container.launcher.create import ContainerCreator
from galaxy.container.launcher.directory import END_RECORD, INIT_RECORD, owner_of
from galaxy.container.launcher.entry import ContainerEntry, EntryPhase
from galaxy.container.launcher.log import log
from galaxy.container.launcher.plan import FULL, LaunchPlan, check_plan, is_valid_key
from galaxy.container.launcher.protocol import (
    Destroyed,
    Ended,
    FromLauncher,
    InitRecord,
    Launched,
    LaunchFailed,
    Present,
    SnapshotComplete,
)
from galaxy.container.launcher.remains import Remains
from galaxy.container.record_file import save_record
from galaxy.errors import GalaxyError, UsageError
from galaxy.ids import container_key, parse_container_key
from galaxy.model.base import WIRE_VERSION
from galaxy.model.messages.container import Reason

CREATE_TIMEOUT_S: Final = 60.0
_REPORT_BYTES_MAX: Final = 4096


def _ignore(_: object) -> None:
    return


class ContainerTable:
    """Creates, watches and removes containers; reports to its launcher through ``report``."""

    def __init__(
        self,
        state: str,
        *,
        mode: str,
        cgroup_root: str,
        roots: PreparedRoots | None,
        entry: init_process.InitEntry,
    ) -> None:
        self._state = state
        self._mode = mode
        self._cgroup_root = cgroup_root
        self._entries: dict[str, ContainerEntry] = {}
        self._by_pid: dict[int, ContainerEntry] = {}
        self._by_fd: dict[int, ContainerEntry] = {}
        self._boot = processes.boot_id()
        self._cgroups: CgroupTree | None = None
        self.has_garbage = True
        """There may be garbage to delete. Set here, cleared by the launcher."""
        self.report: Callable[[FromLauncher], None] = _ignore
        self.watch: Callable[[int], None] = _ignore
        self.unwatch: Callable[[int], None] = _ignore
        for name in ("c", "logs"):
            os.makedirs(f"{state}/{name}", mode=0o700, exist_ok=True)
        if mode == FULL:
            self._cgroups = CgroupTree.of_host(cgroup_root, owner=state)
            self._cgroups.prepare()
        self._remains = Remains(state, self._cgroups)
        self._creator = ContainerCreator(state, mode=mode, cgroups=self._cgroups, roots=roots, entry=entry)

    @property
    def count(self) -> int:
        """How many containers there are, in any phase."""
        return len(self._entries)

    def snapshot(self) -> Iterator[FromLauncher]:
        """Yield the messages that describe every container to an agent that has just connected."""
        for entry in list(self._entries.values()):
            if entry.phase is EntryPhase.RUNNING:
                yield Present(
                    container=entry.container,
                    incarnation=entry.incarnation,
                    pid=entry.pid,
                    start_ticks=entry.start_ticks,
                )
            elif entry.phase is EntryPhase.ENDED and entry.ended is not None:
                yield entry.ended
        yield SnapshotComplete(pid=os.getpid(), wire=WIRE_VERSION, release=galaxy.__version__)

    def adopt(self) -> None:
        """Take over the containers of an earlier launcher, and remove those it had not finished creating."""
        base = f"{self._state}/c"
        for key in sorted(os.listdir(base)):
            parsed = parse_container_key(key)
            if parsed is None or owner_of(f"{base}/{key}") is None:
                log(f"event=directory.foreign path={f'{base}/{key}'!r} text='not of Galaxy; left alone'")
                continue
            self._adopt_one(*parsed)
        if self._cgroups is None:
            return
        for entry in self._entries.values():
            self._cgroups.claim(entry.key)
        for key in self._cgroups.container_keys():
            parsed = parse_container_key(key)
            if key not in self._entries and parsed is not None:
                self._begin_removal(self._new(*parsed, EntryPhase.REMOVING, failed=True))

    def launch(self, plan: LaunchPlan) -> None:
        """Create a container, unless it exists or is being created; its state is then reported again."""
        entry = self._entries.get(plan.key)
        if entry is not None:
            if entry.phase is EntryPhase.RUNNING:
                self._report_launched(entry)
            elif entry.phase is EntryPhase.ENDED and entry.ended is not None:
                self.report(entry.ended)
            return
        try:
            check_plan(plan)  # Before any file or directory gets a name from it.
        except UsageError as error:
            reason = Reason(code="launch-failed", message=_describe(error))
            self.report(LaunchFailed(container=plan.container, incarnation=plan.incarnation, reason=reason))
            return
        entry = self._new(plan.container, plan.incarnation, EntryPhase.CREATING, mode=plan.mode)
        try:
            self._creator.create(plan, lambda pid, status_fd: self._record_init(entry, pid, status_fd))
        except Exception as error:  # noqa: BLE001  (a plan that cannot be executed fails alone)
            self._fail(entry, _describe(error))

    def destroy(self, container: str, incarnation: int) -> None:
        """End a container and remove everything of it; ``Destroyed`` is reported when nothing is left."""
        key = container_key(container, incarnation)
        entry = self._entries.get(key)
        if entry is None:
            if not is_valid_key(container, incarnation) or not self._remains.exist(key):
                self.report(Destroyed(container=container, incarnation=incarnation))
                return
            entry = self._new(container, incarnation, EntryPhase.REMOVING)
        entry.destroy_requested = True
        if entry.phase in (EntryPhase.CREATING, EntryPhase.RUNNING):
            self._kill(entry)
        elif entry.phase is EntryPhase.ENDED or (entry.phase is EntryPhase.REMOVING and not entry.deadline):
            self._begin_removal(entry)

    def on_child_exit(self, pid: int, status: int) -> None:
        """Handle the exit of a child process; ``status`` is its exit code, or minus its signal."""
        entry = self._by_pid.get(pid)
        if entry is not None and entry.is_child:
            self._on_end(entry, status)
        else:
            self._creator.on_child_exit(pid, status)

    def on_readable(self, fd: int) -> None:
        """Handle a report of a new PID 1, or the end of an adopted one."""
        entry = self._by_fd.get(fd)
        if entry is None:
            return
        if fd == entry.status_fd:
            self._read_report(entry)
        elif fd == entry.pidfd:
            self._on_end(entry, None)

    def idle_work_s(self, now: float) -> float | None:
        """Return in how many seconds an idle launcher has something to prepare, or None."""
        return self._creator.idle_work_s(now)

    def prepare(self) -> None:
        """Do one step of the work that ``idle_work_s`` announces."""
        self._creator.prepare()

    def next_deadline_s(self, now: float) -> float | None:
        """Return in how many seconds ``retry`` has something to do, or None."""
        due = [entry.deadline for entry in self._entries.values() if entry.deadline]
        return max(0.0, min(due) - now) if due else None

    def retry(self, now: float) -> None:
        """Do what is due: repeat removals and kills that are not complete, fail creations that hang."""
        for entry in [each for each in self._entries.values() if each.deadline and each.deadline <= now]:
            try:
                self._retry(entry)
            except Exception as error:  # noqa: BLE001  (the other containers have their turn)
                entry.retry_after(now)
                log(f"event=container.retry-failed container={entry.key!r} cause={error!r}")

    def _retry(self, entry: ContainerEntry) -> None:
        if entry.phase is EntryPhase.CREATING:
            self._fail(entry, f"it was not ready within {CREATE_TIMEOUT_S:.0f} s")
        elif entry.phase is EntryPhase.KILLING:
            self._send_kill(entry)
        else:
            self._remove(entry)

    @property
    def is_creating(self) -> bool:
        """Return whether a creation is in progress, which only this program can complete."""
        return any(entry.phase is EntryPhase.CREATING for entry in self._entries.values())

    def release(self) -> None:
        """Give up what only this program can use (warm processes, prepared roots) before it is replaced.

        Ends that could not be recorded because the disk was full are written again, since the copy in
        memory is lost as well.
        """
        for entry in self._entries.values():
            if entry.phase is EntryPhase.ENDED and entry.ended is not None and entry.ended.status is not None:
                self._save_end(entry, entry.ended)
        self._creator.close()

    def close(self) -> None:
        """Remove what all containers shared."""
        self._creator.close()
        if self._cgroups is not None:
            self._cgroups.remove_root()

    # ---- creating

    def _record_init(self, entry: ContainerEntry, pid: int, status_fd: int) -> None:
        """Record the identity of a new PID 1, which waits for this before it runs anything."""
        entry.pid, entry.status_fd = pid, status_fd
        self._by_pid[pid] = entry
        self._by_fd[status_fd] = entry
        self.watch(status_fd)
        entry.pidfd = os.pidfd_open(pid)
        entry.start_ticks = processes.start_ticks(pid)
        entry.deadline = time.monotonic() + CREATE_TIMEOUT_S
        record = InitRecord(
            container=entry.container,
            incarnation=entry.incarnation,
            pid=pid,
            start_ticks=entry.start_ticks,
            boot=self._boot,
            mode=entry.mode,
            cgroup_root=self._cgroup_root,
        )
        save_record(f"{self._remains.directory(entry.key)}/{INIT_RECORD}", record)

    def _read_report(self, entry: ContainerEntry) -> None:
        report = os.read(entry.status_fd, _REPORT_BYTES_MAX)
        self._close_status(entry)
        if entry.phase is not EntryPhase.CREATING:
            return
        if report == init_process.READY:
            entry.phase, entry.deadline = EntryPhase.RUNNING, 0.0
            self._report_launched(entry)
        elif report.startswith(init_process.FAILED):
            self._fail(entry, report[1:].decode(errors="replace"))
        else:
            self._creator.on_init_death()
            self._fail(entry, "its first process died before it was ready")

    def _fail(self, entry: ContainerEntry, cause: str) -> None:
        reason = Reason(code="launch-failed", message=f"cannot make container {entry.key}: {cause}")
        self.report(LaunchFailed(container=entry.container, incarnation=entry.incarnation, reason=reason))
        entry.failed = True
        self._kill(entry)

    # ---- ending

    def _on_end(self, entry: ContainerEntry, status: int | None) -> None:
        self._by_pid.pop(entry.pid, None)
        if entry.status_fd >= 0:
            self._read_report(entry)  # What it wrote before it died may not have been read yet.
        ended = self._end_of(entry, status)
        self._close(entry)
        entry.pid = 0
        if entry.phase is EntryPhase.KILLING:
            self._begin_removal(entry)
        elif entry.phase is EntryPhase.RUNNING:
            entry.phase, entry.ended = EntryPhase.ENDED, ended
            self._save_end(entry, ended)
            self.report(ended)

    def _end_of(self, entry: ContainerEntry, status: int | None) -> Ended:
        return Ended(
            container=entry.container,
            incarnation=entry.incarnation,
            status=status,
            oom=self._remains.had_oom_kills(entry.key),
        )

    def _save_end(self, entry: ContainerEntry, ended: Ended) -> None:
        with contextlib.suppress(OSError):  # The disk is full; the end is known while this process runs.
            save_record(f"{self._remains.directory(entry.key)}/{END_RECORD}", ended)

    def _kill(self, entry: ContainerEntry) -> None:
        if not entry.pid:
            self._begin_removal(entry)
            return
        entry.phase = EntryPhase.KILLING
        self._send_kill(entry)

    def _send_kill(self, entry: ContainerEntry) -> None:
        """Kill every process of a container, and repeat it until PID 1's exit arrives as an event."""
        self._remains.kill(entry)
        entry.retry_after(time.monotonic())

    def _begin_removal(self, entry: ContainerEntry) -> None:
        entry.phase = EntryPhase.REMOVING
        entry.backoff.reset()
        self._remove(entry)

    def _remove(self, entry: ContainerEntry) -> None:
        if not self._remains.remove(entry):
            entry.retry_after(time.monotonic())
            return
        self.has_garbage = True
        self._close(entry)
        del self._entries[entry.key]
        if entry.destroy_requested or not entry.failed:
            self.report(Destroyed(container=entry.container, incarnation=entry.incarnation))

    # ---- adopting

    def _adopt_one(self, container: str, incarnation: int) -> None:
        entry = self._new(container, incarnation, EntryPhase.ENDED)

        def on_unrecorded_end(status: int) -> None:
            entry.ended = self._end_of(entry, status)
            self._save_end(entry, entry.ended)

        adopt(entry, self._remains.directory(entry.key), boot=self._boot, ended=on_unrecorded_end)
        if entry.phase is not EntryPhase.RUNNING:
            return
        if entry.is_child:  # This process created it before it became another release.
            self._by_pid[entry.pid] = entry
            return
        self._by_fd[entry.pidfd] = entry
        self.watch(entry.pidfd)

    # ---- entries

    def _new(
        self, container: str, incarnation: int, phase: EntryPhase, *, mode: str = "", failed: bool = False
    ) -> ContainerEntry:
        entry = ContainerEntry(
            container=container, incarnation=incarnation, mode=mode or self._mode, phase=phase, failed=failed
        )
        self._entries[entry.key] = entry
        return entry

    def _report_launched(self, entry: ContainerEntry) -> None:
        self.report(
            Launched(
                container=entry.container,
                incarnation=entry.incarnation,
                pid=entry.pid,
                start_ticks=entry.start_ticks,
            )
        )

    def _close_status(self, entry: ContainerEntry) -> None:
        if entry.status_fd >= 0:
            self.unwatch(entry.status_fd)
            del self._by_fd[entry.status_fd]
            os.close(entry.status_fd)
            entry.status_fd = -1

    def _close(self, entry: ContainerEntry) -> None:
        self._close_status(entry)
        if entry.pidfd >= 0 and self._by_fd.pop(entry.pidfd, None) is not None:
            self.unwatch(entry.pidfd)
        entry.close_pidfd()


def _describe(error: Exception) -> str:
    if isinstance(error, GalaxyError):
        return "; ".join((error.message, *error.details))
    if isinstance(error, OSError):
        return f"{error.strerror} ({error.filename})" if error.filename else str(error)
    return f"{type(error).__name__}: {error}"
