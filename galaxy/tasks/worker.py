"""A Celery worker in this process, with a service of ours beside it: start, stop, signals."""

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

EXIT_S: Final = 1.5
"""How long Celery may take to say good-bye after our own part has ended."""
STOP_S: Final = 10.0
"""How long our own part may take to end."""
LOOKS: Final = (
    "active", "active_queues", "clock", "conf", "heartbeat", "hello", "ping", "query_task",
    "registered", "report", "reserved", "revoked", "scheduled", "stats",
)  # fmt: skip
"""Remote control commands that only look. Whoever may write to the mailbox (Flower) gets no other."""
HEARTBEAT_S: Final = 30
"""Celery's heartbeats are for Flower only; ours go to Nexus."""

log = logging.getLogger(__name__)


class Service(Protocol):
    """What runs beside the worker in threads of its own."""

    def start(self) -> None:
        """Begin; may take a moment, and may raise what a person can act on."""

    def stop(self) -> None:
        """End within a second or two; called once, from a thread of its own."""


def run_worker(app: Any, *, node: str, service: Service, concurrency: int) -> int:
    """Run until SIGTERM or SIGINT; return the exit code, which is 1 when Celery ended unasked.

    Call it from the main thread of a process that does nothing else: Celery keeps its state in
    module globals. The service is stopped as soon as the signal arrives, while Celery still
    winds down; a Celery that cannot (Redis is gone) is left behind after ``EXIT_S``.

    Raises:
        GalaxyError: whatever ``service.start`` raises; nothing was consumed yet.
    """
    app.steps["consumer"].add(GateStep)
    if getattr(app, "galaxy_gate", None) is not None:
        app.galaxy_gate.prepare(app)
    leaving = threading.Event()
    gone = threading.Event()
    _listen(app, node, leaving)
    # Celery warns of root; its reason is pickle, and we take JSON only.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    for command in Panel.data.keys() - set(LOOKS):
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
    usher = threading.Thread(target=_see_off, args=(service, node, leaving, gone), name="usher", daemon=True)
    usher.start()
    told = False
    try:
        worker.start()
        told = leaving.is_set()
    finally:
        leaving.set()
        gone.set()
        usher.join(STOP_S)
    log.info("event=worker.stopped node=%s told=%s", node, str(told).lower())
    return int(worker.exitcode or 0) or (0 if told else 1)


def _listen(app: Any, node: str, leaving: threading.Event) -> None:
    """Connect to Celery's signals; the app's counters and ``leaving`` are what they move."""

    def begin_exit(**_: Any) -> None:
        leaving.set()

    def tell_ready(**_: Any) -> None:
        log.info("event=worker.ready node=%s", node)
        notify.ready(f"{node} is ready")

    def count_unknown(name: object = "", **_: Any) -> None:
        app.galaxy_dropped.count("unknown-task", task=name)

    def count_rejected(**_: Any) -> None:
        app.galaxy_dropped.count("undecodable")

    def keep_logging(**_: Any) -> None:
        """Being connected is what keeps Celery from configuring logging."""

    signals.worker_shutting_down.connect(begin_exit, weak=False)
    signals.worker_ready.connect(tell_ready, weak=False)
    signals.task_unknown.connect(count_unknown, weak=False)
    signals.task_rejected.connect(count_rejected, weak=False)
    signals.setup_logging.connect(keep_logging, weak=False)


def _see_off(service: Service, node: str, leaving: threading.Event, gone: threading.Event) -> None:
    """Stop the service when the process shall leave, and then wait for Celery, but not for ever."""
    leaving.wait()
    try:
        service.stop()
    except Exception:
        log.exception("event=service.stop-failed node=%s", node)
    if not gone.wait(EXIT_S):
        log.warning("event=worker.abandoned node=%s after_s=%.1f", node, EXIT_S)
        sys.stderr.flush()
        os._exit(0)
