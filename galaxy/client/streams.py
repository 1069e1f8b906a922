"""Streams over sessions: the input and output of a command. Logs are in ``log_stream``."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Final

from galaxy.client.argument_types import checks_arguments
from galaxy.errors import Conflict, GalaxyError, TimedOut, Unreachable
from galaxy.model.base import Struct
from galaxy.nexus.presence import LEASE_S
from galaxy.nexus.session import Frame, FrameHead, Session
from galaxy.units import format_duration

SILENCE_S: Final = 30.0
"""How long an agent may take for the first message of a session."""
POLL_S: Final = 1.0
"""How often blocked threads check whether their stream was closed."""
CLOSING_S: Final = 0.5
"""How long to wait until the agent closes a finished session."""
UNREAD_S_MAX: Final = 3600.0
"""How long a command may leave its input unread."""
OUTPUT_BYTES_MAX: Final = 8 * 1024 * 1024


def remove_session(session: Session) -> None:
    """Remove a session after its last message, once the agent has closed it."""
    session.read("out", CLOSING_S)
    session.remove()


class Executed(Struct, frozen=True, kw_only=True):
    """The exit status and output of a command in a pod; ``cut`` if output was dropped at the limit."""

    status: int
    stdout: bytes = b""
    stderr: bytes = b""
    cut: bool = False


@checks_arguments
class ExecStream:
    """A command that runs in a pod: write its input, and iterate over its output frames.

    Frames are ``stdout`` and ``stderr`` with bytes, then one ``exit`` with the status. One thread
    may write while another one reads.
    """

    def __init__(self, pod: str, session: Session) -> None:
        self.pod = pod
        self._session = session
        self._closed = threading.Event()
        self._ended = False
        self._presence = session.attend()
        self._agent_seen = False

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the command has ended.

        Raises:
            GalaxyError: the command could not be run.
            Unreachable: its agent does not answer.
        """
        answered = False
        end_s = time.monotonic() + SILENCE_S
        while not self._closed.is_set():
            frame = self.receive(POLL_S)
            if frame is None:
                if not answered and time.monotonic() > end_s:
                    raise Unreachable(f"the agent of {self.pod} does not answer")
                continue
            answered = True
            yield frame
            if frame.head.kind == "exit":
                return

    def receive(self, timeout_s: float) -> Frame | None:
        """Return the next frame, or None after ``timeout_s``.

        Raises:
            GalaxyError: the command could not be run.
            Unreachable: the session ended without an exit status.
        """
        frame = self._session.receive("out", timeout_s)
        if frame is None:
            self._check_agent()
            return None
        if frame.head.kind == "error":
            raise GalaxyError(frame.head.message or f"the command in {self.pod} failed")
        if frame.head.kind == "eof":
            raise Unreachable(f"the command in {self.pod} ended without an exit status")
        self._ended |= frame.head.kind == "exit"
        return frame

    def _check_agent(self) -> None:
        """Raise once the agent has stopped renewing its lease, which it does while the command runs.

        When Redis was away, the agent has ``LEASE_S`` to renew it again.
        """
        try:
            there = self._session.has_agent()
        except Unreachable:
            self._agent_seen = False  # Reading and writing tell when Redis is away for too long.
            return
        if self._agent_seen and not there and not self._session.was_away(LEASE_S):
            raise Unreachable(
                f"the agent of {self.pod} has gone", details=["the command ends with its connection"]
            )
        self._agent_seen |= there

    def write(self, data: bytes) -> None:
        """Write to the command's standard input; wait while the command does not read.

        Raises:
            Conflict: the command has ended. Unreachable: its agent does not answer.
        """
        frame = Frame(head=FrameHead(kind="stdin"), data=data)
        self._session.send("in", frame, UNREAD_S_MAX, waiting=self._check_agent)

    def suspend(self) -> None:
        """Say that this process is about to be stopped, so that the command waits for it."""
        self._presence.suspend()

    def resume(self) -> None:
        """Say that this process goes on after ``suspend``."""
        self._presence.resume()

    def resize(self, rows: int, columns: int) -> None:
        """Resize the command's terminal."""
        self._session.send("in", Frame(head=FrameHead(kind="resize", rows=rows, columns=columns)))

    def end_input(self) -> None:
        """Close the command's standard input."""
        with contextlib.suppress(Conflict):  # A quick command has ended already.
            frame = Frame(head=FrameHead(kind="eof"))
            self._session.send("in", frame, UNREAD_S_MAX, waiting=self._check_agent)

    def communicate(self, input: bytes, timeout_s: float) -> Executed:
        """Write ``input``, read all output, and return it.

        Raises:
            TimedOut: the command has not ended within ``timeout_s``; it is ended with the stream.
            Unreachable: its agent does not answer.
        """
        writer = threading.Thread(target=self._write_input, args=(input,), daemon=True)
        writer.start()
        end_s = time.monotonic() + timeout_s
        output: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        cut = False
        while (left_s := end_s - time.monotonic()) > 0:
            frame = self.receive(min(left_s, POLL_S))
            if frame is None:
                continue
            if frame.head.kind == "exit":
                out, err = bytes(output["stdout"]), bytes(output["stderr"])
                return Executed(status=frame.head.status, stdout=out, stderr=err, cut=cut)
            if frame.head.kind in output:
                room = OUTPUT_BYTES_MAX - sum(map(len, output.values()))
                cut |= len(frame.data) > room
                output[frame.head.kind] += frame.data[: max(room, 0)]
        self.close()
        raise TimedOut(
            f"the command in {self.pod} did not end within {format_duration(timeout_s)}",
            details=["the command is ended", f"output so far: {sum(map(len, output.values())):,} bytes"],
            hint="a larger timeout_s, or open_exec(..., detach=True)",
        )

    def _write_input(self, data: bytes) -> None:
        with contextlib.suppress(GalaxyError):  # The command may end without reading it all.
            if data:
                self.write(data)
            self.end_input()

    def close(self) -> None:
        """End the session; the agent kills a command that still runs."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._presence.close()
        with contextlib.suppress(GalaxyError):
            if self._ended:
                remove_session(self._session)
                return
            for direction in ("in", "out"):
                self._session.close(direction)

    def __enter__(self) -> ExecStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
