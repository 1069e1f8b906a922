"""The agent's sessions of logs and exec: one thread each, bounded in number, ended with the agent."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from galaxy.agent.sessions.exec_session import ExecSessionRunner, ExecWorker
from galaxy.agent.sessions.log_session import LogSessionRunner
from galaxy.errors import GalaxyError
from galaxy.model.api.sessions import ExecSession, LogSession, pack_chunks
from galaxy.model.api.views import LogChunk
from galaxy.model.base import encode
from galaxy.nexus.session import Frame, FrameHead, Session

REFUSE_S = 2.0
"""How long to wait for room in a session's pipe when refusing it."""


class SessionSource(Protocol):
    """The part of ``galaxy.nexus.nexus.Nexus`` that sessions use."""

    def session(self, session_id: str) -> Session: ...


class SessionThreads:
    """Starts sessions. A session id that already runs is not started again.

    ``alive(container, incarnation)`` returns whether a container may still write output.
    """

    def __init__(
        self,
        nexus: SessionSource,
        worker: ExecWorker,
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
        self._sessions_max = sessions_max
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}
        self._closing = threading.Event()

    def start_log(self, order: LogSession) -> None:
        """Stream logs into ``order.session``; with too many sessions, refuse there."""
        runner = LogSessionRunner(
            order,
            self._nexus.session(order.session),
            self._logs,
            alive=self._alive,
            closing=self._closing,
            idle_s=self._idle_s,
        )
        if not self._start(order.session, "logs", runner.run):
            pipe = self._nexus.session(order.session)
            # Followers open the log again when the agent is back.
            chunk = LogChunk(
                pod=order.pod, end=True, error=self._refusal(), interrupted=self._closing.is_set()
            )
            with contextlib.suppress(GalaxyError):
                pipe.write("out", pack_chunks([encode(chunk)]), REFUSE_S)

    def start_exec(self, order: ExecSession) -> None:
        """Run a command over ``order.session``; with too many sessions, refuse there."""

        def run() -> None:
            pipe = self._nexus.session(order.session)
            ExecSessionRunner(order, pipe, self._worker, closing=self._closing, idle_s=self._idle_s).run()

        if not self._start(order.session, "exec", run):
            pipe = self._nexus.session(order.session)
            with contextlib.suppress(GalaxyError):
                pipe.send("out", Frame(head=FrameHead(kind="error", message=self._refusal())), REFUSE_S)

    def close(self, timeout_s: float = 5.0) -> None:
        """Ask every session to end, and wait up to ``timeout_s`` for all of them."""
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
            if len(self._threads) >= self._sessions_max or self._closing.is_set():
                return False
            thread = threading.Thread(target=body, name=f"{name} {session}", daemon=True)
            self._threads[session] = thread
        thread.start()
        return True

    def _refusal(self) -> str:
        if self._closing.is_set():
            return "the agent is ending; try again in a moment"
        count = self._sessions_max
        return f"this host serves {count} sessions of logs and exec already; try again in a moment"
