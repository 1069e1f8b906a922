"""First processes made in advance: forked, in their namespaces, before a finished root, waiting for a plan.

A launch that finds one has only its cgroups and volumes left to make. Spares are made when the
launcher has nothing else to do, for the view that was wanted last, and die with the launcher:
until it is handed a plan a spare is nobody's container.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from dataclasses import dataclass
from typing import Final, NoReturn

from galaxy.container import birth, kernel, rootfs
from galaxy.container.cgroup.tree import OpenCgroups
from galaxy.container.nursery import Nursery
from galaxy.container.plan import LaunchPlan
from galaxy.container.understudy import Understudy, fork_understudy
from galaxy.errors import GalaxyError
from galaxy.model.base import Noun, decode, encode
from galaxy.model.worker import TaskCgroup

WANTED: Final = 2
_HANDOVER_MAX: Final = 192 * 1024
_FDS_MAX: Final = 253


class Place(Noun, frozen=True, kw_only=True):
    """What a spare is told first: enough to mount volumes and to take its root."""

    plan: LaunchPlan
    root: str
    templates: str


class Handover(Noun, frozen=True, kw_only=True):
    """What it is told next; its descriptors ride along in the order of ``_fds_of``."""

    seccomp_program: str
    init: int
    shared: int
    tasks: tuple[TaskCgroup, ...]


_LIKE: Final = Handover(
    seccomp_program="AAAA",
    init=1,
    shared=1,
    tasks=(TaskCgroup(name="main", procs_fds=(1,), oom_fd=2, pids_fd=3),),
)


@dataclass(frozen=True, kw_only=True)
class Spare:
    """One that waits: its pid on the host, and the socket that a plan is sent through."""

    pid: int
    sock: socket.socket

    def tell(self, place: Place) -> None:
        """Give it the plan, to begin with.

        Raises:
            OSError: it is dead.
        """
        self.sock.send(encode(place))

    def hand_over(self, what: birth.Birth) -> None:
        """Give it the rest of the birth that becomes its own.

        Raises:
            OSError: it is dead.
        """
        cgroups = what.cgroups or OpenCgroups(init=(), tasks=(), shared=0, fds=[])
        handover = Handover(
            seccomp_program=what.seccomp_program,
            init=len(cgroups.init),
            shared=cgroups.shared,
            tasks=cgroups.tasks,
        )
        socket.send_fds(self.sock, [encode(handover)], _fds_of(what, cgroups))


class Spares:
    """The launcher's few spares, all for one root."""

    def __init__(self, entry: birth.Entry) -> None:
        self._nursery = Nursery(
            lambda words, sock: _wait_for_plan(decode(words, Place), sock, entry), birth.forget_launcher
        )
        self._waiting: list[Spare] = []
        self._like: Place | None = None

    @property
    def short(self) -> bool:
        """Say whether one more would be good to have."""
        return self._like is not None and len(self._waiting) < WANTED

    def take(self, place: Place) -> Spare | None:
        """Return one for the root of ``place`` if there is one; those for another root are let go."""
        if self._like is None or place.root != self._like.root:
            self.clear()
        self._like = place
        return self._waiting.pop(0) if self._waiting else None

    def make(self) -> None:
        """Fork one more, for a plan like the last."""
        assert self._like is not None, "none is made before a plan was seen"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = self._nursery.fork(encode(self._like), theirs)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._waiting.append(Spare(pid=pid, sock=ours))

    def forget(self, pid: int) -> None:
        """Take in that a child has died; it may have been one of ours."""
        self._nursery.forget(pid)
        for spare in [one for one in self._waiting if one.pid == pid]:
            spare.sock.close()
            self._waiting.remove(spare)

    def clear(self) -> None:
        """Let all go; the launcher reaps them."""
        for spare in self._waiting:
            spare.sock.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(spare.pid, signal.SIGKILL)  # Our child, unreaped: the pid is still its own.
        self._waiting.clear()
        self._like = None

    def close(self) -> None:
        """Let all go, and have none made any more."""
        self.clear()
        self._nursery.close()


def _wait_for_plan(like: Place, sock: socket.socket, entry: birth.Entry) -> NoReturn:
    """Get ready for a plan ``like`` the last one, wait for it, and be born."""
    try:
        kernel.set_process_name("galaxy-spare")
        # Nothing of the launcher's may stay open: another spare's socket would hide its death from that one.
        kernel.close_all_but((0, 1, 2, sock.fileno()))
        birth.enter_namespaces(private_network=False)
        rootfs.furnish(like.root)
        kernel.bound_capabilities(birth.KEPT_CAPABILITIES)
        child = fork_understudy(entry.perform, birth.KEPT_CAPABILITIES) if entry.perform else None
        if entry.rehearse is not None:
            entry.rehearse()
        decode(encode(like), Place)
        decode(encode(_LIKE), Handover)
        place = decode(_heard(sock.recv(_HANDOVER_MAX)), Place)
        flaw = None
        try:
            birth.take_place(place.plan, place.root, place.templates)
        except (OSError, GalaxyError) as error:
            flaw = error  # To be told when there is somewhere to tell it.
        data, fds, _, _ = socket.recv_fds(sock, _HANDOVER_MAX, _FDS_MAX)
        sock.close()
        what = _received(place, decode(_heard(data), Handover), fds, entry, child)
    except BaseException as error:  # noqa: BLE001 - the last frame of this process
        os.write(2, f"event=spare.failed cause={str(error)!r}\n".encode())
        os._exit(1)
    birth.be_born(what, placed=True, flaw=flaw)


def _heard(data: bytes) -> bytes:
    if not data:
        os._exit(0)  # The launcher is gone, or needs us no more.
    return data


def _fds_of(what: birth.Birth, cgroups: OpenCgroups) -> list[int]:
    own = [what.listen_fd, what.log_fd, what.status_fd, what.go_fd, *cgroups.init]
    return own + [fd for task in cgroups.tasks for fd in (*task.procs_fds, task.oom_fd, task.pids_fd)]


def _received(
    place: Place, handover: Handover, fds: list[int], entry: birth.Entry, understudy: Understudy | None
) -> birth.Birth:
    rest = iter(fds)
    listen, log, status, go = (next(rest) for _ in range(4))
    init = tuple(next(rest) for _ in range(handover.init))
    tasks = tuple(
        TaskCgroup(
            name=task.name,
            procs_fds=tuple(next(rest) for _ in task.procs_fds),
            oom_fd=next(rest),
            pids_fd=next(rest),
            pids_max=task.pids_max,
        )
        for task in handover.tasks
    )
    return birth.Birth(
        plan=place.plan,
        root=place.root,
        templates=place.templates,
        cgroups=OpenCgroups(init=init, tasks=tasks, shared=handover.shared, fds=fds),
        listen_fd=listen,
        log_fd=log,
        status_fd=status,
        go_fd=go,
        seccomp_program=handover.seccomp_program,
        entry=entry,
        understudy=understudy,
    )
