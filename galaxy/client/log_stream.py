"""The logs of one or more pods as one stream, merged by time; following picks up new pods."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Final

from galaxy.client.streams import POLL_S, SILENCE_S, remove_session
from galaxy.errors import Conflict, GalaxyError, NotFound, Unreachable
from galaxy.model.api.sessions import LogPosition, SessionOpened, unpack_chunks
from galaxy.model.api.views import JobView, LogChunk
from galaxy.nexus.presence import LEASE_S
from galaxy.nexus.session import Session
from galaxy.statemachine.backoff import Backoff

CHUNKS_MAX: Final = 256
"""Chunks of one pod that wait for the caller."""
FOLLOWED_MAX: Final = 40
"""Pods followed at once; each takes a connection and a thread."""
READERS_MAX: Final = 16
FIRST_LOOK_S: Final = 0.5
NEW_PODS_S: Final = 2.0
"""How often a follower looks for pods and containers that are new: at first, and later."""
RESUME_S: Final = 0.5
RESUME_WAIT_S_MAX: Final = 5.0
"""First and longest pause before the log of a pod is opened again."""
RESUME_ANSWER_S: Final = 10.0
RESUME_S_MAX: Final = 300.0
"""How long a follower tries to continue the log of a pod whose agent does not answer."""
GRACE_S: Final = 3.0
FOLLOW_GRACE_S: Final = 0.2
"""How long the output of other pods waits for one that has sent nothing, so that it can be sorted in."""


OpenLogs = Callable[[str, Sequence[LogPosition], int], SessionOpened]


class NewPods:
    """Finds what a follower does not read yet: pods that scaling adds, and containers made anew.

    ``show`` returns the job's view. ``open_logs`` opens the log of one pod: from its beginning, or at the
    given positions in the log of an incarnation.
    """

    def __init__(self, target: str, show: Callable[[str], JobView], open_logs: OpenLogs) -> None:
        head, dot, index = target.rpartition(".")
        is_pod = bool(dot) and index.isdecimal()
        self._job = head if is_pod else target
        self._index = int(index) if is_pod else None
        self._show = show
        self._open_logs = open_logs
        self._known: dict[str, int] = {}
        self._failing_since_s: float | None = None

    def open_again(self, pod: str, positions: Sequence[LogPosition], incarnation: int) -> SessionOpened:
        """Open the log of a pod where an earlier session ended; raises as a request does."""
        return self._open_logs(pod, positions, incarnation)

    def know(self, pod: str, incarnation: int) -> None:
        """Note which incarnation of a pod is being read, or was read to its end."""
        self._known[pod] = incarnation

    def find(self, room: int) -> tuple[SessionOpened, bool]:
        """Open the logs of what is new, ``room`` pods at most; return whether more can come later.

        Raises:
            Unreachable: the cluster has not answered for ``SILENCE_S``.
        """
        try:
            view = self._show(self._job)
        except NotFound:
            return SessionOpened(sessions=(), pods=()), False
        except Unreachable:
            now_s = time.monotonic()
            self._failing_since_s = self._failing_since_s or now_s
            if now_s - self._failing_since_s > SILENCE_S:
                raise
            return SessionOpened(sessions=(), pods=()), True
        self._failing_since_s = None
        self._job = view.summary.job  # A job of the same name that comes later is another one.
        sessions: list[str] = []
        pods: list[str] = []
        mine = [pod for pod in view.pods if self._index in (None, pod.index)]
        for pod in mine:
            if not pod.agent or pod.incarnation <= self._known.get(pod.pod, 0) or len(pods) >= room:
                continue
            with contextlib.suppress(Conflict, NotFound):  # It is gone already.
                opened = self._open_logs(pod.pod, (), 0)
                sessions += opened.sessions
                pods += opened.pods
                self._known[pod.pod] = pod.incarnation
        more = (
            not view.summary.is_over and view.summary.state != "removed" and bool(mine or self._index is None)
        )
        return SessionOpened(sessions=tuple(sessions), pods=tuple(pods)), more


class _Source:
    """What was read of one pod's session and not yet given to the caller."""

    def __init__(self, pod: str, session: Session | None) -> None:
        self.pod = pod
        self.session = session
        self.chunks: deque[LogChunk] = deque()
        self.is_open = session is not None
        self.is_replaced = False
        """A newer container of the pod is read."""
        self.active_s = time.monotonic()
        self.answered = False
        """The agent has sent something over the current session."""
        self.incarnation = 0
        self._positions: dict[tuple[str, str], int] = {}
        self._runs: dict[str, float] = {}

    def note(self, chunk: LogChunk) -> None:
        """Note up to where the log was read."""
        self.incarnation = chunk.incarnation or self.incarnation
        if chunk.next >= 0:
            self._positions[chunk.task, chunk.stream] = chunk.next
        if chunk.run is not None:
            self._runs[chunk.task] = chunk.at_s

    def positions(self) -> tuple[LogPosition, ...]:
        """Return up to where each stream was read; empty if nothing is known of any."""
        return tuple(
            LogPosition(task=task, stream=stream, at=at, run_s=self._runs.get(task, 0.0))
            for (task, stream), at in self._positions.items()
        )


