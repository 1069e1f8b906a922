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
import time
from dataclasses import dataclass
from typing import Final, NoReturn

from galaxy.container.cgroup.tree import OpenCgroups
from galaxy.container.fs import rootfs
from galaxy.container.kernel import prctl, syscalls
from galaxy.container.launcher import init_process
from galaxy.container.launcher.forker import Forker, confess, last_words
from galaxy.container.launcher.plan import LaunchPlan
from galaxy.container.launcher.prefork import PreforkedChild, prefork_child
from galaxy.errors import GalaxyError
from galaxy.model.base import Struct, decode, encode
from galaxy.model.messages.worker import TaskCgroup
from galaxy.statemachine.backoff import Retry

WANTED: Final = 2
PROVEN_S: Final = 10.0
"""One that waited so long could have been used, whatever it died of then."""
_WAITS: Final = b"R"
_RETRY_FIRST_S: Final = 0.1
_RETRY_MAX_S: Final = 10.0
_TRIES_MAX: Final = 10
_CAUSES_MAX: Final = 16
_HANDOVER_MAX: Final = 192 * 1024
_FDS_MAX: Final = 253


class Place(Struct, frozen=True, kw_only=True):
    """What a spare is told first: enough to mount volumes and to take its root."""

    plan: LaunchPlan
    root: str
    templates: str


class Handover(Struct, frozen=True, kw_only=True):
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


@dataclass(kw_only=True)
class WarmProcess:
    """One that waits: its pid on the host, and the socket that a plan is sent through."""

    pid: int
    sock: socket.socket
    made_s: float
    """When, by the monotonic clock."""
    _said: bytes = b""

    @property
    def waits(self) -> bool:
        """Say whether it has come as far as to wait for a plan."""
        self._hear()
        return self._said == _WAITS

    @property
    def cause(self) -> str:
        """Return why it had to end, empty if it did not say."""
        self._hear()
        return "" if self._said == _WAITS else self._said.decode(errors="replace")

    def _hear(self) -> None:
        while said := last_words(self.sock):
            self._said = said

    def tell(self, place: Place) -> None:
        """Give it the plan, to begin with.

        Raises:
            OSError: it is dead.
        """
        self.sock.send(encode(place))

    def hand_over(self, what: init_process.InitSetup) -> None:
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


class WarmPool:
    """The launcher's few spares, all for one root.

    Those that die unused are replaced ever more rarely, and after a while only when a launch has
    missed one; a launch that finds none forks for itself.
    """

    def __init__(self, entry: init_process.InitEntry) -> None:
        self._nursery = Forker(
            lambda words, sock: _wait_for_plan(decode(words, Place), sock, entry),
            init_process.forget_launcher,
        )
        self._waiting: list[WarmProcess] = []
        self._like: Place | None = None
        self._retry = Retry(first_s=_RETRY_FIRST_S, max_s=_RETRY_MAX_S, tries_max=_TRIES_MAX)
        self._causes: set[str] = set()

    def wait_s(self, now: float) -> float | None:
        """Return in how many seconds one more would be good to have; None: there is no need."""
        if self._like is None or len(self._waiting) >= WANTED:
            return None
        return self._retry.wait_s(now)

    def take(self, place: Place) -> WarmProcess | None:
        """Return one for the root of ``place`` if there is one; those for another root are let go.

        One that is still getting ready will do, unless others have failed at that.
        """
        if self._like is None or place.root != self._like.root:
            self.clear()
        self._like = place
        self._retry.allow_one_more()
        found = next((spare for spare in self._waiting if spare.waits), None)
        if found is None and self._waiting and not self._retry.failures:
            found = self._waiting[0]
        if found is not None:
            self._waiting.remove(found)
        return found

    def make(self) -> None:
        """Fork one more, for a plan like the last, unless the host refuses."""
        assert self._like is not None, "none is made before a plan was seen"
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            self._failed(str(error))
            return
        try:
            pid = self._nursery.fork(encode(self._like), theirs)
        except OSError as error:
            ours.close()
            self._failed(str(error))
            return
        finally:
            theirs.close()
        self._waiting.append(WarmProcess(pid=pid, sock=ours, made_s=time.monotonic()))

    def used(self, spare: WarmProcess) -> None:
        """Take in that one was handed a birth."""
        if spare.waits:
            self._retry.succeeded()
            self._causes.clear()

    def stillborn(self) -> None:
        """Take in that a first process died before it could say why; it may have been a spare."""
        self._failed("a first process died before it was ready")

    def lost(self, spare: WarmProcess, how: str = "it died on its way") -> None:
        """Take in that one has died unused."""
        cause = spare.cause or how
        spare.sock.close()
        if time.monotonic() - spare.made_s >= PROVEN_S:
            self._retry.succeeded()
        self._failed(cause)

    def forget(self, pid: int, status: int) -> None:
        """Take in that a child has died, with its exit code or minus its signal; it may be one of ours."""
        self._nursery.forget(pid)
        for spare in [one for one in self._waiting if one.pid == pid]:
            self._waiting.remove(spare)
            self.lost(spare, f"exit code {status}" if status >= 0 else f"killed by signal {-status}")

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

    def _failed(self, cause: str) -> None:
        self._retry.failed(time.monotonic())
        self._say_once(f"event=spare.failed cause={cause!r}")
        if self._retry.given_up:
            self._say_once(f"event=spares.given-up tries={_TRIES_MAX} until='the next launch'")

    def _say_once(self, line: str) -> None:
        """Write a line into the log that is not there since a spare was last used."""
        if line in self._causes:
            return
        if len(self._causes) >= _CAUSES_MAX:
            self._causes.clear()
        self._causes.add(line)
        os.write(2, f"{line}\n".encode())


