"""From a fresh fork to an AppWorker: enter cgroups and namespaces, take the root, drop rights, become it."""

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
from galaxy.container.launcher.prefork import Perform, PreforkedChild
from galaxy.errors import GalaxyError
from galaxy.model.messages.worker import TaskCgroup, WorkerConfig

READY: Final = b"R"
FAILED: Final = b"F"
GO: Final = b"G"

KEPT_CAPABILITIES: Final = (
    "chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
)  # fmt: skip
"""What AppWorker needs: to unpack for, become, and end another user's programs."""

_NAMESPACES: Final = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC
_LAUNCH_FAILED: Final = 71
_ENTRY_RETURNED: Final = 70
_RESTORED: Final = (
    signal.SIGCHLD,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGPIPE,
    signal.SIGTERM,
    signal.SIGUSR1,
)


@dataclass(frozen=True, kw_only=True)
class InitEntry:
    """What a first process becomes, what it may do ahead of time, and what a child made ahead does."""

    run: Callable[[WorkerConfig], NoReturn]
    warm_up: Callable[[], None] | None = None
    perform: Perform | None = None


@dataclass(frozen=True, kw_only=True)
class InitSetup:
    """Everything that a new container's first process needs, opened before the fork.

    ``status_fd`` carries READY, or FAILED with a reason; ``go_fd`` yields GO once the launcher
    has written down who we are, and nothing when it died before that.
    """

    plan: LaunchPlan
    root: str
    """Where the static part of the root is (full), or where to build it (userns)."""
    templates: str
    cgroups: OpenCgroups | None
    listen_fd: int
    log_fd: int
    status_fd: int
    go_fd: int
    seccomp_program: str
    entry: InitEntry
    understudy: PreforkedChild | None = None


def become_init(birth: InitSetup, *, placed: bool = False, flaw: Exception | None = None) -> NoReturn:
    """Become the container's first process; never returns, and reports every failure to the launcher.

    ``placed`` says that this process has taken its root already, or failed to with ``flaw``.
    """
    code = _ENTRY_RETURNED
    born = False
    try:
        if not placed:
            forget_launcher()
        if flaw is not None:
            raise flaw
        config = _settle(birth, placed=placed)
        if os.read(birth.go_fd, 1) != GO:
            os._exit(_LAUNCH_FAILED)
        born = True
        os.write(birth.status_fd, READY)
        os.close(birth.status_fd)
        os.close(birth.go_fd)
        birth.entry.run(config)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else _ENTRY_RETURNED
    except BaseException as error:  # noqa: BLE001 - the last frame of this process
        code = _LAUNCH_FAILED
        if born:
            _print_traceback(error)
        else:
            _confess(birth.status_fd, error)
    finally:
        os._exit(code)


def _settle(birth: InitSetup, *, placed: bool) -> WorkerConfig:
    plan = birth.plan
    if plan.mode == FULL:
        if not placed:
            _enter_full(birth)
        workspace = plan.demand.workspace.path
    elif plan.mode == USERNS:
        _enter_userns(birth)
        workspace = plan.demand.workspace.path
    else:
        prctl.become_subreaper()
        for index, _ in enumerate(plan.volumes):
            volumes.make_plain(plan.directory, index)
        workspace = volumes.plain_path(plan.directory, plan.volumes.index(plan.demand.workspace))
    os.setsid()
    os.umask(0o022)
    with contextlib.suppress(PermissionError):  # An agent that was niced, without root, stays so.
        os.setpriority(os.PRIO_PROCESS, 0, 0)  # The launcher's haste ends here.
    if birth.cgroups is not None:
        # After all mounting, which needs block devices and, for a new file system, memory of ours.
        for fd in birth.cgroups.init:
            os.write(fd, b"0")
    if plan.mode != PROCESS:
        syscalls.unshare(syscalls.CLONE_NEWCGROUP)  # Last: what we are in now is the root that programs see.
    if birth.understudy is not None:
        birth.understudy.follow(birth.cgroups.init[: birth.cgroups.shared] if birth.cgroups else ())
    tasks = birth.cgroups.tasks if birth.cgroups else _tasks_without_cgroups(plan)
    config = WorkerConfig(
        container=plan.container,
        incarnation=plan.incarnation,
        host=plan.host,
        workspace=workspace,
        listen_fd=birth.listen_fd,
        log_fd=birth.log_fd,
        tasks=tasks,
        ports=plan.ports,
        run_uid=plan.run_uid if plan.mode == FULL else -1,
        run_gid=plan.run_gid if plan.mode == FULL else -1,
        isolated=plan.mode != PROCESS,
        seccomp=bool(birth.seccomp_program),
        seccomp_program=birth.seccomp_program,
        understudy_pid=birth.understudy.pid if birth.understudy else 0,
        understudy_fd=birth.understudy.sock.fileno() if birth.understudy else -1,
    )
    _keep_only_needed(birth, config)
    if plan.mode != PROCESS:
        if not placed:
            prctl.limit_bounding_set(KEPT_CAPABILITIES)
        prctl.limit_capabilities(KEPT_CAPABILITIES)
    prctl.set_no_new_privileges()
    return config


def enter_namespaces(*, private_network: bool) -> None:
    """Enter the namespaces that a process can enter itself; the cgroup's comes last of all."""
    syscalls.unshare(_NAMESPACES | (syscalls.CLONE_NEWNET if private_network else 0))


