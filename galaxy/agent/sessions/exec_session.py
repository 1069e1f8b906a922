"""An exec session: a command in a running container, its bytes over a session of Nexus."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from galaxy.errors import GalaxyError
from galaxy.model.api.sessions import ExecIn, ExecSession
from galaxy.model.messages.worker import Exec, ExecEnded, ExecKill, ExecResize, ExecStarted, ToWorker
from galaxy.nexus.session import Direction, Frame, FrameHead, FrameKind
from galaxy.units import format_duration

_LOG: Final = logging.getLogger(__name__)
BLOCK_BYTES: Final = 32 * 1024
START_S: Final = 15.0
LOOK_S: Final = 1.0
WRITE_S: Final = 30.0
DRAIN_S: Final = 1.0
"""How long output may stay open after the command's end: a child may have inherited it."""

Said = tuple[ExecStarted | ExecEnded | None, list[int]]
Sink = Callable[[ExecStarted | ExecEnded | None, list[int]], None]


class FramePipe(Protocol):
    """What is used of ``galaxy.nexus.session.Session``."""

    def send(self, direction: Direction, frame: Frame, timeout_s: float = ...) -> None: ...
    def receive(self, direction: Direction, timeout_s: float) -> Frame | None: ...
    def close(self, direction: Direction) -> None: ...
    def closed(self, direction: Direction) -> bool: ...
    def attended(self, direction: Direction) -> bool: ...


class ExecConnection(Protocol):
    """The AppWorker's side, reached through the agent's loop; safe from any thread."""

    def begin(self, pod: str, packet: Exec, files: tuple[int, ...], sink: Sink) -> None:
        """Ask for the command; ``files`` change hands. ``sink`` hears what becomes of it."""

    def tell(self, pod: str, packet: ToWorker) -> None:
        """Send a packet that belongs to a command that was begun."""


