"""Sessions of logs and exec: a thread each, bounded in number, ended with the agent."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from galaxy.agent.sessions.exec_session import ExecConnection, ExecRunner
from galaxy.agent.sessions.log_session import LogStreamer
from galaxy.errors import GalaxyError
from galaxy.model.api.sessions import ExecSession, LogSession
from galaxy.model.api.views import LogChunk
from galaxy.model.base import encode
from galaxy.nexus.session import Frame, FrameHead, Session

SAY_S = 2.0


class SessionSource(Protocol):
    """What is used of ``galaxy.nexus.nexus.Nexus``."""

    def session(self, session_id: str) -> Session: ...


class Sessions:
    """Starts sessions; the same id twice is one session."""

    def __init__(
        self,
        nexus: SessionSource,
        worker: ExecConnection,
        logs: Path,
        *,
        alive: Callable[[str, int], bool],
        sessions_max: int,
        idle_s: float,
    ) -> None:
        self._nexus = nexus
        self._worker = worker
        self._logs = logs
        self._alive = alive
        self._max = sessions_max
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}
        self._closing = threading.Event()

    def log(self, order: LogSession) -> None:
        """Stream logs into ``order.session``; when there are too many sessions, say so there."""
        streamer = LogStreamer(
            order,
            self._nexus.session(order.session),
            self._logs,
            alive=self._alive,
            closing=self._closing,
            idle_s=self._idle_s,
        )
        if not self._start(order.session, "logs", streamer.run):
            pipe = self._nexus.session(order.session)
            with contextlib.suppress(GalaxyError):
                pipe.write("out", encode(LogChunk(pod=order.pod, end=True, error=self._full())), SAY_S)

    def exec(self, order: ExecSession) -> None:
        """Run a command over ``order.session``; when there are too many sessions, say so there."""

        def run() -> None:
            pipe = self._nexus.session(order.session)
            ExecRunner(order, pipe, self._worker, closing=self._closing, idle_s=self._idle_s).run()

        if not self._start(order.session, "exec", run):
            pipe = self._nexus.session(order.session)
            with contextlib.suppress(GalaxyError):
                pipe.send("out", Frame(head=FrameHead(kind="error", message=self._full())), SAY_S)

    def close(self, timeout_s: float = 5.0) -> None:
        """Tell every session to end, and wait a little."""
        self._closing.set()
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(timeout_s / max(1, len(threads)))

    def _start(self, session: str, name: str, run: Callable[[], None]) -> bool:
        def body() -> None:
            try:
                run()
            finally:
                with self._lock:
                    self._threads.pop(session, None)

        with self._lock:
            if session in self._threads:
                return True
            if len(self._threads) >= self._max or self._closing.is_set():
                return False
            thread = threading.Thread(target=body, name=f"{name} {session}", daemon=True)
            self._threads[session] = thread
        thread.start()
        return True

    def _full(self) -> str:
        return f"this host serves {self._max} sessions of logs and exec already; try again in a moment"
