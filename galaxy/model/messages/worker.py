"""Between an agent and an AppWorker: how an AppWorker is started, and the packets on its Unix socket.

The launcher forks, enters the container and calls ``galaxy.worker_entry.main.run(WorkerConfig)``.
AppWorker listens on ``listen_fd`` (SOCK_SEQPACKET; the socket's path lies outside the container)
and serves one agent at a time, the newest. Packets are JSON of ``FromWorker`` and ``ToWorker``.
File descriptors come with a packet (SCM_RIGHTS) where its docstring says so.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from galaxy.model.base import Struct
from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import ObservedPod, PodOrder

EXECS_MAX: Final = 32
"""Exec commands at once in one container; each has a supervisor process of about 1 MiB."""
PACKET_BYTES_MAX: Final = 192 * 1024
"""Longest packet on the socket; a pod order beyond it is refused at validation."""


class TaskCgroup(Struct, frozen=True, kw_only=True):
    """Open files of one task's cgroup, kept across pivot_root; empty or -1 where not enforced.

    To enter the cgroup, a process writes ``0`` to each of ``procs_fds``. Reading the first of them
    lists the pids as AppWorker's PID namespace sees them. ``oom_fd`` is memory.oom_control (v1) or
    memory.events.local (v2): the count in its ``oom_kill N`` line, read at offset 0, proves an OOM
    kill. ``oom_event_fd`` is an eventfd that v1 notifies of OOM; on v2 ``oom_fd`` itself can be polled.
    Writing ``0`` to ``pids_fd`` (pids.max) before a kill stops a fork bomb.
    """

    name: str
    procs_fds: tuple[int, ...] = ()
    oom_fd: int = -1
    oom_event_fd: int = -1
    pids_fd: int = -1
    pids_max: int = 512


def task_fds(cgroup: TaskCgroup) -> tuple[int, ...]:
    """Return every descriptor of a task's cgroup, in one order; -1 where there is none."""
    return (*cgroup.procs_fds, cgroup.oom_fd, cgroup.oom_event_fd, cgroup.pids_fd)


class WorkerConfig(Struct, frozen=True, kw_only=True):
    """Everything that an AppWorker is started with."""

    container: str
    incarnation: int
    host: str
    """Name of the agent, passed to programs as GALAXY_HOST."""
    workspace: str
    """Path of the workspace as the program sees it; programs start there."""
    listen_fd: int
    log_fd: int
    """Directory on the host for log files: ``<task>.stdout``, ``<task>.stderr`` and ``.1`` …"""
    tasks: tuple[TaskCgroup, ...]
    ports: dict[str, int] = {}
    run_uid: int = -1
    """User that programs run as; -1 means AppWorker's own (reduced modes)."""
    run_gid: int = -1
    isolated: bool = True
    """False in the mode without namespaces, where AppWorker is not PID 1 but a child subreaper."""
    log_bytes_max: int = 10 * 1024 * 1024
    log_files_max: int = 5
    seccomp: bool = True
    """Install ``seccomp_program`` in every program before exec."""
    seccomp_program: str = ""
    """BPF program in base64; the launcher builds it once."""
    prefork_pid: int = 0
    """A child, forked ahead of time, that becomes the first program; 0 means none."""
    prefork_fd: int = -1
    """Socket to that child."""


# ---- agent to AppWorker


class Order(Struct, frozen=True, kw_only=True, tag="order"):
    """The desired state of the pod; sent on connecting and whenever it changes."""

    order: PodOrder


class PackageAnswer(Struct, frozen=True, kw_only=True, tag="package"):
    """Answer to ``RequestPackage``: the archive's open file comes with it, or ``error`` says why not.

    ``retry`` says whether another request may succeed, and ``elsewhere`` whether one on another host may.
    """

    request: int
    error: str = ""
    retry: bool = True
    elsewhere: bool = False


class Exec(Struct, frozen=True, kw_only=True, tag="exec"):
    """Run ``argv`` in a task's cgroup, as its user, in its environment.

    Without ``tty`` three files come with it: stdin, stdout, stderr. With ``tty`` AppWorker opens a
    terminal of ``rows`` x ``columns`` and sends its master side back with ``ExecStarted``. With
    ``detach`` no file comes with it, the standard streams are /dev/null, and the command runs on when
    the agent is gone; no ``ExecEnded`` follows.
    """

    request: int
    task: str
    argv: tuple[str, ...]
    tty: bool = False
    rows: int = 24
    columns: int = 80
    env: dict[str, str] = {}
    detach: bool = False


class ExecResize(Struct, frozen=True, kw_only=True, tag="exec-resize"):
    """Resize the terminal of an exec; in characters."""

    request: int
    rows: int
    columns: int


class ExecKill(Struct, frozen=True, kw_only=True, tag="exec-kill"):
    """Kill an exec and every process that it started: its session is over."""

    request: int


class Quit(Struct, frozen=True, kw_only=True, tag="quit"):
    """Stop all programs gracefully, then end the container; SIGTERM to AppWorker means the same."""

    stop_timeout: float = 30.0


ToWorker = Order | PackageAnswer | Exec | ExecResize | ExecKill | Quit


# ---- AppWorker to agent


class Report(Struct, frozen=True, kw_only=True, tag="report"):
    """The pod's state; sent on connecting and at every change.

    ``wire`` is the version of all packets of this AppWorker. A container keeps the AppWorker that it
    was created with, so it may be of an older release than its agent.
    """

    pod: ObservedPod
    wire: int = 1


class RequestPackage(Struct, frozen=True, kw_only=True, tag="want-package"):
    """Ask for an archive; the agent fetches, checks and caches it."""

    request: int
    source: str
    version: str
    sha256: str = ""


class ExecStarted(Struct, frozen=True, kw_only=True, tag="exec-started"):
    """The command runs, or ``error`` says why not. With ``tty`` the terminal's master side comes with it."""

    request: int
    error: str = ""


class ExecEnded(Struct, frozen=True, kw_only=True, tag="exec-ended"):
    """The command ended with ``status``; 128 + N for signal N."""

    request: int
    status: Annotated[int, Meta(ge=0, le=255)]


class WorkerLog(Struct, frozen=True, kw_only=True, tag="log"):
    """A line for the agent's log."""

    reason: Reason


FromWorker = Report | RequestPackage | ExecStarted | ExecEnded | WorkerLog