class ExecRunner:
    """Runs one command to its end; the client's going away kills it."""

    def __init__(
        self,
        order: ExecSession,
        pipe: FramePipe,
        worker: ExecConnection,
        *,
        closing: threading.Event,
        idle_s: float,
    ) -> None:
        self._pod = order.pod
        self._exec: ExecIn = order.exec
        self._pipe = pipe
        self._worker = worker
        self._closing = closing
        self._idle_s = idle_s
        self._said: queue.SimpleQueue[Said] = queue.SimpleQueue()
        self._bell_read, self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._bell_lock = threading.Lock()
        self._over = threading.Event()
        self._request = 0
        self._active_s = time.monotonic()
        self._input_lock = threading.Lock()
        self._input = -1

    def run(self) -> None:
        """Run the command, pass its exit status or say why there is none, and close."""
        own: list[int] = []
        try:
            own = self._begin()
            self._pump(own)
        except GalaxyError as error:
            _LOG.info("event=exec.ended pod=%s cause=%r", self._pod, error.message)
            with contextlib.suppress(GalaxyError):
                self._frame("error", message=error.message)
        finally:
            with self._bell_lock:
                self._over.set()
                os.close(self._bell)
                os.close(self._bell_read)
            if self._request:
                self._worker.tell(self._pod, ExecKill(request=self._request))
            self._close_input()
            for fd in own:
                os.close(fd)
            for direction in ("out", "in"):
                with contextlib.suppress(GalaxyError):
                    self._pipe.close(direction)

    # ---- the beginning

    def _begin(self) -> list[int]:
        """Start the command and return the files that its output comes from."""
        theirs: tuple[int, ...] = ()
        own: list[int] = []
        if not self._exec.tty:
            stdin, self._input = os.pipe2(os.O_CLOEXEC)
            out, stdout = os.pipe2(os.O_CLOEXEC)
            err, stderr = os.pipe2(os.O_CLOEXEC)
            theirs, own = (stdin, stdout, stderr), [out, err]
        packet = Exec(
            request=0,
            task=self._exec.task,
            argv=self._exec.argv,
            tty=self._exec.tty,
            rows=self._exec.rows,
            columns=self._exec.columns,
        )
        try:
            self._worker.begin(self._pod, packet, theirs, self._hear)
            started, files = self._await_start()
        except BaseException:
            for fd in own:
                os.close(fd)
            raise
        self._request = started.request
        if self._exec.tty:
            own, self._input = files[:1], os.dup(files[0]) if files else -1
        os.set_blocking(self._input, False)
        threading.Thread(target=self._feed, name=f"exec-in {self._pod}", daemon=True).start()
        return own

    def _await_start(self) -> tuple[ExecStarted, list[int]]:
        try:
            said, files = self._said.get(timeout=START_S)
        except queue.Empty:
            raise GalaxyError(f"cannot run a command in {self._pod}: no answer in {START_S:g} s") from None
        if isinstance(said, ExecStarted) and not said.error and (files or not self._exec.tty):
            return said, files
        for fd in files:
            os.close(fd)
        why = said.error if isinstance(said, ExecStarted) else "it is not running"
        raise GalaxyError(f"cannot run a command in {self._pod}: {why or 'no terminal came'}")

    def _hear(self, said: ExecStarted | ExecEnded | None, files: list[int]) -> None:
        """Take what the AppWorker says; called in the agent's loop, maybe after our end."""
        with self._bell_lock:
            if not self._over.is_set():
                self._said.put((said, files))
                with contextlib.suppress(BlockingIOError):
                    os.write(self._bell, b"!")
                return
        for fd in files:
            os.close(fd)
        if isinstance(said, ExecStarted) and not said.error:
            self._worker.tell(self._pod, ExecKill(request=said.request))

    # ---- out

    def _pump(self, own: list[int]) -> None:
        """Pass output on until the command has ended and its output is drained."""
        kinds: dict[int, FrameKind] = dict(zip(own, ("stdout", "stderr"), strict=False))
        poll = select.poll()
        for fd in (*own, self._bell_read):
            poll.register(fd, select.POLLIN)
        status: int | None = None
        drain_until_s = 0.0
        while True:
            left_s = LOOK_S if status is None else max(0.0, drain_until_s - time.monotonic())
            for fd, _ in poll.poll(int(left_s * 1000)):
                if fd == self._bell_read:
                    status = self._ended() if status is None else status
                    drain_until_s = time.monotonic() + DRAIN_S
                elif not self._pass_on(fd, kinds[fd]):
                    poll.unregister(fd)
                    del kinds[fd]
            if status is not None and (not kinds or time.monotonic() >= drain_until_s):
                break
            if status is None:
                self._check_client()
        self._request = 0
        self._frame("exit", status=status)

    def _ended(self) -> int | None:
        """Read the bell: the command's exit status, once it is known."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._bell_read, 64)
        while True:
            try:
                said, files = self._said.get_nowait()
            except queue.Empty:
                return None
            for fd in files:
                os.close(fd)
            if isinstance(said, ExecEnded):
                return said.status
            if said is None:
                raise GalaxyError(f"the container of {self._pod} went away")

    def _pass_on(self, fd: int, kind: FrameKind) -> bool:
        try:
            data = os.read(fd, BLOCK_BYTES)
        except BlockingIOError:
            return True
        except OSError:  # EIO: nobody holds the terminal's other side any more.
            data = b""
        if data:
            self._active_s = time.monotonic()
            self._frame(kind, data)
        return bool(data)

    def _check_client(self) -> None:
        quiet_s = time.monotonic() - self._active_s
        if self._closing.is_set():
            raise GalaxyError("the agent is ending")
        if quiet_s > self._idle_s:
            raise GalaxyError(f"nothing happened for {format_duration(self._idle_s)}")
        if self._pipe.closed("out") or (quiet_s > WRITE_S and not self._pipe.attended("out")):
            raise GalaxyError("the client went away")

    def _frame(self, kind: FrameKind, data: bytes = b"", *, status: int = 0, message: str = "") -> None:
        head = FrameHead(kind=kind, status=status, message=message, pod=self._pod)
        self._pipe.send("out", Frame(head=head, data=data), WRITE_S)

    # ---- in

    def _feed(self) -> None:
        """Pass input on; in a thread of its own, for both of its ends may block."""
        try:
            while not self._over.is_set():
                frame = self._pipe.receive("in", LOOK_S)
                if frame is None:
                    continue
                self._active_s = time.monotonic()
                if frame.head.kind == "stdin":
                    self._write(frame.data)
                elif frame.head.kind == "resize":
                    rows, columns = frame.head.rows, frame.head.columns
                    packet = ExecResize(request=self._request, rows=rows, columns=columns)
                    self._worker.tell(self._pod, packet)
                elif frame.head.kind == "eof":
                    self._close_input()
                    return
        except GalaxyError as error:
            _LOG.info("event=exec.input-ended pod=%s cause=%r", self._pod, error.message)
            self._close_input()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view and not self._over.is_set():
            with self._input_lock:
                if self._input < 0:
                    return
                try:
                    view = view[os.write(self._input, view) :]
                    continue
                except BlockingIOError:
                    pass
                except OSError:
                    return  # The command reads no more.
                poll = select.poll()
                poll.register(self._input, select.POLLOUT)
                poll.poll(200)

    def _close_input(self) -> None:
        with self._input_lock:
            if self._input >= 0:
                os.close(self._input)
                self._input = -1
