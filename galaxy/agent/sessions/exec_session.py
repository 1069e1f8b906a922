"""An exec session: a command in a running container, its input and output over a session of Nexus."""

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

from galaxy.agent.connections.worker_connection import close_all
from galaxy.agent.connections.worker_connections import ExecOutcome, ExecSink
from galaxy.errors import GalaxyError, Unreachable
from galaxy.model.api.sessions import ExecIn, ExecSession
from galaxy.model.messages.worker import Exec, ExecEnded, ExecKill, ExecResize, ExecStarted, ToWorker
from galaxy.nexus.presence import ClientWatch, Peer
from galaxy.nexus.session import Direction, Frame, FrameHead, FrameKind
from galaxy.units import format_duration

_LOG: Final = logging.getLogger(__name__)
BLOCK_BYTES: Final = 32 * 1024
START_S: Final = 15.0
CHECK_S: Final = 0.25
"""How often to check whether the client is still there."""
UNREAD_S: Final = 30.0
"""Time without a read after which a client is gone that ended before it could show its presence."""
DRAIN_S: Final = 1.0
"""How long to wait for the end of output after the command's end: a child may have inherited it."""


class FramePipe(Protocol):
    """The part of ``galaxy.nexus.session.Session`` that an exec session uses."""

    def send(
        self,
        direction: Direction,
        frame: Frame,
        timeout_s: float = ...,
        *,
        waiting: Callable[[], None] | None = ...,
    ) -> None: ...
    def receive(self, direction: Direction, timeout_s: float) -> Frame | None: ...
    def close(self, direction: Direction) -> None: ...
    def peer(self) -> Peer: ...
    def has_reader(self, direction: Direction) -> bool: ...


class ExecWorker(Protocol):
    """AppWorkers as exec sessions reach them, through the agent's loop; thread-safe."""

    def begin(self, pod: str, packet: Exec, files: tuple[int, ...], sink: ExecSink) -> None:
        """Ask for a command. ``files`` are closed by the callee; ``sink`` receives every outcome."""

    def send(self, pod: str, packet: ToWorker) -> None:
        """Send a packet that belongs to a command that was begun."""


