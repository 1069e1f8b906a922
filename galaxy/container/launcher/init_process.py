"""What happens between the fork of a PID 1 and AppWorker: namespaces, root, cgroups, dropped privileges.

The order matters:

1. Namespaces, then mounts: both need capabilities that are dropped later.
2. Cgroups after all mounting: inside them block devices are denied, and creating a file system needs
   memory that the container must not be charged for.
3. The cgroup namespace after entering the cgroups: the cgroup that a process is in when it creates the
   namespace is the root that programs see.
4. Descriptors are closed, and capabilities dropped, before any code of AppWorker runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from galaxy.container.cgroup.tree import OpenCgroups
from galaxy.container.fs import etc, rootfs, volumes
from galaxy.container.kernel import prctl, syscalls
from galaxy.container.launcher.plan import FULL, PROCESS, USERNS, LaunchPlan, hostname_of
from galaxy.container.launcher.prefork import PreforkedChild, RunPrefork
from galaxy.container.net import namespace
from galaxy.errors import GalaxyError
from galaxy.model.messages.worker import TaskCgroup, WorkerConfig, task_fds

READY: Final = b"R"
FAILED: Final = b"F"
GO: Final = b"G"

WORKER_LOG: Final = "appworker.log"
"""What AppWorker itself writes, in the container's log directory."""

KEPT_CAPABILITIES: Final = (
    "chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
)  # fmt: skip
"""What AppWorker needs to unpack packages for another user, run programs as that user, and end them."""

_NAMESPACES: Final = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC
_LAUNCH_FAILED: Final = 71
_ENTRY_RETURNED: Final = 70
_CAUSE_BYTES_MAX: Final = 2000
_RESET_SIGNALS: Final = (
    signal.SIGCHLD,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGPIPE,
    signal.SIGTERM,
    signal.SIGUSR1,
)


@dataclass(frozen=True, kw_only=True)
class InitEntry:
    """The code that runs in a container's first process, and what a warm process does ahead of time."""

    run: Callable[[WorkerConfig], NoReturn]
    warm_up: Callable[[], None] | None = None
    run_prefork: RunPrefork | None = None


@dataclass(frozen=True, kw_only=True)
class InitSetup:
    """Everything that the first process of a container needs; descriptors were opened by the launcher.

    On ``status_fd`` the process writes READY, or FAILED and a cause. From ``go_fd`` it reads GO once the
    launcher has recorded its identity, or end of file if the launcher died before that.
    """

    plan: LaunchPlan
    root: str
    """Where the static part of the root is mounted (full mode), or where to build it (userns mode)."""
    templates: str
    cgroups: OpenCgroups | None
    listen_fd: int
    log_fd: int
    status_fd: int
    go_fd: int
    seccomp_program: str
    entry: InitEntry
    prefork: PreforkedChild | None = None


def become_init(setup: InitSetup, *, in_root: bool = False, failure: Exception | None = None) -> NoReturn:
    """Become the container's first process. Every failure before READY is reported to the launcher.

    ``in_root`` means that this process has already called ``enter_root``, which raised ``failure`` if that
    is not None.
    """
    code = _ENTRY_RETURNED
    is_ready = False
    try:
        if not in_root:
            undo_signal_handling()
        if failure is not None:
            raise failure
        config = _isolate(setup, in_root=in_root)
        if os.read(setup.go_fd, 1) != GO:
            os._exit(_LAUNCH_FAILED)
        is_ready = True
        os.write(setup.status_fd, READY)
        os.close(setup.status_fd)
        os.close(setup.go_fd)
        setup.entry.run(config)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else _ENTRY_RETURNED
    except BaseException as error:  # noqa: BLE001 - the last frame of this process
        code = _LAUNCH_FAILED
        if is_ready:
            _print_traceback(error)
        else:
            _report_failure(setup.status_fd, error)
    finally:
        os._exit(code)


def enter_namespaces(*, private_network: bool) -> None:
    """Enter the namespaces that a process can enter itself. The cgroup namespace is entered later."""
    syscalls.unshare(_NAMESPACES | namespace.clone_flags(private=private_network))


def enter_root(plan: LaunchPlan, root: str, templates: str) -> None:
    """Add the container's own names and volumes to a prepared ``root``, and make it the root.

    Raises:
        HostError: the disk has no room for a volume.
        OSError: a system call failed.
    """
    _add_own(plan, root, templates, privileged=True)
    syscalls.pivot_root(root)


def root_layout_of(plan: LaunchPlan) -> rootfs.RootLayout:
    """Return the static part of the root that ``plan`` needs."""
    return rootfs.RootLayout(
        mountpoints=tuple(volume.path for volume in plan.volumes),
        system_dirs=plan.system_dirs,
        sysfs=not namespace.is_private(plan.demand),
    )


