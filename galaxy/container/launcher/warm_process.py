"""What runs in a warm process: it gets ready, waits for a plan, and becomes a container's PID 1."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final, NoReturn

from galaxy.container.cgroup.tree import OpenCgroups
from galaxy.container.fs import rootfs
from galaxy.container.kernel import prctl, syscalls
from galaxy.container.launcher import init_process
from galaxy.container.launcher.forker import send_cause
from galaxy.container.launcher.plan import LaunchPlan
from galaxy.container.launcher.prefork import PreforkedChild, prefork_child
from galaxy.errors import GalaxyError
from galaxy.model.base import Struct, decode, encode
from galaxy.model.messages.worker import TaskCgroup, task_fds

WAITING: Final = b"R"
"""Sent by a warm process when it is ready for a plan."""
_HANDOVER_BYTES_MAX: Final = 192 * 1024
_FDS_MAX: Final = 253


class RootPlan(Struct, frozen=True, kw_only=True):
    """First message to a warm process: enough to mount volumes and to enter the root."""

    plan: LaunchPlan
    root: str
    templates: str


class Handover(Struct, frozen=True, kw_only=True):
    """Second message to a warm process; its descriptors are attached in the order of ``handover_fds``."""

    seccomp_program: str
    init: int
    """How many of the descriptors are ``OpenCgroups.init``."""
    shared: int
    tasks: tuple[TaskCgroup, ...]


_EXAMPLE: Final = Handover(
    seccomp_program="AAAA",
    init=1,
    shared=1,
    tasks=(TaskCgroup(name="main", procs_fds=(1,), oom_fd=2, pids_fd=3),),
)


def run_warm_process(example: RootPlan, sock: socket.socket, entry: init_process.InitEntry) -> NoReturn:
    """Prepare for a plan with the same root as ``example``, wait for it, and become its PID 1."""
    root_plan: RootPlan | None = None
    try:
        prctl.set_process_name("galaxy-warm")
        # No descriptor of the launcher may stay open: with a copy of the launcher's end of another warm
        # process' socket, that process would not notice the launcher's death.
        syscalls.close_all_but((0, 1, 2, sock.fileno()))
        init_process.enter_namespaces(private_network=False)
        rootfs.mount_own(example.root)
        prctl.limit_bounding_set(init_process.KEPT_CAPABILITIES)
        prefork = None
        if entry.run_prefork is not None:
            prefork = prefork_child(entry.run_prefork, init_process.KEPT_CAPABILITIES)
        _warm_up(example, entry)
        with contextlib.suppress(BrokenPipeError):  # The launcher has sent everything already and closed.
            sock.send(WAITING, socket.MSG_NOSIGNAL)
        root_plan = decode(_or_exit(receive(sock)[0]), RootPlan)
        failure = None
        try:
            init_process.enter_root(root_plan.plan, root_plan.root, root_plan.templates)
        except (OSError, GalaxyError) as error:
            failure = error  # Reported when there is a status pipe to report it on.
        data, fds = receive(sock)
        sock.close()
        setup = _setup_of(root_plan, decode(_or_exit(data), Handover), fds, entry, prefork)
    except BaseException as error:  # noqa: BLE001 - the last frame of this process
        # With a plan, the failure belongs to that launch, which fails because this process ends.
        if root_plan is not None or not send_cause(sock, error):
            os.write(2, f"event=warm-process.failed cause={str(error)!r}\n".encode())
        os._exit(1)
    init_process.become_init(setup, in_root=True, failure=failure)


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Return the next message and its descriptors; empty when the other end is closed and all is read.

    If the other end was closed with unread data, the first read fails with ECONNRESET, once (unix(7)).
    Earlier messages can still be read after that.
    """
    try:
        data, fds, _, _ = socket.recv_fds(sock, _HANDOVER_BYTES_MAX, _FDS_MAX)
    except ConnectionResetError:
        data, fds, _, _ = socket.recv_fds(sock, _HANDOVER_BYTES_MAX, _FDS_MAX)
    return data, fds


def handover_of(setup: init_process.InitSetup) -> tuple[Handover, list[int]]:
    """Return the second message to a warm process, and its descriptors."""
    cgroups = setup.cgroups or OpenCgroups(init=(), tasks=(), shared=0, fds=[])
    fds = [setup.listen_fd, setup.log_fd, setup.status_fd, setup.go_fd, *cgroups.init]
    fds += [fd for task in cgroups.tasks for fd in task_fds(task) if fd >= 0]
    handover = Handover(
        seccomp_program=setup.seccomp_program,
        init=len(cgroups.init),
        shared=cgroups.shared,
        tasks=cgroups.tasks,
    )
    return handover, fds


def _setup_of(
    root_plan: RootPlan,
    handover: Handover,
    fds: list[int],
    entry: init_process.InitEntry,
    prefork: PreforkedChild | None,
) -> init_process.InitSetup:
    """Undo ``handover_of`` with the descriptors' numbers in this process."""
    rest = iter(fds)
    listen, log, status, go = (next(rest) for _ in range(4))
    init = tuple(next(rest) for _ in range(handover.init))
    tasks = tuple(
        TaskCgroup(
            name=task.name,
            procs_fds=tuple(next(rest) for _ in task.procs_fds),
            oom_fd=next(rest),
            oom_event_fd=next(rest) if task.oom_event_fd >= 0 else -1,
            pids_fd=next(rest),
            pids_max=task.pids_max,
        )
        for task in handover.tasks
    )
    return init_process.InitSetup(
        plan=root_plan.plan,
        root=root_plan.root,
        templates=root_plan.templates,
        cgroups=OpenCgroups(init=init, tasks=tasks, shared=handover.shared, fds=fds),
        listen_fd=listen,
        log_fd=log,
        status_fd=status,
        go_fd=go,
        seccomp_program=handover.seccomp_program,
        entry=entry,
        prefork=prefork,
    )


def _warm_up(example: RootPlan, entry: init_process.InitEntry) -> None:
    """Run the code that a launch will run, so that its pages are copied and its decoders are built."""
    if entry.warm_up is not None:
        entry.warm_up()
    decode(encode(example), RootPlan)
    decode(encode(_EXAMPLE), Handover)


def _or_exit(data: bytes) -> bytes:
    if not data:
        os._exit(0)  # The launcher is gone, or has closed its end of the socket.
    return data