class ExecSessionRunner:
    """Runs one command to its end. When the client is gone, the command is killed, unless detached."""

    def __init__(
        self,
        order: ExecSession,
        pipe: FramePipe,
        worker: ExecWorker,
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
        self._outcomes: queue.SimpleQueue[tuple[ExecOutcome, list[int]]] = queue.SimpleQueue()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        """Written for every outcome, so that ``poll`` returns."""
        self._outcome_lock = threading.Lock()
        self._over = threading.Event()
        self._request = 0
        self._active_s = time.monotonic()
        self._client = ClientWatch()
        self._checked_s = 0.0
        self._input_lock = threading.Lock()
        self._input = -1

    def run(self) -> None:
        """Run the command, send its exit status or why there is none, and close the session."""
        outputs: list[int] = []
        try:
            outputs = self._begin()
            if self._exec.detach:
                self._request = 0
                self._send_frame("exit", status=0)
            else:
                self._forward_output(outputs)
        except GalaxyError as error:
            _LOG.info("event=exec.ended pod=%s cause=%r", self._pod, error.message)
            with contextlib.suppress(GalaxyError):
                self._send_frame("error", message=error.message)
        finally:
            with self._outcome_lock:
                self._over.set()
                os.close(self._wake_write)
                os.close(self._wake_read)
            if self._request:
                self._worker.send(self._pod, ExecKill(request=self._request))
            self._close_input()
            close_all(outputs)
            for direction in ("out", "in"):
                with contextlib.suppress(GalaxyError):
                    self._pipe.close(direction)

    # ---- start

    def _begin(self) -> list[int]:
        """Start the command and return the files to read its output from."""
        theirs: tuple[int, ...] = ()
        outputs: list[int] = []
        if not self._exec.tty and not self._exec.detach:
            stdin, self._input = os.pipe2(os.O_CLOEXEC)
            out, stdout = os.pipe2(os.O_CLOEXEC)
            err, stderr = os.pipe2(os.O_CLOEXEC)
            theirs, outputs = (stdin, stdout, stderr), [out, err]
        packet = Exec(
            request=0,
            task=self._exec.task,
            argv=self._exec.argv,
            tty=self._exec.tty,
            rows=self._exec.rows,
            columns=self._exec.columns,
            detach=self._exec.detach,
        )
        try:
            self._worker.begin(self._pod, packet, theirs, self._on_outcome)
            started, files = self._await_start()
        except BaseException:
            close_all(outputs)
            raise
        self._request = started.request
        if self._exec.detach:
            return []
        if self._exec.tty:
            outputs, self._input = files[:1], os.dup(files[0]) if files else -1
        os.set_blocking(self._input, False)
        threading.Thread(target=self._forward_input, name=f"exec-in {self._pod}", daemon=True).start()
        return outputs

    def _await_start(self) -> tuple[ExecStarted, list[int]]:
        try:
            outcome, files = self._outcomes.get(timeout=START_S)
        except queue.Empty:
            raise GalaxyError(f"cannot run a command in {self._pod}: no answer in {START_S:g} s") from None
        if isinstance(outcome, ExecStarted) and not outcome.error and (files or not self._exec.tty):
            return outcome, files
        close_all(files)
        why = outcome.error if isinstance(outcome, ExecStarted) else "it is not running"
        raise GalaxyError(f"cannot run a command in {self._pod}: {why or 'no terminal was received'}")

    def _on_outcome(self, outcome: ExecOutcome, files: list[int]) -> None:
        """Receive an outcome; called in the agent's loop, possibly after the session has ended."""
        with self._outcome_lock:
            if not self._over.is_set():
                self._outcomes.put((outcome, files))
                with contextlib.suppress(BlockingIOError):
                    os.write(self._wake_write, b"!")
                return
        close_all(files)
        if isinstance(outcome, ExecStarted) and not outcome.error:
            self._worker.send(self._pod, ExecKill(request=outcome.request))

    # ---- output

    def _forward_output(self, outputs: list[int]) -> None:
        """Send output to the client until the command has ended and its output is drained."""
        kinds: dict[int, FrameKind] = dict(zip(outputs, ("stdout", "stderr"), strict=False))
        poll = select.poll()
        for fd in (*outputs, self._wake_read):
            poll.register(fd, select.POLLIN)
        status: int | None = None
        drain_until_s = 0.0
        while True:
            left_s = CHECK_S if status is None else max(0.0, drain_until_s - time.monotonic())
            for fd, _ in poll.poll(int(left_s * 1000)):
                if fd == self._wake_read:
                    status = self._read_status() if status is None else status
                    drain_until_s = time.monotonic() + DRAIN_S
                elif not self._forward(fd, kinds[fd]):
                    poll.unregister(fd)
                    del kinds[fd]
            if status is not None and (not kinds or time.monotonic() >= drain_until_s):
                break
            if status is None:
                self._check_client()
        self._request = 0
        self._send_frame("exit", status=status)

    def _read_status(self) -> int | None:
        """Return the command's exit status if an outcome has brought it."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 64)
        while True:
            try:
                outcome, files = self._outcomes.get_nowait()
            except queue.Empty:
                return None
            close_all(files)
            if isinstance(outcome, ExecEnded):
                return outcome.status
            if outcome is None:
                raise GalaxyError(f"the container of {self._pod} is gone")

    def _forward(self, fd: int, kind: FrameKind) -> bool:
        """Send what can be read from ``fd``; return False at its end."""
        try:
            data = os.read(fd, BLOCK_BYTES)
        except BlockingIOError:
            return True
        except OSError:  # EIO: no process has the terminal's other side open any more.
            data = b""
        if data:
            self._active_s = time.monotonic()
            self._send_frame(kind, data)
        return bool(data)

    def _check_client(self) -> None:
        now_s = time.monotonic()
        if self._closing.is_set():
            raise GalaxyError("the agent is ending")
        if now_s - self._checked_s < CHECK_S:
            return
        self._checked_s = now_s
        quiet_s = now_s - self._active_s
        if quiet_s > self._idle_s:
            raise GalaxyError(f"nothing happened for {format_duration(self._idle_s)}")
        try:
            peer = self._pipe.peer()
            unread = quiet_s > UNREAD_S and not self._client.is_known and not self._pipe.has_reader("out")
        except Unreachable:  # Redis is away; the client cannot reach it either, or not for long.
            peer, unread = None, False
        if self._client.is_gone(peer, time.monotonic()) or unread:
            raise GalaxyError("the client went away" if peer else "Redis is away for too long")

    def _send_frame(self, kind: FrameKind, data: bytes = b"", *, status: int = 0, message: str = "") -> None:
        """Send a frame; wait for a client that is there and does not read, such as a pager."""
        head = FrameHead(kind=kind, status=status, message=message, pod=self._pod)
        self._pipe.send("out", Frame(head=head, data=data), self._idle_s, waiting=self._check_client)

    # ---- input

    def _forward_input(self) -> None:
        """Send the client's input to the command; in a separate thread, because both sides may block."""
        try:
            while not self._over.is_set():
                frame = self._pipe.receive("in", CHECK_S)
                if frame is None:
                    continue
                self._active_s = time.monotonic()
                if frame.head.kind == "stdin":
                    self._write_input(frame.data)
                elif frame.head.kind == "resize":
                    rows, columns = frame.head.rows, frame.head.columns
                    packet = ExecResize(request=self._request, rows=rows, columns=columns)
                    self._worker.send(self._pod, packet)
                elif frame.head.kind == "eof":
                    self._close_input()
                    return
        except GalaxyError as error:
            _LOG.info("event=exec.input-ended pod=%s cause=%r", self._pod, error.message)
            self._close_input()

    def _write_input(self, data: bytes) -> None:
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
                    return  # The command has closed its input.
                poll = select.poll()
                poll.register(self._input, select.POLLOUT)
                poll.poll(200)

    def _close_input(self) -> None:
        with self._input_lock:
            if self._input >= 0:
                os.close(self._input)
                self._input = -1
