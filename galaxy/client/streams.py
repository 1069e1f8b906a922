"""Streams of a session: logs of several pods at once, and a command's input and output."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final

from galaxy.errors import Conflict, GalaxyError, Unreachable
from galaxy.model.api.sessions import SessionOpened
from galaxy.model.api.views import LogChunk
from galaxy.model.base import Struct, decode
from galaxy.nexus.session import Frame, FrameHead, Session

SILENCE_S: Final = 30.0
"""How long a session may say nothing at its start before its agent counts as gone."""
LOOK_S: Final = 1.0
CLOSING_S: Final = 0.5
"""How long an agent's own closing of a finished session is waited for."""
CHUNKS_MAX: Final = 256
FOLLOWED_MAX: Final = 40
"""Pods followed at once: each takes a connection."""
READERS_MAX: Final = 16
OUTPUT_BYTES_MAX: Final = 8 * 1024 * 1024


class LogStream:
    """An iterator of ``LogChunk`` over the logs of one or more pods; close it to stop following.

    What could not be read of a pod comes as a chunk with ``error``.
    """

    def __init__(
        self, opened: SessionOpened, session: Callable[[str], Session], *, follow: bool = False
    ) -> None:
        self.pods = opened.pods
        if follow and len(opened.sessions) > FOLLOWED_MAX:
            raise Conflict(
                f"cannot follow {len(opened.sessions)} pods at once; {FOLLOWED_MAX} are the limit",
                hint=f"galaxy logs -f --pod {opened.pods[0]}",
            )
        self._pairs: queue.SimpleQueue[tuple[str, Session]] = queue.SimpleQueue()
        self._sessions = [session(one) for one in opened.sessions]
        for pair in zip(opened.pods, self._sessions, strict=True):
            self._pairs.put(pair)
        self._chunks: queue.Queue[LogChunk | None] = queue.Queue(CHUNKS_MAX)
        self._closed = threading.Event()
        count = len(self._sessions) if follow else min(len(self._sessions), READERS_MAX)
        self._readers = count
        for number in range(count):
            threading.Thread(target=self._work, name=f"logs-{number}", daemon=True).start()

    def __iter__(self) -> Iterator[LogChunk]:
        while self._readers and not self._closed.is_set():
            try:
                chunk = self._chunks.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            if chunk is None:
                self._readers -= 1
            else:
                yield chunk

    def __enter__(self) -> LogStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop; agents that still stream notice."""
        if self._closed.is_set():
            return
        self._closed.set()
        for session in self._sessions:
            with contextlib.suppress(GalaxyError):
                session.close("out")

    def _work(self) -> None:
        while not self._closed.is_set():
            try:
                pod, session = self._pairs.get_nowait()
            except queue.Empty:
                break
            try:
                self._read(pod, session)
            except GalaxyError as error:
                self._put(LogChunk(pod=pod, error=error.message))
        self._put(None)

    def _read(self, pod: str, session: Session) -> None:
        heard = False
        end_s = time.monotonic() + SILENCE_S
        while not self._closed.is_set():
            item = session.read("out", LOOK_S)
            if item is None:
                if not heard and time.monotonic() > end_s:
                    raise Unreachable(f"the agent of {pod} does not answer")
                continue
            if not item:
                return
            heard = True
            chunk = decode(item, LogChunk)
            if chunk.text or chunk.error:
                self._put(chunk)
            if chunk.end:
                _forget(session)
                return

    def _put(self, chunk: LogChunk | None) -> None:
        while not self._closed.is_set():
            try:
                self._chunks.put(chunk, timeout=LOOK_S)
                return
            except queue.Full:
                continue


def _forget(session: Session) -> None:
    """Remove a session whose agent has said its last; it closes right after that."""
    session.read("out", CLOSING_S)
    session.remove()


class Executed(Struct, frozen=True, kw_only=True):
    """How a command in a pod ended, and what it wrote; ``cut`` when that was too much to keep."""

    status: int
    stdout: bytes = b""
    stderr: bytes = b""
    cut: bool = False


class ExecStream:
    """A command that runs in a pod: write its input, iterate over its output frames.

    Frames are ``stdout`` and ``stderr`` with bytes, then one ``exit`` with the status. One
    thread may write while another reads.
    """

    def __init__(self, pod: str, session: Session) -> None:
        self.pod = pod
        self._session = session
        self._over = threading.Event()
        self._ended = False

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the command has ended.

        Raises:
            GalaxyError: it could not be run. Unreachable: its agent is gone.
        """
        heard = False
        end_s = time.monotonic() + SILENCE_S
        while not self._over.is_set():
            frame = self.receive(LOOK_S)
            if frame is None:
                if not heard and time.monotonic() > end_s:
                    raise Unreachable(f"the agent of {self.pod} does not answer")
                continue
            heard = True
            yield frame
            if frame.head.kind == "exit":
                return

    def receive(self, timeout_s: float) -> Frame | None:
        """Return the next frame, or None after ``timeout_s``.

        Raises:
            GalaxyError: the command could not be run, or ended without telling how.
        """
        frame = self._session.receive("out", timeout_s)
        if frame is None:
            return None
        if frame.head.kind == "error":
            raise GalaxyError(frame.head.message or f"the command in {self.pod} failed")
        if frame.head.kind == "eof":
            raise Unreachable(f"the command in {self.pod} ended without telling how")
        self._ended |= frame.head.kind == "exit"
        return frame

    def write(self, data: bytes) -> None:
        """Write to the command's standard input."""
        self._session.send("in", Frame(head=FrameHead(kind="stdin"), data=data))

    def resize(self, rows: int, columns: int) -> None:
        """Tell the command's terminal its new size."""
        self._session.send("in", Frame(head=FrameHead(kind="resize", rows=rows, columns=columns)))

    def end_input(self) -> None:
        """Close the command's standard input."""
        self._session.send("in", Frame(head=FrameHead(kind="eof")))

    def communicate(self, input: bytes, timeout_s: float) -> Executed:
        """Write ``input``, read to the end, and return what came.

        Raises:
            Unreachable: the command has not ended within ``timeout_s``; it is killed.
        """
        writer = threading.Thread(target=self._feed, args=(input,), daemon=True)
        writer.start()
        end_s = time.monotonic() + timeout_s
        output: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        cut = False
        while (left_s := end_s - time.monotonic()) > 0:
            frame = self.receive(min(left_s, LOOK_S))
            if frame is None:
                continue
            if frame.head.kind == "exit":
                out, err = bytes(output["stdout"]), bytes(output["stderr"])
                return Executed(status=frame.head.status, stdout=out, stderr=err, cut=cut)
            if frame.head.kind in output:
                room = OUTPUT_BYTES_MAX - sum(map(len, output.values()))
                cut |= len(frame.data) > room
                output[frame.head.kind] += frame.data[: max(room, 0)]
        raise Unreachable(f"the command in {self.pod} has not ended within {timeout_s:g} s")

    def _feed(self, data: bytes) -> None:
        with contextlib.suppress(GalaxyError):  # The command may end without reading it all.
            if data:
                self.write(data)
            self.end_input()

    def close(self) -> None:
        """End the session; a command that still runs is killed."""
        if self._over.is_set():
            return
        self._over.set()
        with contextlib.suppress(GalaxyError):
            if self._ended:
                _forget(self._session)
                return
            for direction in ("in", "out"):
                self._session.close(direction)  # The agent kills the command.

    def __enter__(self) -> ExecStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
