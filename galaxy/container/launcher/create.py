"""Creating one container: its directory, cgroups, socket and first process, in the fastest order.

The launcher sends the plan to a warm process first, which mounts volumes and enters its root while the
launcher creates the cgroups.
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
from galaxy.container.fs.prepared_roots import PreparedRoots
from galaxy.container.kernel import seccomp, syscalls
from galaxy.container.launcher import init_process
from galaxy.container.launcher.directory import PLAN_NAME, SOCKET_NAME, make_directory
from galaxy.container.launcher.plan import FULL, USERNS, LaunchPlan
from galaxy.container.launcher.protocol import ContainerRef
from galaxy.container.launcher.userns import fork_userns
from galaxy.container.launcher.warm_pool import WarmPool, WarmProcess
from galaxy.container.launcher.warm_process import RootPlan
from galaxy.container.limits import limits_of
from galaxy.container.net import namespace
from galaxy.container.record_file import save_record

_BACKLOG: Final = 4


@dataclass(kw_only=True)
class _Descriptors:
    """Descriptors of a creation in progress; the launcher keeps only ``status`` afterwards."""

    status: int = -1
    go: int = -1
    rest: list[int] = field(default_factory=list)

    def close(self) -> None:
        for fd in (*self.rest, self.go, self.status):
            if fd >= 0:
                os.close(fd)


class ContainerCreator:
    """Creates first processes; holds what is prepared for all of them."""

    def __init__(
        self,
        state: str,
        *,
        mode: str,
        cgroups: CgroupTree | None,
        roots: PreparedRoots | None,
        entry: init_process.InitEntry,
    ) -> None:
        self._templates = f"{state}/templates"
        self._cgroups = cgroups
        self._roots = roots
        self._entry = entry
        self._seccomp = b64encode(seccomp.program()).decode()
        self._pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._warm_pool = WarmPool(entry) if mode == FULL else None

    def create(self, plan: LaunchPlan, record_init: Callable[[int, int], None]) -> None:
        """Create the container of a checked plan.

        ``record_init(pid, status_fd)`` records the identity of PID 1 before PID 1 may run anything; it
        owns ``status_fd`` from then on, even if it raises.

        Raises:
            GalaxyError, OSError: something could not be created; the caller removes the rest.
        """
        make_directory(plan.directory, ContainerRef(container=plan.container, incarnation=plan.incarnation))
        os.makedirs(plan.log_directory, mode=0o700, exist_ok=True)
        root = self._root_of(plan)
        warm = self._start_warm_process(plan, root)
        opened = _Descriptors()
        try:
            setup = self._open(plan, root, opened)
            pid = self._hand_over(warm, setup)
            if not pid:
                if warm is not None and self._warm_pool is not None:
                    self._warm_pool.on_unused_death(warm)
                    _discard_warm_process(warm, plan)
                pid = self._fork(plan)
            if pid == 0:
                try:
                    os.close(opened.go)  # With its own copy, PID 1 would not notice the launcher's death.
                    os.close(opened.status)
                    init_process.become_init(setup)
                finally:
                    os._exit(1)  # Whatever fails, this child never runs the launcher's code.
            status, opened.status = opened.status, -1
            record_init(pid, status)
            os.write(opened.go, init_process.GO)
        finally:
            opened.close()
            if warm is not None:
                warm.sock.close()
        save_record(f"{plan.directory}/{PLAN_NAME}", plan)

    def idle_work_s(self, now: float) -> float | None:
        """Return in how many seconds a warm process should be created, or None."""
        return None if self._warm_pool is None else self._warm_pool.wait_s(now)

    def prepare(self) -> None:
        """Create one warm process; called when the launcher is idle."""
        if self._warm_pool is not None:
            self._warm_pool.add()

    def on_child_exit(self, pid: int, status: int) -> None:
        """Handle the exit of a child that is not the PID 1 of a container."""
        if self._warm_pool is not None:
            self._warm_pool.on_child_exit(pid, status)

    def on_init_death(self) -> None:
        """Handle a PID 1 that died before it was ready, without reporting a cause."""
        if self._warm_pool is not None:
            self._warm_pool.on_init_death()

    def close(self) -> None:
        """End warm processes and unmount prepared roots."""
        if self._warm_pool is not None:
            self._warm_pool.close()
        if self._roots is not None:
            self._roots.close()

    def _open(self, plan: LaunchPlan, root: str, opened: _Descriptors) -> init_process.InitSetup:
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

    def _start_warm_process(self, plan: LaunchPlan, root: str) -> WarmProcess | None:
        """Send the plan to a warm process that is alive; None if there is none or it does not fit."""
        if self._warm_pool is None or plan.mode != FULL or namespace.is_private(plan.demand):
            return None
        root_plan = RootPlan(plan=plan, root=root, templates=self._templates)
        while (warm := self._warm_pool.take(root_plan)) is not None:
            try:
                warm.send_plan(root_plan)
            except OSError:
                self._warm_pool.on_unused_death(warm)
            else:
                return warm
        return None

    def _hand_over(self, warm: WarmProcess | None, setup: init_process.InitSetup) -> int:
        """Give the setup to the warm process that has the plan; return its pid, or 0 without one."""
        if warm is None or self._warm_pool is None:
            return 0
        try:
            warm.hand_over(setup)
        except OSError:
            return 0  # It died meanwhile.
        self._warm_pool.on_used(warm)
        return warm.pid

    def _fork(self, plan: LaunchPlan) -> int:
        if plan.mode == FULL:
            return syscalls.fork_into_pid_namespace(self._pid_namespace)
        if plan.mode == USERNS:
            return fork_userns(private_network=namespace.is_private(plan.demand))
        return os.fork()

    def _root_of(self, plan: LaunchPlan) -> str:
        if plan.mode == FULL and self._roots is not None:
            return self._roots.get(init_process.root_layout_of(plan))
        root = f"{plan.directory}/root"
        os.makedirs(root, exist_ok=True)
        return root


def _discard_warm_process(warm: WarmProcess, plan: LaunchPlan) -> None:
    """Kill a warm process that failed, and remove its volume images; its mounts are gone with it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(warm.pid, signal.SIGKILL)  # An unreaped child: its pid cannot have been reused.
    for index, _ in enumerate(plan.volumes):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(volumes.image_path(plan.directory, index))


def _listen(directory: str) -> int:
    """Return AppWorker's listening socket, bound in ``directory``, whose path may be of any length."""
    folder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET_NAME, dir_fd=folder)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.bind(f"/proc/self/fd/{folder}/{SOCKET_NAME}")
            sock.listen(_BACKLOG)
            return sock.detach()
    finally:
        os.close(folder)
