"""Every container of one launcher: being made, living, ended, being destroyed.

The directory of a container is the durable truth: ``container_key.json`` says who PID 1 is before it may
act, ``ended.json`` how it ended. Cgroups without a directory are the remains of a birth that was
cut short, and are removed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import galaxy
from galaxy.container.cgroup.tree import CgroupTree
from galaxy.container.fs import garbage
from galaxy.container.fs.prepared_roots import Views
from galaxy.container.kernel import processes
from galaxy.container.launcher import init_process, process_group
from galaxy.container.launcher.create import ContainerCreator
from galaxy.container.launcher.plan import (
    FULL,
    PROCESS,
    LaunchPlan,
    check_plan,
    container_key,
    is_key,
    split_key,
)
from galaxy.container.launcher.protocol import (
    Destroyed,
    Ended,
    FromLauncher,
    Launched,
    LaunchFailed,
    LifeRecord,
    Present,
    Settled,
)
from galaxy.errors import GalaxyError, UsageError
from galaxy.model.base import WIRE_VERSION
from galaxy.model.messages.container import Reason
from galaxy.statemachine.backoff import Backoff

BIRTH_TIMEOUT_S: Final = 60.0
_RETRY_S: Final = 0.005
_RETRY_MAX_S: Final = 1.0


class EntryPhase(Enum):
    """Where a life is, as its launcher sees it."""

    MAKING = "making"
    LIVING = "living"
    ENDED = "ended"
    KILLING = "killing"
    REMOVING = "removing"


@dataclass(kw_only=True)
class ContainerEntry:
    """One container in the launcher's hands; descriptors are -1 when closed."""

    container: str
    incarnation: int
    mode: str
    phase: EntryPhase
    pid: int = 0
    start_ticks: int = 0
    pidfd: int = -1
    status_fd: int = -1
    ours: bool = True
    """We are its parent; otherwise it was adopted, and only its end can be seen."""
    ended: Ended | None = None
    failed: bool = False
    """It never lived: nobody waits for a ``Destroyed``."""
    asked: bool = False
    """Somebody asked for its destruction."""
    deadline: float = field(default=0.0)
    backoff: Backoff = field(default_factory=lambda: Backoff(_RETRY_S, _RETRY_MAX_S))

    @property
    def key(self) -> str:
        return container_key(self.container, self.incarnation)


def _ignore(_: object) -> None:
    return