def _enter_full(birth: InitSetup) -> None:
    private = birth.plan.demand.network == "private"
    enter_namespaces(private_network=private)
    rootfs.furnish(birth.root)
    if private:
        syscalls.raise_loopback()
        rootfs.mount_sysfs(birth.root)  # One that shows this network, and not the host's.
    take_place(birth.plan, birth.root, birth.templates)


def take_place(plan: LaunchPlan, root: str, templates: str) -> None:
    """Make the container's own name and volumes before a furnished ``root``, and take it as the root."""
    _make_own(plan, root, templates, privileged=True)
    syscalls.pivot_root(root)


def _enter_userns(birth: InitSetup) -> None:
    # User, PID and all other namespaces were entered before the second fork; see ``fork_userns``.
    plan = birth.plan
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    view = view_of(plan)
    rootfs.build(birth.root, view, privileged=False)
    if plan.demand.network == "private":
        syscalls.raise_loopback()
        rootfs.mount_sysfs(birth.root)
    rootfs.furnish(birth.root)
    _make_own(plan, birth.root, birth.templates, privileged=False)
    flags = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY | syscalls.MS_NOSUID
    syscalls.mount("", birth.root, None, flags)
    syscalls.pivot_root(birth.root)


def _make_own(plan: LaunchPlan, root: str, templates: str, *, privileged: bool) -> None:
    """Make what tells this container from every other: its names and its volumes."""
    hostname = hostname_of(plan.container)
    syscalls.set_hostname(hostname)
    # Without rights programs are who we are: the one user that the mapping knows.
    uid, gid = (plan.run_uid, plan.run_gid) if privileged else (os.geteuid(), os.getegid())
    etc.write_own(f"{root}/run", hostname, uid=uid, gid=gid, home=plan.demand.workspace.path)
    for index, volume in enumerate(plan.volumes):
        target = f"{root}{volume.path}"
        if not os.path.isdir(target):
            os.makedirs(target, exist_ok=True)  # Inside another volume.
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


def view_of(plan: LaunchPlan) -> rootfs.View:
    """Return the static part of the root that ``plan`` wants."""
    return rootfs.View(
        mountpoints=tuple(volume.path for volume in plan.volumes),
        system_dirs=plan.system_dirs,
        sysfs=plan.demand.network != "private",
    )


def fork_userns(*, private_network: bool) -> int:
    """Fork PID 1 of new namespaces without root: 0 in it, else its pid; the caller is a subreaper.

    A process cannot enter a PID namespace itself, so one in between makes the namespaces, forks
    and is gone; its child then is ours.

    Raises:
        OSError: no namespaces for us; named by the call that failed.
    """
    uid, gid = os.geteuid(), os.getegid()
    read, write = os.pipe()
    flags = syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWPID | _NAMESPACES
    between = os.fork()
    if between == 0:
        os.close(read)
        try:
            syscalls.unshare(flags | (syscalls.CLONE_NEWNET if private_network else 0))
            _put("/proc/self/setgroups", "deny")
            _put("/proc/self/uid_map", f"{uid} {uid} 1")
            _put("/proc/self/gid_map", f"{gid} {gid} 1")
            pid = os.fork()
        except OSError as error:
            os.write(write, f"!{error.errno} {error}".encode())
            os._exit(1)
        if pid == 0:
            os.close(write)
            return 0
        os.write(write, str(pid).encode())
        os._exit(0)
    os.close(write)
    try:
        answer = os.read(read, 4096).decode()
    finally:
        os.close(read)
        os.waitpid(between, 0)
    if not answer.isdecimal():
        code, _, text = answer.lstrip("!").partition(" ")
        raise OSError(int(code or 0), text or "the process between died")
    return int(answer)


def forget_launcher() -> None:
    """Drop what the launcher does with signals; our own are as in a new process."""
    signal.set_wakeup_fd(-1)
    for number in _RESTORED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _keep_only_needed(birth: InitSetup, config: WorkerConfig) -> None:
    """Give PID 1 null for its standard files, a file for its last words; close all that is not its own."""
    null = os.open("/dev/null", os.O_RDWR)
    words = os.open(
        "appworker.log", os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_WRONLY, 0o600, dir_fd=birth.log_fd
    )
    for fd, source in ((0, null), (1, words), (2, words)):
        os.dup2(source, fd)
    kept = {0, 1, 2, config.listen_fd, config.log_fd, birth.status_fd, birth.go_fd}
    if birth.understudy is not None:
        kept.add(birth.understudy.sock.detach())
    for task in config.tasks:
        kept.update(fd for fd in (*task.procs_fds, task.oom_fd, task.pids_fd) if fd >= 0)
    syscalls.close_all_but(kept)


def _tasks_without_cgroups(plan: LaunchPlan) -> tuple[TaskCgroup, ...]:
    return tuple(TaskCgroup(name=task.name, pids_max=task.pids_max) for task in plan.demand.tasks)


def _put(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _confess(status_fd: int, error: BaseException) -> None:
    text = error.message if isinstance(error, GalaxyError) else str(error) or type(error).__name__
    if isinstance(error, OSError) and error.filename:
        text = f"{error.strerror} ({error.filename})"
    with contextlib.suppress(OSError):
        os.write(status_fd, FAILED + text.encode(errors="replace")[:2000])


def _print_traceback(error: BaseException) -> None:
    with contextlib.suppress(Exception):
        sys.excepthook(type(error), error, error.__traceback__)
