"""All connections to AppWorkers, kept while their containers are ready, and the requests they carry."""

from __future__ import annotations

import contextlib
import logging
import selectors
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from galaxy.agent.connections.worker_connection import (
    PacketTooLong,
    WorkerConnection,
    WorkerConnectionBroken,
    close_all,
)
from galaxy.agent.logic.events import WorkerConnected, WorkerLost, WorkerReported
from galaxy.agent.packages.cache import FetchedPackage, PackageCache
from galaxy.agent.packages.sources import PackageId
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
    PackageAnswer,
    Quit,
    Report,
    RequestPackage,
    ToWorker,
    WorkerLog,
)
from galaxy.statemachine.backoff import Backoff

_LOG: Final = logging.getLogger(__name__)
RECONNECT_S: Final = 0.05
RECONNECT_S_MAX: Final = 2.0
FETCHES_MAX: Final = 16
"""Packages that one container may wait for at once."""
PACKETS_AT_ONCE: Final = 16

ExecOutcome = ExecStarted | ExecEnded | None
"""The outcome of an exec; None means that the connection was lost."""
ExecSink = Callable[[ExecOutcome, list[int]], None]
"""Receives each outcome of an exec, and open files, which it closes."""


class WorkerConnections:
    """Connections by container key. Belongs to the loop's thread; ``call_soon`` returns to it.

    ``emit`` receives the events for the agent's logic.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        packages: PackageCache,
        *,
        emit: Callable[[Struct], None],
        call_soon: Callable[[Callable[[], None]], None],
    ) -> None:
        self._selector = selector
        self._packages = packages
        self._emit = emit
        self._call_soon = call_soon
        self._targets: dict[str, _Target] = {}
        self._buffer = bytearray(PACKET_BYTES_MAX + 1)
        # Larger than every number that an earlier agent used, because its commands may still be ending.
        self._last_request = time.time_ns() // 1_000_000

    def connect(self, container: str, incarnation: int, path: Path) -> None:
        """Connect, and connect again whenever the connection breaks, until ``disconnect``."""
        key = container_key(container, incarnation)
        if key not in self._targets:
            target = self._targets[key] = _Target(container, incarnation, path)
            self._try(key, target)

    def disconnect(self, container: str, incarnation: int) -> None:
        target = self._targets.pop(container_key(container, incarnation), None)
        if target is not None:
            self._close(target)

    def wake_s(self) -> float | None:
        """Return when ``reconnect_due`` has something to do, by the monotonic clock."""
        broken = (target.retry_at_s for target in self._targets.values() if target.connection is None)
        return min(broken, default=None)

    def reconnect_due(self) -> None:
        """Try again to open the connections whose back-off is over."""
        now_s = time.monotonic()
        for key, target in tuple(self._targets.items()):
            if target.connection is None and target.retry_at_s <= now_s:
                self._try(key, target)

    def deliver(self, container: str, incarnation: int, order: PodOrder) -> None:
        """Send a pod order; without a connection it is dropped."""
        self._send(container_key(container, incarnation), Order(order=order))

    def quit(self, container: str, incarnation: int, stop_timeout: float) -> None:
        """Ask an AppWorker to stop its programs and exit."""
        self._send(container_key(container, incarnation), Quit(stop_timeout=stop_timeout))

    def begin_exec(
        self, container: str, incarnation: int, exec_: Exec, files: tuple[int, ...], sink: ExecSink
    ) -> int:
        """Ask for a command to be run. Return the request's number, or 0 without a connection.

        ``files`` are closed here. ``exec_.request`` is replaced by a new number.
        """
        key = container_key(container, incarnation)
        target = self._targets.get(key)
        if target is None or target.connection is None:
            close_all(files)
            return 0
        self._last_request += 1
        number = self._last_request
        target.execs[number] = sink
        if too_long := self._send(key, replace(exec_, request=number), files):
            del target.execs[number]
            sink(ExecStarted(request=number, error=f"the command is too long: {too_long}"), [])
            return 0
        return number

    def send_exec_packet(self, container: str, incarnation: int, packet: ToWorker) -> None:
        """Send a packet that belongs to a running command."""
        self._send(container_key(container, incarnation), packet)

    def close(self) -> None:
        for target in self._targets.values():
            self._close(target)
        self._targets.clear()

    # ---- one connection

    def _try(self, key: str, target: _Target) -> None:
        try:
            target.connection = WorkerConnection(target.path, self._buffer)
        except OSError:
            target.back_off()
            return
        on_ready = lambda mask: self._on_socket_ready(key, mask)  # noqa: E731
        self._selector.register(target.connection, selectors.EVENT_READ, on_ready)
        self._emit(WorkerConnected(container=target.container, incarnation=target.incarnation))

    def _close(self, target: _Target) -> None:
        connection, target.connection = target.connection, None
        if connection is None:
            return
        with contextlib.suppress(KeyError):
            self._selector.unregister(connection)
        connection.close()
        sinks, target.execs = target.execs, {}
        for sink in sinks.values():
            sink(None, [])
        self._emit(WorkerLost(container=target.container, incarnation=target.incarnation))

    def _on_broken(self, key: str, target: _Target, why: WorkerConnectionBroken) -> None:
        _LOG.info("event=worker.lost container=%s cause=%r", key, str(why))
        target.back_off()
        self._close(target)

    def _send(self, key: str, packet: ToWorker, files: tuple[int, ...] = ()) -> str:
        """Send a packet if there is a connection; return why if it is too long and was not sent."""
        target = self._targets.get(key)
        if target is None or target.connection is None:
            close_all(files)
            return ""
        try:
            target.connection.send(packet, files)
            self._select_events(target.connection)
        except PacketTooLong as error:
            return str(error)
        except WorkerConnectionBroken as broken:
            self._on_broken(key, target, broken)
        return ""

    def _select_events(self, connection: WorkerConnection) -> None:
        """Wait for room to write only while packets are queued."""
        mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.blocked else 0)
        key = self._selector.get_key(connection)
        if key.events != mask:
            self._selector.modify(connection, mask, key.data)

    def _on_socket_ready(self, key: str, mask: int) -> None:
        target = self._targets.get(key)
        connection = target.connection if target is not None else None
        if target is None or connection is None:
            return
        try:
            if mask & selectors.EVENT_WRITE:
                connection.flush()
                self._select_events(connection)
            for _ in range(PACKETS_AT_ONCE):
                received = connection.receive() if target.connection is connection else None
                if received is None:
                    return
                target.backoff.reset()
                self._on_packet(key, target, *received)
        except WorkerConnectionBroken as broken:
            self._on_broken(key, target, broken)

    def _on_packet(self, key: str, target: _Target, packet: FromWorker, files: list[int]) -> None:
        match packet:
            case ExecStarted() | ExecEnded():
                ended = isinstance(packet, ExecEnded) or bool(packet.error)
                sinks = target.execs
                sink = sinks.pop(packet.request, None) if ended else sinks.get(packet.request)
                if sink is not None:
                    sink(packet, files)
                    return
            case Report():
                _check_version(packet)
                self._emit(
                    WorkerReported(container=target.container, incarnation=target.incarnation, pod=packet.pod)
                )
            case RequestPackage():
                self._fetch(key, target, packet)
            case WorkerLog():
                reason = packet.reason
                _LOG.info("event=worker.%s container=%s text=%r", reason.code, key, reason.message[:500])
        close_all(files)

    # ---- packages

    def _fetch(self, key: str, target: _Target, request: RequestPackage) -> None:
        if target.fetches >= FETCHES_MAX:
            error = "too many packages requested at once"
            self._send(key, PackageAnswer(request=request.request, error=error))
            return
        target.fetches += 1
        package = PackageId(source=request.source, version=request.version, sha256=request.sha256)
        connection, number = target.connection, request.request
        self._packages.request(
            package,
            lambda fetched: self._call_soon(
                lambda: self._on_fetched(key, target, connection, number, fetched)
            ),
        )

    def _on_fetched(
        self,
        key: str,
        target: _Target,
        connection: WorkerConnection | None,
        request: int,
        fetched: FetchedPackage,
    ) -> None:
        target.fetches -= 1
        if fetched.error:
            _LOG.warning("event=package.failed container=%s cause=%r", key, fetched.error)
        files = (fetched.fd,) if fetched.fd >= 0 else ()
        if target.connection is not connection or self._targets.get(key) is not target:
            close_all(files)  # AppWorker asks again over its new connection.
            return
        answer = PackageAnswer(
            request=request, error=fetched.error, retry=fetched.retry, elsewhere=fetched.elsewhere
        )
        self._send(key, answer, files)


class _Target:
    """A container to connect to; ``connection`` is None while that is not possible."""

    def __init__(self, container: str, incarnation: int, path: Path) -> None:
        self.container = container
        self.incarnation = incarnation
        self.path = path
        self.connection: WorkerConnection | None = None
        self.backoff = Backoff(RECONNECT_S, RECONNECT_S_MAX)
        self.retry_at_s = 0.0
        self.fetches = 0
        self.execs: dict[int, ExecSink] = {}

    def back_off(self) -> None:
        """Wait before the next try, longer each time until a packet has arrived."""
        self.retry_at_s = time.monotonic() + self.backoff.next_s()


def _check_version(report: Report) -> None:
    """Refuse an AppWorker whose release is too far from ours; its programs keep running.

    Raises:
        WorkerConnectionBroken: its packets would be misread.
    """
    try:
        check_wire(report.wire)
    except BadMessage as error:
        hint = "run an agent of a closer release, or remove the container"
        raise WorkerConnectionBroken(f"its AppWorker: {error.message}; {hint}") from error