class ContainerTable:
    """Makes, watches, and removes; tells its launcher what happened through ``tell``."""

    def __init__(
        self,
        state: str,
        *,
        mode: str,
        cgroup_root: str,
        views: Views | None,
        entry: init_process.InitEntry,
    ) -> None:
        self._state = state
        self._mode = mode
        self._cgroup_root = cgroup_root
        self._held: dict[str, ContainerEntry] = {}
        self._by_pid: dict[int, ContainerEntry] = {}
        self._by_fd: dict[int, ContainerEntry] = {}
        self._boot = processes.boot_id()
        self._cgroups: CgroupTree | None = None
        self.littered = True
        """There may be garbage to delete."""
        self.tell: Callable[[FromLauncher], None] = _ignore
        self.watch: Callable[[int], None] = _ignore
        self.unwatch: Callable[[int], None] = _ignore
        for name in ("c", "logs"):
            os.makedirs(f"{state}/{name}", mode=0o700, exist_ok=True)
        if mode == FULL:
            self._cgroups = CgroupTree.of_host(cgroup_root)
            self._cgroups.prepare()
        self._maker = ContainerCreator(state, mode=mode, cgroups=self._cgroups, views=views, entry=entry)

    @property
    def count(self) -> int:
        return len(self._held)

    def snapshot(self) -> Iterator[FromLauncher]:
        """Say what is there to an agent that has just come."""
        for held in list(self._held.values()):
            if held.phase is EntryPhase.LIVING:
                yield Present(
                    container=held.container,
                    incarnation=held.incarnation,
                    pid=held.pid,
                    start_ticks=held.start_ticks,
                )
            elif held.phase is EntryPhase.ENDED and held.ended is not None:
                yield held.ended
        yield Settled(pid=os.getpid(), wire=WIRE_VERSION, release=galaxy.__version__)

    def adopt(self) -> None:
        """Find again what an earlier launcher made; remove what it had only begun."""
        base = f"{self._state}/c"
        for key in sorted(os.listdir(base)):
            try:
                container, incarnation = split_key(key)
            except ValueError:
                garbage.discard(f"{base}/{key}", f"{self._state}/garbage")
                continue
            self._adopt_one(container, incarnation, f"{base}/{key}")
        if self._cgroups is not None:
            for key in self._cgroups.names():
                if key not in self._held:
                    container, incarnation = split_key(key)
                    self._begin_removal(self._new(container, incarnation, EntryPhase.REMOVING, failed=True))

    def launch(self, plan: LaunchPlan) -> None:
        """Make a container, unless it is there or being made."""
        held = self._held.get(plan.key)
        if held is not None:
            if held.phase is EntryPhase.LIVING:
                self._tell_launched(held)
            elif held.phase is EntryPhase.ENDED and held.ended is not None:
                self.tell(held.ended)
            return
        try:
            check_plan(plan)  # Before anything is called after it, here or on a disk.
        except UsageError as error:
            reason = Reason(code="launch-failed", message=_words(error))
            self.tell(LaunchFailed(container=plan.container, incarnation=plan.incarnation, reason=reason))
            return
        held = self._new(plan.container, plan.incarnation, EntryPhase.MAKING, mode=plan.mode)
        try:
            self._maker.make(plan, lambda pid, status: self._born(held, pid, status))
        except (GalaxyError, OSError) as error:
            self._fail(held, _words(error))

    def destroy(self, container: str, incarnation: int) -> None:
        """End a life and remove all of it; its ``Destroyed`` comes when nothing is left."""
        key = container_key(container, incarnation)
        held = self._held.get(key)
        if held is None:
            if not is_key(container, incarnation) or not self._remains(key):
                self.tell(Destroyed(container=container, incarnation=incarnation))
                return
            held = self._new(container, incarnation, EntryPhase.REMOVING)
        held.asked = True
        if held.phase in (EntryPhase.MAKING, EntryPhase.LIVING):
            self._kill(held)
        elif held.phase is EntryPhase.ENDED or (held.phase is EntryPhase.REMOVING and not held.deadline):
            self._begin_removal(held)

    def reaped(self, pid: int, status: int) -> None:
        """Take in that a child has ended, with its exit code or minus its signal."""
        held = self._by_pid.get(pid)
        if held is not None and held.ours:
            self._ended(held, status)
        else:
            self._maker.reaped(pid, status)

    def woken(self, fd: int) -> None:
        """Take in that a birth reports, or that an adopted PID 1 has ended."""
        held = self._by_fd.get(fd)
        if held is None:
            return
        if fd == held.status_fd:
            self._hear_birth(held)
        elif fd == held.pidfd:
            self._ended(held, None)

    def idle_work_s(self, now: float) -> float | None:
        """Return in how many seconds there is something to prepare when there is nothing else, or None."""
        return self._maker.idle_work_s(now)

    def prepare(self) -> None:
        """Do one piece of that work."""
        self._maker.prepare()

    def next_deadline(self, now: float) -> float | None:
        """Return how many seconds from ``now`` something is due, or None."""
        due = [held.deadline for held in self._held.values() if held.deadline]
        return max(0.0, min(due) - now) if due else None

    def retry(self, now: float) -> None:
        """Try again what is due: removals that were refused, births that take too long."""
        for held in [h for h in self._held.values() if h.deadline and h.deadline <= now]:
            if held.phase is EntryPhase.MAKING:
                self._fail(held, f"it did not come to life within {BIRTH_TIMEOUT_S:.0f} s")
            elif held.phase is EntryPhase.KILLING:
                self._strike(held)
            else:
                self._remove(held)

    @property
    def being_made(self) -> bool:
        """Say whether a birth is under way, which only we can see through."""
        return any(held.phase is EntryPhase.MAKING for held in self._held.values())

    def let_go(self) -> None:
        """Take down what only this program of ours can use: spares and prepared roots.

        Ends that a full disk did not take are written again: our memory of them goes too.
        """
        for held in self._held.values():
            if held.phase is EntryPhase.ENDED and held.ended is not None and held.ended.status is not None:
                self._keep_end(held, held.ended)
        self._maker.close()

    def close(self) -> None:
        """Remove what was there for all containers together."""
        self._maker.close()
        if self._cgroups is not None:
            self._cgroups.remove_root()

    # ---- making

    def _born(self, held: ContainerEntry, pid: int, status_fd: int) -> None:
        """Write down who the new first process is; it waits for that."""
        held.pid, held.status_fd = pid, status_fd
        self._by_pid[pid] = held
        self._by_fd[status_fd] = held
        self.watch(status_fd)
        held.pidfd = os.pidfd_open(pid)
        held.start_ticks = processes.start_ticks(pid)
        held.deadline = time.monotonic() + BIRTH_TIMEOUT_S
        record = LifeRecord(
            container=held.container,
            incarnation=held.incarnation,
            pid=pid,
            start_ticks=held.start_ticks,
            boot=self._boot,
            mode=held.mode,
            cgroup_root=self._cgroup_root,
        )
        processes.keep(f"{self._directory(held.key)}/life.json", record)

    def _hear_birth(self, held: ContainerEntry) -> None:
        said = os.read(held.status_fd, 4096)
        self._close_status(held)
        if held.phase is not EntryPhase.MAKING:
            return
        if said == init_process.READY:
            held.phase, held.deadline = EntryPhase.LIVING, 0.0
            self._tell_launched(held)
        elif said.startswith(init_process.FAILED):
            self._fail(held, said[1:].decode(errors="replace"))
        else:
            self._maker.stillborn()
            self._fail(held, "its first process died before it was ready")

    def _fail(self, held: ContainerEntry, why: str) -> None:
        reason = Reason(code="launch-failed", message=f"cannot make container {held.key}: {why}")
        self.tell(LaunchFailed(container=held.container, incarnation=held.incarnation, reason=reason))
        held.failed = True
        self._kill(held)

    # ---- ending

    def _ended(self, held: ContainerEntry, status: int | None) -> None:
        self._by_pid.pop(held.pid, None)
        if held.status_fd >= 0:
            self._hear_birth(held)  # Its last words may still be on their way.
        oom = self._was_oom(held.key)
        self._close(held)
        held.pid = 0
        if held.phase is EntryPhase.KILLING:
            self._begin_removal(held)
        elif held.phase is EntryPhase.LIVING:
            held.phase = EntryPhase.ENDED
            held.ended = Ended(container=held.container, incarnation=held.incarnation, status=status, oom=oom)
            self._keep_end(held, held.ended)
            self.tell(held.ended)

    def _keep_end(self, held: ContainerEntry, ended: Ended) -> None:
        with contextlib.suppress(OSError):  # A full disk: we know it, while we live.
            processes.keep(f"{self._directory(held.key)}/ended.json", ended)

    def _was_oom(self, key: str) -> bool:
        with contextlib.suppress(OSError):
            return self._cgroups is not None and self._cgroups.oom_kills(key) > 0
        return False

    def _kill(self, held: ContainerEntry) -> None:
        if not held.pid:
            self._begin_removal(held)
            return
        held.phase = EntryPhase.KILLING
        self._strike(held)

    def _strike(self, held: ContainerEntry) -> None:
        """Kill everything there is; the end of PID 1 is heard later. Struck again if it takes long."""
        if held.mode == PROCESS:
            _signal(held, signal.SIGSTOP)  # Else it would start its programs anew.
            process_group.kill_below(held.pid)
        if self._cgroups is not None:
            with contextlib.suppress(OSError):
                self._cgroups.kill(held.key)
        _signal(held, signal.SIGKILL)
        self._later(held)

    def _begin_removal(self, held: ContainerEntry) -> None:
        held.phase = EntryPhase.REMOVING
        held.backoff.reset()
        self._remove(held)

    def _remove(self, held: ContainerEntry) -> None:
        if held.mode == PROCESS and process_group.kill_strays(self._directory(held.key)):
            self._later(held)
            return
        if self._cgroups is not None:
            with contextlib.suppress(OSError):
                if self._cgroups.pids(held.key):
                    self._cgroups.kill(held.key)
            if not self._cgroups.remove(held.key):
                self._later(held)  # The kernel has not buried the last of its processes yet.
                return
        try:
            garbage.discard(self._directory(held.key), f"{self._state}/garbage")
        except OSError:
            self._later(held)  # A full disk may refuse even that; what is garbage already makes room.
            return
        self.littered = True
        self._close(held)
        del self._held[held.key]
        if held.asked or not held.failed:
            self.tell(Destroyed(container=held.container, incarnation=held.incarnation))

    # ---- adopting

    def _adopt_one(self, container: str, incarnation: int, directory: str) -> None:
        record = processes.recall(f"{directory}/life.json", LifeRecord)
        ended = processes.recall(f"{directory}/ended.json", Ended)
        held = self._new(container, incarnation, EntryPhase.ENDED, mode=record.mode if record else self._mode)
        held.ended = ended or Ended(container=container, incarnation=incarnation)
        if record is None or ended is not None or record.boot != self._boot:
            return
        if not record.start_ticks or processes.start_ticks(record.pid) != record.start_ticks:
            self._bury(held, record)
            return
        try:
            held.pidfd = os.pidfd_open(record.pid)
        except ProcessLookupError:
            return
        if processes.start_ticks(record.pid) != record.start_ticks:
            os.close(held.pidfd)
            held.pidfd = -1
            return  # It ended, and its number was given away, between the two looks.
        held.phase, held.ended = EntryPhase.LIVING, None
        held.pid, held.start_ticks = record.pid, record.start_ticks
        held.ours = processes.parent(record.pid) == os.getpid()
        if held.ours:  # We made it ourselves, in our life as another release.
            self._by_pid[held.pid] = held
            return
        self._by_fd[held.pidfd] = held
        self.watch(held.pidfd)

    def _bury(self, held: ContainerEntry, record: LifeRecord) -> None:
        """Learn how a child ended while we were becoming another release; other ends nobody knows."""
        with contextlib.suppress(ChildProcessError):
            pid, status = os.waitpid(record.pid, os.WNOHANG)
            if pid:
                held.ended = Ended(
                    container=held.container,
                    incarnation=held.incarnation,
                    status=os.waitstatus_to_exitcode(status),
                    oom=self._was_oom(held.key),
                )
                self._keep_end(held, held.ended)

    # ---- small things

    def _new(
        self, container: str, incarnation: int, phase: EntryPhase, *, mode: str = "", failed: bool = False
    ) -> ContainerEntry:
        held = ContainerEntry(
            container=container, incarnation=incarnation, mode=mode or self._mode, phase=phase, failed=failed
        )
        self._held[held.key] = held
        return held

    def _tell_launched(self, held: ContainerEntry) -> None:
        self.tell(
            Launched(
                container=held.container,
                incarnation=held.incarnation,
                pid=held.pid,
                start_ticks=held.start_ticks,
            )
        )

    def _later(self, held: ContainerEntry) -> None:
        held.deadline = time.monotonic() + held.backoff.next_s()

    def _close_status(self, held: ContainerEntry) -> None:
        if held.status_fd >= 0:
            self.unwatch(held.status_fd)
            del self._by_fd[held.status_fd]
            os.close(held.status_fd)
            held.status_fd = -1

    def _close(self, held: ContainerEntry) -> None:
        self._close_status(held)
        if held.pidfd >= 0:
            if self._by_fd.pop(held.pidfd, None) is not None:
                self.unwatch(held.pidfd)
            os.close(held.pidfd)
            held.pidfd = -1

    def _remains(self, key: str) -> bool:
        if os.path.lexists(self._directory(key)):
            return True
        return self._cgroups is not None and key in self._cgroups.names()

    def _directory(self, key: str) -> str:
        return f"{self._state}/c/{key}"


def _signal(held: ContainerEntry, number: int) -> None:
    if held.pidfd >= 0:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(held.pidfd, number)


def _words(error: GalaxyError | OSError) -> str:
    if isinstance(error, GalaxyError):
        return "; ".join((error.message, *error.details))
    return f"{error.strerror} ({error.filename})" if error.filename else str(error)
