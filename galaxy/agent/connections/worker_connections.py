"""All connections to AppWorkers: kept while their containers are ready, and what they ask for."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from galaxy.agent.connections.worker_connection import WorkerConnection, WorkerConnectionBroken
from galaxy.agent.logic.events import WorkerConnected, WorkerLost, WorkerReported
from galaxy.agent.packages.cache import Asked, Fetched, Packages
from galaxy.errors import BadMessage
from galaxy.ids import container_key
from galaxy.model.base import Struct, check_wire
from galaxy.model.messages.pod import PodOrder
from galaxy.model.messages.worker import (
    PACKET_BYTES_MAX,
    Exec,
    ExecEnded,
    ExecStarted,
    FromWorker,
    Order,
    Package,
    Quit,
    Report,
    ToWorker,
    WantPackage,
    WorkerLog,
)
from galaxy.statemachine.backoff import Backoff

_LOG: Final = logging.getLogger(__name__)
RECONNECT_S: Final = 0.05
RECONNECT_S_MAX: Final = 2.0
FETCHES_MAX: Final = 16
"""Packages that one container may be waiting for at once."""
PACKETS_AT_ONCE: Final = 16

ExecSink = Callable[[ExecStarted | ExecEnded | None, list[int]], None]
"""Told what became of an exec, with files that are its own to close; None: the link is gone."""


class _Place(Struct, frozen=True, kw_only=True):
    container: str
    incarnation: int
    path: str


class _Wanted:
    """A container that we want to be connected with."""

    def __init__(self, place: _Place) -> None:
        self.place = place
        self.link: WorkerConnection | None = None
        self.retry_at_s = 0.0
        self.backoff = Backoff(RECONNECT_S, RECONNECT_S_MAX)
        self.fetches = 0
        self.execs: dict[int, ExecSink] = {}

    def later(self) -> None:
        """Wait before the next try, longer each time until a packet has come."""
        self.retry_at_s = time.monotonic() + self.backoff.next_s()


class WorkerConnections:
    """Connections by life. Belongs to the loop's thread; ``call_soon`` comes back to it."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        packages: Packages,
        *,
        happened: Callable[[Struct], None],
        call_soon: Callable[[Callable[[], None]], None],
    ) -> None:
        self._selector = selector
        self._packages = packages
        self._happened = happened
        self._call_soon = call_soon
        self._wanted: dict[str, _Wanted] = {}
        self._buffer = bytearray(PACKET_BYTES_MAX + 1)
        # Beyond those of an agent before us, whose commands may still be ending.
        self._requests = time.time_ns() // 1_000_000

    def connect(self, container: str, incarnation: int, path: Path) -> None:
        """Connect, and connect again whenever the connection breaks, until ``disconnect``."""
        key = container_key(container, incarnation)
        if key not in self._wanted:
            place = _Place(container=container, incarnation=incarnation, path=str(path))
            self._wanted[key] = _Wanted(place)
            self._try(key, self._wanted[key])

    def disconnect(self, container: str, incarnation: int) -> None:
        wanted = self._wanted.pop(container_key(container, incarnation), None)
        if wanted is not None:
            self._drop(wanted)

    def wake_s(self) -> float | None:
        """Return when a connection is to be tried again."""
        broken = (wanted.retry_at_s for wanted in self._wanted.values() if wanted.link is None)
        return min(broken, default=None)

    def turn(self) -> None:
        """Try again what is due."""
        now_s = time.monotonic()
        for key, wanted in tuple(self._wanted.items()):
            if wanted.link is None and wanted.retry_at_s <= now_s:
                self._try(key, wanted)

    def deliver(self, container: str, incarnation: int, order: PodOrder) -> None:
        self._send(container_key(container, incarnation), Order(order=order))

    def quit(self, container: str, incarnation: int, stop_timeout: float) -> None:
        self._send(container_key(container, incarnation), Quit(stop_timeout=stop_timeout))

    def begin_exec(
        self, container: str, incarnation: int, exec_: Exec, files: tuple[int, ...], sink: ExecSink
    ) -> int:
        """Ask for a command to be run; return the request's number, 0 when nobody is there.

        ``files`` are closed here. ``exec_.request`` is replaced by a number of our own.
        """
        wanted = self._wanted.get(container_key(container, incarnation))
        if wanted is None or wanted.link is None:
            for fd in files:
                os.close(fd)
            return 0
        self._requests += 1
        number = self._requests
        wanted.execs[number] = sink
        self._send(container_key(container, incarnation), replace(exec_, request=number), files)
        return number

    def exec_packet(self, container: str, incarnation: int, packet: ToWorker) -> None:
        self._send(container_key(container, incarnation), packet)

    def close(self) -> None:
        for wanted in self._wanted.values():
            self._drop(wanted)
        self._wanted.clear()

    # ---- one connection

    def _try(self, key: str, wanted: _Wanted) -> None:
        try:
            wanted.link = WorkerConnection(Path(wanted.place.path), self._buffer)
        except OSError:
            wanted.later()
            return
        self._selector.register(wanted.link, selectors.EVENT_READ, lambda mask: self._ready(key, mask))
        place = wanted.place
        self._happened(WorkerConnected(container=place.container, incarnation=place.incarnation))

    def _drop(self, wanted: _Wanted) -> None:
        link, wanted.link = wanted.link, None
        if link is None:
            return
        with contextlib.suppress(KeyError):
            self._selector.unregister(link)
        link.close()
        sinks, wanted.execs = wanted.execs, {}
        for sink in sinks.values():
            sink(None, [])
        place = wanted.place
        self._happened(WorkerLost(container=place.container, incarnation=place.incarnation))

    def _send(self, key: str, packet: ToWorker, files: tuple[int, ...] = ()) -> None:
        wanted = self._wanted.get(key)
        if wanted is None or wanted.link is None:
            for fd in files:
                os.close(fd)
            return
        try:
            wanted.link.send(packet, files)
            self._interest(wanted.link)
        except WorkerConnectionBroken as broken:
            self._broken(key, wanted, broken)

    def _interest(self, link: WorkerConnection) -> None:
        mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.blocked else 0)
        key = self._selector.get_key(link)
        if key.events != mask:
            self._selector.modify(link, mask, key.data)

    def _broken(self, key: str, wanted: _Wanted, why: WorkerConnectionBroken) -> None:
        _LOG.info("event=worker.lost container=%s cause=%r", key, str(why))
        wanted.later()
        self._drop(wanted)

    def _ready(self, key: str, mask: int) -> None:
        wanted = self._wanted.get(key)
        link = wanted.link if wanted is not None else None
        if wanted is None or link is None:
            return
        try:
            if mask & selectors.EVENT_WRITE:
                link.flush()
                self._interest(link)
            for _ in range(PACKETS_AT_ONCE):
                received = link.receive() if wanted.link is link else None
                if received is None:
                    return
                wanted.backoff.reset()
                self._take(key, wanted, *received)
        except WorkerConnectionBroken as broken:
            self._broken(key, wanted, broken)

    def _take(self, key: str, wanted: _Wanted, packet: FromWorker, files: list[int]) -> None:
        place = wanted.place
        match packet:
            case ExecStarted() | ExecEnded():
                ended = isinstance(packet, ExecEnded) or bool(packet.error)
                sinks = wanted.execs
                sink = sinks.pop(packet.request, None) if ended else sinks.get(packet.request)
                if sink is not None:
                    sink(packet, files)
                    return
            case Report():
                _check_worker(packet)
                self._happened(
                    WorkerReported(container=place.container, incarnation=place.incarnation, pod=packet.pod)
                )
            case WantPackage():
                self._fetch(key, wanted, packet)
            case WorkerLog():
                reason = packet.reason
                _LOG.info("event=worker.%s container=%s text=%r", reason.code, key, reason.message[:500])
        for fd in files:
            os.close(fd)

    def _fetch(self, key: str, wanted: _Wanted, want: WantPackage) -> None:
        if wanted.fetches >= FETCHES_MAX:
            self._send(key, Package(request=want.request, error="too many packages asked for at once"))
            return
        wanted.fetches += 1
        asked = Asked(source=want.source, version=want.version, sha256=want.sha256)
        link = wanted.link
        self._packages.want(
            asked, lambda got: self._call_soon(lambda: self._fetched(key, wanted, link, want, got))
        )

    def _fetched(
        self, key: str, wanted: _Wanted, link: WorkerConnection | None, want: WantPackage, got: Fetched
    ) -> None:
        wanted.fetches -= 1
        if got.error:
            _LOG.warning("event=package.failed container=%s cause=%r", key, got.error)
        files = (got.fd,) if got.fd >= 0 else ()
        if wanted.link is not link or self._wanted.get(key) is not wanted:
            for fd in files:  # It will ask again over its new connection.
                os.close(fd)
            return
        self._send(key, Package(request=want.request, error=got.error, retry=got.retry), files)


def _check_worker(report: Report) -> None:
    """Refuse an AppWorker of a release too far from ours; its programs run on.

    Raises:
        LinkBroken: what it says would be misread.
    """
    try:
        check_wire(report.wire)
    except BadMessage as error:
        hint = "run an agent that is nearer to its release, or remove the container"
        raise WorkerConnectionBroken(f"its AppWorker: {error.message}; {hint}") from error
