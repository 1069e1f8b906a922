"""Runs a Celery worker and a service in this process: start, stop, signals."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from typing import Any, Final, Protocol

from celery import signals
from celery.exceptions import SecurityWarning
from celery.worker.control import Panel

from galaxy.driver import notify
from galaxy.tasks.gate import GateStep
from galaxy.tasks.outcomes import OutcomesStep

EXIT_S: Final = 1.5
"""How long Celery may take to stop after the service has stopped."""
STOP_S: Final = 10.0
"""How long the service may take to stop."""
READ_ONLY_COMMANDS: Final = (
    "active", "active_queues", "clock", "conf", "heartbeat", "hello", "ping", "query_task",
    "registered", "report", "reserved", "revoked", "scheduled", "stats",
)  # fmt: skip
"""Remote control commands that change nothing; all others are removed, because Flower can send them."""
HEARTBEAT_S: Final = 30
"""Celery's heartbeats are for Flower only; Galaxy's own go to Nexus."""

log = logging.getLogger(__name__)


class Service(Protocol):
    """A service that runs next to the worker, in its own threads."""

    def start(self) -> None:
        """Start; may block briefly, and may raise a ``GalaxyError``."""

    def stop(self) -> None:
        """Stop within a second or two; called once, from a thread of its own."""


def run_worker(app: Any, *, node: str, service: Service, concurrency: int) -> int:
    """Run until SIGTERM or SIGINT; return the exit code, which is 1 when Celery ended without a signal.

    Call it from the main thread of a process that does nothing else: Celery keeps its state in
    module globals. The service is stopped as soon as the signal arrives, while Celery shuts down. If
    Celery does not end within ``EXIT_S`` (Redis is gone), the process exits anyway.

    Raises:
        GalaxyError: from ``service.start``; no message was consumed yet.
    """
    app.steps["consumer"].add(GateStep)
    app.steps["consumer"].add(OutcomesStep)
    if getattr(app, "galaxy_gate", None) is not None:
        app.galaxy_gate.prepare(app)
    exiting = threading.Event()
    worker_ended = threading.Event()
    _connect_signals(app, node, exiting)
    # Celery warns about root because of pickle; only JSON is accepted here.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    for command in Panel.data.keys() - set(READ_ONLY_COMMANDS):
        del Panel.data[command]
    worker = app.Worker(
        hostname=node,
        pool="threads",
        concurrency=concurrency,
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        heartbeat_interval=HEARTBEAT_S,
        task_events=True,
        quiet=True,
        no_color=True,
    )
    log.info("event=worker.starting node=%s pid=%d", node, os.getpid())
    service.start()
    stopper = threading.Thread(
        target=_stop_on_exit, args=(service, node, exiting, worker_ended), name="stopper", daemon=True
    )
    stopper.start()
    signalled = False
    try:
        worker.start()
        signalled = exiting.is_set()
    finally:
        exiting.set()
        worker_ended.set()
        stopper.join(STOP_S)
    log.info("event=worker.stopped node=%s signalled=%s", node, str(signalled).lower())
    return int(worker.exitcode or 0) or (0 if signalled else 1)


def _connect_signals(app: Any, node: str, exiting: threading.Event) -> None:
    """Connect to Celery's signals, which update the app's counters and set ``exiting``."""

    def begin_exit(**_: Any) -> None:
        exiting.set()

    def notify_ready(**_: Any) -> None:
        log.info("event=worker.ready node=%s", node)
        notify.ready(f"{node} is ready")

    def count_unknown(name: object = "", **_: Any) -> None:
        app.galaxy_dropped.count("unknown-task", task=name)

    def count_rejected(**_: Any) -> None:
        app.galaxy_dropped.count("undecodable")

    def keep_logging(**_: Any) -> None:
        """Do nothing: a connected handler keeps Celery from configuring logging."""

    signals.worker_shutting_down.connect(begin_exit, weak=False)
    signals.worker_ready.connect(notify_ready, weak=False)
    signals.task_unknown.connect(count_unknown, weak=False)
    signals.task_rejected.connect(count_rejected, weak=False)
    signals.setup_logging.connect(keep_logging, weak=False)


def _stop_on_exit(
    service: Service, node: str, exiting: threading.Event, worker_ended: threading.Event
) -> None:
    """Stop the service when the process exits, then wait for Celery, at most ``EXIT_S``."""
    exiting.wait()
    try:
        service.stop()
    except Exception:
        log.exception("event=service.stop-failed node=%s", node)
    if not worker_ended.wait(EXIT_S):
        log.warning("event=worker.abandoned node=%s after_s=%.1f", node, EXIT_S)
        sys.stderr.flush()
        os._exit(0)