def _wait_for_plan(like: Place, sock: socket.socket, entry: init_process.InitEntry) -> NoReturn:
    """Get ready for a plan ``like`` the last one, wait for it, and be born."""
    place: Place | None = None
    try:
        prctl.set_process_name("galaxy-spare")
        # Nothing of the launcher's may stay open: another spare's socket would hide its death from that one.
        syscalls.close_all_but((0, 1, 2, sock.fileno()))
        init_process.enter_namespaces(private_network=False)
        rootfs.furnish(like.root)
        prctl.limit_bounding_set(init_process.KEPT_CAPABILITIES)
        child = prefork_child(entry.perform, init_process.KEPT_CAPABILITIES) if entry.perform else None
        if entry.warm_up is not None:
            entry.warm_up()
        decode(encode(like), Place)
        decode(encode(_LIKE), Handover)
        with contextlib.suppress(BrokenPipeError):  # All has been sent to us already, and this end left.
            sock.send(_WAITS, socket.MSG_NOSIGNAL)
        place = decode(_heard(receive(sock)[0]), Place)
        flaw = None
        try:
            init_process.take_place(place.plan, place.root, place.templates)
        except (OSError, GalaxyError) as error:
            flaw = error  # To be told when there is somewhere to tell it.
        data, fds = receive(sock)
        sock.close()
        what = _received(place, decode(_heard(data), Handover), fds, entry, child)
    except BaseException as error:  # noqa: BLE001 - the last frame of this process
        if place is not None or not confess(sock, error):  # It is one launch's, which fails with us.
            os.write(2, f"event=spare.failed cause={str(error)!r}\n".encode())
        os._exit(1)
    init_process.become_init(what, placed=True, flaw=flaw)


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Return the next message and its descriptors; empty when the other end is closed and all is read.

    An end that is closed before it has read all is told of first, and once (unix(7)): what it has
    sent us is still there.
    """
    try:
        data, fds, _, _ = socket.recv_fds(sock, _HANDOVER_MAX, _FDS_MAX)
    except ConnectionResetError:
        data, fds, _, _ = socket.recv_fds(sock, _HANDOVER_MAX, _FDS_MAX)
    return data, fds


def _heard(data: bytes) -> bytes:
    if not data:
        os._exit(0)  # The launcher is gone, or needs us no more.
    return data


def _fds_of(what: init_process.InitSetup, cgroups: OpenCgroups) -> list[int]:
    own = [what.listen_fd, what.log_fd, what.status_fd, what.go_fd, *cgroups.init]
    return own + [fd for task in cgroups.tasks for fd in (*task.procs_fds, task.oom_fd, task.pids_fd)]


def _received(
    place: Place,
    handover: Handover,
    fds: list[int],
    entry: init_process.InitEntry,
    understudy: PreforkedChild | None,
) -> init_process.InitSetup:
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
    return init_process.InitSetup(
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
