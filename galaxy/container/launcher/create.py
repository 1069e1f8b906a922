"""Making one container: its directory, cgroups, socket and first process, in the order that is quickest.

A spare is told the plan first: it mounts volumes and takes its root while the cgroups are made here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from galaxy.container.cgroup.tree import CgroupTree
from galaxy.container.fs import volumes
from galaxy.container.fs.prepared_roots import Views
from galaxy.container.kernel import processes, seccomp, syscalls
from galaxy.container.launcher import init_process
from galaxy.container.launcher.plan import FULL, USERNS, LaunchPlan, limits_of
from galaxy.container.launcher.warm_pool import Place, WarmPool, WarmProcess

SOCKET_NAME: Final = "sock"
PLAN_NAME: Final = "plan.json"


@dataclass(kw_only=True)
class _Opened:
    """Descriptors of a birth under way; the launcher keeps none of them but ``status``."""

    status: int = -1
    go: int = -1
    rest: list[int] = field(default_factory=list)

    def close(self) -> None:
        for fd in (*self.rest, self.go):
            if fd >= 0:
                os.close(fd)


class ContainerCreator:
    """Makes first processes; what is prepared for all of them is here."""

    def __init__(
        self,
        state: str,
        *,
        mode: str,
        cgroups: CgroupTree | None,
        views: Views | None,
        entry: init_process.InitEntry,
    ) -> None:
        self._templates = f"{state}/templates"
        self._cgroups = cgroups
        self._views = views
        self._entry = entry
        self._seccomp = b64encode(seccomp.program()).decode()
        self._pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._spares = WarmPool(entry) if mode == FULL else None

    def idle_work_s(self, now: float) -> float | None:
        """Return in how many seconds there is something to prepare, None if there is not."""
        return None if self._spares is None else self._spares.wait_s(now)

    def prepare(self) -> None:
        """Make one spare; called when there is nothing else to do."""
        if self._spares is not None:
            self._spares.make()

    def reaped(self, pid: int, status: int) -> None:
        """Take in that a child which is no container's has died."""
        if self._spares is not None:
            self._spares.forget(pid, status)

    def stillborn(self) -> None:
        """Take in that a first process died before it was ready, and without a word."""
        if self._spares is not None:
            self._spares.stillborn()

    def close(self) -> None:
        if self._spares is not None:
            self._spares.close()
        if self._views is not None:
            self._views.close()

    def make(self, plan: LaunchPlan, born: Callable[[int, int], None]) -> None:
        """Make a container of a checked plan; ``born(pid, status_fd)`` writes it down before it may act.

        Raises:
            GalaxyError, OSError: what could not be made; what was made is the caller's to remove.
        """
        os.makedirs(plan.directory, mode=0o700, exist_ok=True)
        os.makedirs(plan.log_directory, mode=0o700, exist_ok=True)
        root = self._root_of(plan)
        spare = self._tell_spare(plan, root)
        opened = _Opened()
        try:
            what = self._open(plan, root, opened)
            pid = self._hand_over(spare, what)
            if not pid:
                if spare is not None and self._spares is not None:
                    self._spares.lost(spare)
                    _forget_spare(spare, plan)
                pid = self._fork(plan)
            if pid == 0:
                os.close(opened.go)  # Else our own copy would hide the launcher's death.
                os.close(opened.status)
                init_process.become_init(what)
            status, opened.status = opened.status, -1  # Theirs from here on, whatever comes of it.
            born(pid, status)
            os.write(opened.go, init_process.GO)
        finally:
            opened.close()
            if opened.status >= 0:
                os.close(opened.status)
            if spare is not None:
                spare.sock.close()
        processes.keep(f"{plan.directory}/{PLAN_NAME}", plan)

    def _open(self, plan: LaunchPlan, root: str, opened: _Opened) -> init_process.InitSetup:
        cgroups = None
        if self._cgroups is not None:
            limits = limits_of(plan.demand)
            self._cgroups.make(plan.key, limits)
            cgroups = self._cgroups.open(plan.key, limits)
            opened.rest += cgroups.fds
        listen = _listen(plan.directory)
        opened.rest.append(listen)
        log = os.open(plan.log_directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        opened.rest.append(log)
        opened.status, status = os.pipe2(os.O_CLOEXEC)
        opened.rest.append(status)
        go, opened.go = os.pipe2(os.O_CLOEXEC)
        opened.rest.append(go)
        return init_process.InitSetup(
            plan=plan,
            root=root,
            templates=self._templates,
            cgroups=cgroups,
            listen_fd=listen,
            log_fd=log,
            status_fd=status,
            go_fd=go,
            seccomp_program=self._seccomp,
            entry=self._entry,
        )

    def _tell_spare(self, plan: LaunchPlan, root: str) -> WarmProcess | None:
        if self._spares is None or plan.mode != FULL or plan.demand.network == "private":
            return None
        place = Place(plan=plan, root=root, templates=self._templates)
        while (spare := self._spares.take(place)) is not None:
            try:
                spare.tell(place)
            except OSError:
                self._spares.lost(spare)  # It is dead: the next one, or none.
            else:
                return spare
        return None

    def _hand_over(self, spare: WarmProcess | None, what: init_process.InitSetup) -> int:
        """Give a birth to the spare that knows its plan; return its pid, or 0 without such a one."""
        if spare is None or self._spares is None:
            return 0
        try:
            spare.hand_over(what)
        except OSError:
            return 0  # It has died meanwhile.
        self._spares.used(spare)
        return spare.pid

    def _fork(self, plan: LaunchPlan) -> int:
        if plan.mode == FULL:
            return syscalls.fork_into_pid_namespace(self._pid_namespace)
        if plan.mode == USERNS:
            return init_process.fork_userns(private_network=plan.demand.network == "private")
        return os.fork()

    def _root_of(self, plan: LaunchPlan) -> str:
        if plan.mode == FULL and self._views is not None:
            return self._views.get(init_process.view_of(plan))
        root = f"{plan.directory}/root"
        os.makedirs(root, exist_ok=True)
        return root


def _forget_spare(spare: WarmProcess, plan: LaunchPlan) -> None:
    """Remove what a spare that died on its way has made for ``plan``; what it had mounted died with it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(spare.pid, signal.SIGKILL)  # Our child, unreaped: the pid is still its own.
    for index, _ in enumerate(plan.volumes):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(volumes.image_path(plan.directory, index))


def _listen(directory: str) -> int:
    """Bind AppWorker's socket in ``directory``, however long its path is; return it listening."""
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET_NAME, dir_fd=place)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.bind(f"/proc/self/fd/{place}/{SOCKET_NAME}")
            sock.listen(4)
            return sock.detach()
    finally:
        os.close(place)