def undo_signal_handling() -> None:
    """Undo the launcher's signal handling, so that signals act as in a new process."""
    signal.set_wakeup_fd(-1)
    for number in _RESET_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _isolate(setup: InitSetup, *, in_root: bool) -> WorkerConfig:
    """Do everything that turns this process into PID 1 of its container; return AppWorker's config."""
    plan = setup.plan
    if plan.mode == FULL:
        if not in_root:
            _enter_full(setup)
        workspace = plan.demand.workspace.path
    elif plan.mode == USERNS:
        _enter_userns(setup)
        workspace = plan.demand.workspace.path
    else:
        prctl.become_subreaper()
        for index, _ in enumerate(plan.volumes):
            volumes.make_plain(plan.directory, index)
        workspace = volumes.plain_path(plan.directory, plan.volumes.index(plan.demand.workspace))
    os.setsid()
    os.umask(0o022)
    with contextlib.suppress(PermissionError):  # Without root, an agent that was niced stays niced.
        os.setpriority(os.PRIO_PROCESS, 0, 0)  # The launcher's priority is not for containers.
    if setup.cgroups is not None:
        for fd in setup.cgroups.init:
            os.write(fd, b"0")
    if plan.mode != PROCESS:
        syscalls.unshare(syscalls.CLONE_NEWCGROUP)
    if setup.prefork is not None:
        setup.prefork.follow(setup.cgroups.init[: setup.cgroups.shared] if setup.cgroups else ())
    config = _config(setup, workspace)
    _keep_only_needed(setup, config)
    if plan.mode != PROCESS:
        if not in_root:
            prctl.limit_bounding_set(KEPT_CAPABILITIES)
        prctl.limit_capabilities(KEPT_CAPABILITIES)
    prctl.set_no_new_privileges()
    return config


def _config(setup: InitSetup, workspace: str) -> WorkerConfig:
    plan = setup.plan
    return WorkerConfig(
        container=plan.container,
        incarnation=plan.incarnation,
        host=plan.host,
        workspace=workspace,
        listen_fd=setup.listen_fd,
        log_fd=setup.log_fd,
        tasks=setup.cgroups.tasks if setup.cgroups else _tasks_without_cgroups(plan),
        ports=plan.ports,
        run_uid=plan.run_uid if plan.mode == FULL else -1,
        run_gid=plan.run_gid if plan.mode == FULL else -1,
        isolated=plan.mode != PROCESS,
        seccomp=bool(setup.seccomp_program),
        seccomp_program=setup.seccomp_program,
        prefork_pid=setup.prefork.pid if setup.prefork else 0,
        prefork_fd=setup.prefork.sock.fileno() if setup.prefork else -1,
    )


def _tasks_without_cgroups(plan: LaunchPlan) -> tuple[TaskCgroup, ...]:
    return tuple(TaskCgroup(name=task.name, pids_max=task.pids_max) for task in plan.demand.tasks)


def _enter_full(setup: InitSetup) -> None:
    private = namespace.is_private(setup.plan.demand)
    enter_namespaces(private_network=private)
    rootfs.mount_own(setup.root)
    if private:
        namespace.configure()
        rootfs.mount_sysfs(setup.root)
    enter_root(setup.plan, setup.root, setup.templates)


def _enter_userns(setup: InitSetup) -> None:
    # The user, PID and other namespaces were created before the fork of this process; see ``fork_userns``.
    plan = setup.plan
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    rootfs.build(setup.root, root_layout_of(plan), privileged=False)
    if namespace.is_private(plan.demand):
        namespace.configure()
        rootfs.mount_sysfs(setup.root)
    rootfs.mount_own(setup.root)
    _add_own(plan, setup.root, setup.templates, privileged=False)
    flags = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY | syscalls.MS_NOSUID
    syscalls.mount("", setup.root, None, flags)
    syscalls.pivot_root(setup.root)


def _add_own(plan: LaunchPlan, root: str, templates: str, *, privileged: bool) -> None:
    """Set the host name and mount the volumes: what differs between containers with the same root."""
    hostname = hostname_of(plan.container)
    syscalls.set_hostname(hostname)
    # Without privileges programs run as the agent's user, the only one that the user namespace maps.
    uid, gid = (plan.run_uid, plan.run_gid) if privileged else (os.geteuid(), os.getegid())
    etc.write_own(f"{root}/run", hostname, uid=uid, gid=gid, home=plan.demand.workspace.path)
    for index, volume in enumerate(plan.volumes):
        target = f"{root}{volume.path}"
        if not os.path.isdir(target):
            os.makedirs(target, exist_ok=True)  # It is inside another volume.
        if privileged:
            volumes.mount_volume(
                volume,
                target,
                directory=plan.directory,
                templates=templates,
                index=index,
                uid=plan.run_uid,
                gid=plan.run_gid,
            )
        else:
            volumes.bind_volume(volume, target, directory=plan.directory, index=index)


def _keep_only_needed(setup: InitSetup, config: WorkerConfig) -> None:
    """Redirect the standard files to null and ``appworker.log``, and close every other descriptor.

    A descriptor of the launcher that stayed open would be a way out of the container.
    """
    null = os.open("/dev/null", os.O_RDWR)
    log = os.open(WORKER_LOG, os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_WRONLY, 0o600, dir_fd=setup.log_fd)
    for fd, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, fd)
    kept = {0, 1, 2, config.listen_fd, config.log_fd, setup.status_fd, setup.go_fd}
    if setup.prefork is not None:
        kept.add(setup.prefork.sock.detach())
    for task in config.tasks:
        kept.update(fd for fd in task_fds(task) if fd >= 0)
    syscalls.close_all_but(kept)


def _report_failure(status_fd: int, error: BaseException) -> None:
    text = error.message if isinstance(error, GalaxyError) else str(error) or type(error).__name__
    if isinstance(error, OSError) and error.filename:
        text = f"{error.strerror} ({error.filename})"
    with contextlib.suppress(OSError):
        os.write(status_fd, FAILED + text.encode(errors="replace")[:_CAUSE_BYTES_MAX])


def _print_traceback(error: BaseException) -> None:
    with contextlib.suppress(Exception):
        sys.excepthook(type(error), error, error.__traceback__)
