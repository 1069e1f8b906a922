"""Between an agent and an AppWorker: how it is born, and what goes over its Unix socket.

The launcher forks, enters the container and calls ``galaxy.worker_entry.main.run(WorkerConfig)``.
AppWorker listens on ``listen_fd`` (SOCK_SEQPACKET; the socket's path lies outside the container),
takes one agent at a time (the newest wins), and packets are JSON of ``FromWorker`` and ``ToWorker``;
file descriptors ride along (SCM_RIGHTS) where a packet says so.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from galaxy.model.base import Struct
from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import ObservedPod, PodOrder

EXECS_MAX: Final = 32
"""Commands at once in one container; each has a keeper of about a megabyte beside AppWorker."""
PACKET_BYTES_MAX: Final = 192 * 1024
"""Longest packet on the socket; a pod order beyond it is refused at validation."""


class TaskCgroup(Struct, frozen=True, kw_only=True):
    """Open files of one task's cgroup, kept across pivot_root; empty or -1 where not enforced.

    To enter, a child writes ``0`` to each of ``procs_fds``; reading the first lists the pids as
    AppWorker's PID namespace sees them. ``oom_fd`` is memory.oom_control (v1) or
    memory.events.local (v2): its ``oom_kill N`` line, read at offset 0, is the proof of an OOM
    kill. Writing ``0`` to ``pids_fd`` (pids.max) before a kill stops a fork bomb.
    """

    name: str
    procs_fds: tuple[int, ...] = ()
    oom_fd: int = -1
    pids_fd: int = -1
    pids_max: int = 512


class WorkerConfig(Struct, frozen=True, kw_only=True):
    """Everything an AppWorker is born with."""

    container: str
    incarnation: int
    host: str
    """Name of the agent, handed over as GALAXY_HOST."""
    workspace: str
    """Path of the workspace as the program sees it; programs start there."""
    listen_fd: int
    log_fd: int
    """Directory on the host where logs go: ``<task>.stdout``, ``<task>.stderr`` and ``.1`` …"""
    tasks: tuple[TaskCgroup, ...]
    ports: dict[str, int] = {}
    run_uid: int = -1
    """-1: programs run as AppWorker itself does (lesser modes)."""
    run_gid: int = -1
    isolated: bool = True
    """False in the lesser mode without namespaces: AppWorker is not PID 1, is a subreaper."""
    log_bytes_max: int = 10 * 1024 * 1024
    log_files_max: int = 5
    seccomp: bool = True
    """Install ``seccomp_program`` in every program before exec."""
    seccomp_program: str = ""
    """BPF program, base64; made once by the launcher."""
    prefork_pid: int = 0
    """A child that waits to become the first program, and the socket to tell it by; 0: there is none."""
    prefork_fd: int = -1


# ---- agent to AppWorker


class Order(Struct, frozen=True, kw_only=True, tag="order"):
    """Here is what the pod shall be; sent on connecting and whenever it changes."""

    order: PodOrder


class Package(Struct, frozen=True, kw_only=True, tag="package"):
    """Answer to ``WantPackage``: the archive's open file rides along; or ``error`` says why not."""

    request: int
    error: str = ""
    retry: bool = True


class Exec(Struct, frozen=True, kw_only=True, tag="exec"):
    """Run ``argv`` in a task's cgroup, as its user, in its environment.

    Without ``tty`` three files ride along: stdin, stdout, stderr. With it AppWorker opens a
    terminal of ``rows`` x ``columns`` and sends its master side back with ``ExecStarted``.
    """

    request: int
    task: str
    argv: tuple[str, ...]
    tty: bool = False
    rows: int = 24
    columns: int = 80
    env: dict[str, str] = {}


class ExecResize(Struct, frozen=True, kw_only=True, tag="exec-resize"):
    """The terminal of an exec has another size now, in characters."""

    request: int
    rows: int
    columns: int


class ExecKill(Struct, frozen=True, kw_only=True, tag="exec-kill"):
    """End an exec and all it started: its session is over."""

    request: int


class Quit(Struct, frozen=True, kw_only=True, tag="quit"):
    """Stop all programs gracefully, then end the container; SIGTERM to AppWorker means the same."""

    stop_timeout: float = 30.0


ToWorker = Order | Package | Exec | ExecResize | ExecKill | Quit


# ---- AppWorker to agent


class Report(Struct, frozen=True, kw_only=True, tag="report"):
    """The pod's state; sent on connecting and at every change.

    ``wire`` is the version of all that this AppWorker says: containers keep the AppWorker that
    they were born with, so it may be of an older release than its agent.
    """

    pod: ObservedPod
    wire: int = 1


class WantPackage(Struct, frozen=True, kw_only=True, tag="want-package"):
    """AppWorker pulls an archive; the agent fetches, checks and caches it."""

    request: int
    source: str
    version: str
    sha256: str = ""


class ExecStarted(Struct, frozen=True, kw_only=True, tag="exec-started"):
    """With ``tty`` the terminal's master side rides along."""

    request: int
    error: str = ""


class ExecEnded(Struct, frozen=True, kw_only=True, tag="exec-ended"):
    request: int
    status: Annotated[int, Meta(ge=0, le=255)]


class WorkerLog(Struct, frozen=True, kw_only=True, tag="log"):
    """Something AppWorker wants in the agent's log."""

    reason: Reason


FromWorker = Report | WantPackage | ExecStarted | ExecEnded | WorkerLog