class LogStream:
    """An iterator of ``LogChunk`` over the logs of one or more pods; close it to stop following.

    Chunks of different pods are sorted by the time at which their text arrived, by the clocks of the
    pods' hosts. A pod whose agent does not answer holds the others back for ``GRACE_S`` at most. When
    the log of a pod cannot be read, a chunk of it carries the ``error``. A follower whose session ends
    before the log, because the agent restarts, continues where it was, for up to ``RESUME_S_MAX``.
    """

    def __init__(
        self, opened: SessionOpened, session: Callable[[str], Session], *, new_pods: NewPods | None = None
    ) -> None:
        """Start reading; with ``new_pods`` follow, and read new pods as they come.

        Raises:
            Conflict: there are more than ``FOLLOWED_MAX`` pods to follow.
        """
        self.pods = opened.pods
        if new_pods is not None and len(opened.sessions) > FOLLOWED_MAX:
            raise Conflict(
                f"cannot follow {len(opened.sessions)} pods at once; {FOLLOWED_MAX} are the limit",
                hint=f"galaxy logs -f {opened.pods[0]}",
            )
        self._session = session
        self._new_pods = new_pods
        self._waiting: queue.SimpleQueue[_Source] = queue.SimpleQueue()
        self._sources: list[_Source] = []
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._no_more = threading.Event()
        """No new pods are looked for."""
        self._threads = 0
        self._start(opened)
        if new_pods is not None:
            for pod, incarnation in zip(opened.pods, opened.incarnations, strict=False):
                new_pods.know(pod, incarnation)
            self._run_thread(self._look_for_new_pods, "logs-pods")

    def __iter__(self) -> Iterator[LogChunk]:
        while (chunk := self._next()) is not None:
            yield chunk

    def __enter__(self) -> LogStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading and close the sessions, so that agents stop streaming."""
        if self._closed.is_set():
            return
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
            sources = list(self._sources)
        while True:
            try:
                sources.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        for source in sources:
            if source.session is not None:
                with contextlib.suppress(GalaxyError):
                    source.session.close("out")

    # ---- merging

    def _next(self) -> LogChunk | None:
        """Return the oldest chunk as soon as no pod is likely to have an older one; None at the end."""
        grace_s = GRACE_S if self._new_pods is None else FOLLOW_GRACE_S
        with self._changed:
            while not self._closed.is_set():
                now_s = time.monotonic()
                self._sources = [one for one in self._sources if one.is_open or one.chunks]
                ready = [one for one in self._sources if one.chunks]
                late_s = [one.active_s + grace_s for one in self._sources if not one.chunks]
                wait_s = max(late_s, default=0.0) - now_s
                if ready and wait_s <= 0:
                    source = min(ready, key=lambda one: one.chunks[0].at_s)
                    self._changed.notify_all()
                    return source.chunks.popleft()
                if not self._sources and not self._threads:
                    return None
                self._changed.wait(min(wait_s, POLL_S) if ready else POLL_S)
        return None

    def _put(self, source: _Source, chunks: list[LogChunk]) -> None:
        with self._changed:
            while len(source.chunks) >= CHUNKS_MAX and not self._closed.is_set():
                self._changed.wait(POLL_S)
            source.chunks.extend(chunks)
            source.active_s = time.monotonic()
            self._changed.notify_all()

    # ---- reading

    def _start(self, opened: SessionOpened) -> None:
        for pod, session in zip(opened.pods, opened.sessions, strict=True):
            self._waiting.put(_Source(pod, self._session(session)))
        count = len(opened.sessions)
        for _ in range(count if self._new_pods is not None else min(count, READERS_MAX)):
            self._run_thread(self._read_sessions, "logs")

    def _run_thread(self, work: Callable[[], None], name: str) -> None:
        def body() -> None:
            try:
                work()
            finally:
                with self._changed:
                    self._threads -= 1
                    self._changed.notify_all()

        with self._changed:
            self._threads += 1
        threading.Thread(target=body, name=name, daemon=True).start()

    def _read_sessions(self) -> None:
        while not self._closed.is_set():
            try:
                source = self._waiting.get_nowait()
            except queue.Empty:
                break
            with self._changed:
                source.active_s = time.monotonic()
                self._sources.append(source)
            try:
                self._read_to_the_end(source)
            except GalaxyError as error:
                self._put(source, [LogChunk(pod=source.pod, error=error.message)])
            finally:
                with self._changed:
                    source.is_open = False
                    self._changed.notify_all()

    def _read_to_the_end(self, source: _Source) -> None:
        """Read a pod's log; a follower opens it again when the session ends before the log does."""
        assert source.session is not None, "only sources with a session are read"
        wait_s = Backoff(RESUME_S, RESUME_WAIT_S_MAX)
        answer_s, since_s = SILENCE_S, time.monotonic()
        while not self._read(source, source.session, answer_s):
            if self._new_pods is None:
                raise Unreachable(f"the log of {source.pod} is incomplete: its agent ended the session")
            if source.answered:
                wait_s.reset()
                since_s = time.monotonic()
            source.answered, answer_s = False, RESUME_ANSWER_S
            while True:
                if source.is_replaced or self._closed.wait(wait_s.next_s()):
                    return
                if time.monotonic() - since_s > RESUME_S_MAX:
                    raise Unreachable(f"the agent of {source.pod} does not answer any more")
                with contextlib.suppress(GalaxyError):
                    source.session.close("out")
                with contextlib.suppress(Unreachable):
                    try:
                        opened = self._new_pods.open_again(source.pod, source.positions(), source.incarnation)
                    except (Conflict, NotFound):  # It is gone.
                        return
                    source.session = self._session(opened.sessions[0])
                    break

    def _read(self, source: _Source, session: Session, answer_s: float) -> bool:
        """Read a session; return whether the log ended with it.

        Raises:
            Unreachable: the agent does not answer, and there was no session before.
        """
        agent_seen = False
        silent_since_s = time.monotonic()
        while not self._closed.is_set():
            item = session.read("out", POLL_S)
            if item is None:
                silent_s = time.monotonic() - silent_since_s
                if not source.answered and silent_s > answer_s:
                    if source.positions():
                        return False
                    raise Unreachable(f"the agent of {source.pod} does not answer")
                if self._new_pods is None and silent_s > SILENCE_S:
                    return False
                if source.is_replaced or (silent_s > SILENCE_S and self._no_more.is_set()):
                    return True  # Its agent is gone, or it would have ended the session.
                there = self._has_agent(session)
                # Its first lease may have ended before it was looked for.
                if there is False and (agent_seen or (source.answered and silent_s > LEASE_S)):
                    return False
                agent_seen = bool(there)
                continue
            if not item:
                return False
            silent_since_s = time.monotonic()
            chunks = unpack_chunks(item)
            source.answered |= len(chunks) > 1 or not chunks[0].interrupted
            for chunk in chunks:
                source.note(chunk)
            again = chunks[-1].interrupted and self._new_pods is not None
            if again:
                chunks = chunks[:-1]
            self._put(source, [chunk for chunk in chunks if chunk.text or chunk.error or chunk.run])
            if again or chunks[-1].end:
                if self._new_pods is not None and source.incarnation:
                    self._new_pods.know(source.pod, source.incarnation)
                remove_session(session)
                return not again
        return True

    def _has_agent(self, session: Session) -> bool | None:
        """Return whether the agent renews its lease, as it does for followers; None if that is not known."""
        if self._new_pods is None or session.was_away(LEASE_S):
            return None
        try:
            return session.has_agent()
        except Unreachable:
            return None

    # ---- new pods

    def _look_for_new_pods(self) -> None:
        """Look for new pods until no more can come."""
        assert self._new_pods is not None, "only a follower looks for new pods"
        wait_s, more = FIRST_LOOK_S, True
        while more and not self._closed.wait(wait_s):
            wait_s = NEW_PODS_S if self.pods else FIRST_LOOK_S
            try:
                more = self._add_new_pods(self._new_pods)
            except GalaxyError as error:
                source = _Source("", None)
                source.chunks.append(LogChunk(error=f"cannot look for new pods: {error.message}"))
                with self._changed:
                    self._sources.append(source)
                break
        self._no_more.set()

    def _add_new_pods(self, new_pods: NewPods) -> bool:
        """Start to read what is new; return whether more can come later."""
        with self._changed:
            room = FOLLOWED_MAX - sum(one.is_open for one in self._sources)
        opened, more = new_pods.find(room)
        with self._changed:
            for source in self._sources:
                source.is_replaced |= source.pod in opened.pods
        self.pods += tuple(pod for pod in opened.pods if pod not in self.pods)
        self._start(opened)
        return more
