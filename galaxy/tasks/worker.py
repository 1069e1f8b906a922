"""A Celery worker in this process, with a service of ours beside it: start, stop, signals."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from typing import Any, Final, Protocol

from celery import bootsteps, signals
from celery.exceptions import SecurityWarning

from galaxy.driver import notify
from galaxy.tasks.gate import GateStep

EXIT_S: Final = 1.5
"""How long Celery may take to say good-bye after our own part has ended."""
HEARTBEAT_S: Final = 30
"""Celery's heartbeats are for Flower only; ours go to Nexus."""

log = logging.getLogger(__name__)


class Service(Protocol):
    """What runs beside the worker in threads of its own."""

    def start(self) -> None:
        """Begin; must not wait for Redis."""

    def stop(self) -> None:
        """End within a second or two; called once, from a thread of its own."""


class ServiceStep(bootsteps.StartStopStep):
    """Starts ``app.galaxy_service`` once a process, not once a connection."""

    def start(self, parent: Any) -> None:
        parent.app.galaxy_service.start()


def run_worker(app: Any, *, node: str, service: Service, concurrency: int) -> int:
    """Run until SIGTERM or SIGINT; return the exit code.

    Call it from the main thread of a process that does nothing else: Celery keeps its state in
    module globals. The service is stopped as soon as the signal arrives, while Celery still
    winds down; a Celery that cannot (Redis is gone) is left behind after ``EXIT_S``.
    """
    app.galaxy_service = service
    app.steps["worker"].add(ServiceStep)
    app.steps["consumer"].add(GateStep)
    if getattr(app, "galaxy_gate", None) is not None:
        app.galaxy_gate.prepare(app)
    leaving = threading.Event()
    gone = threading.Event()

    def begin_exit(**_: Any) -> None:
        leaving.set()

    def count_unknown(name: object = "", **_: Any) -> None:
        app.galaxy_dropped.count("unknown-task", task=name)

    def count_rejected(**_: Any) -> None:
        app.galaxy_dropped.count("undecodable")

    def keep_logging(**_: Any) -> None:
        """Being connected is what keeps Celery from configuring logging."""

    def see_off() -> None:
        leaving.wait()
        _stop(service)
        if not gone.wait(EXIT_S):
            log.warning("event=worker.abandoned node=%s after_s=%.1f", node, EXIT_S)
            sys.stderr.flush()
            os._exit(0)

    def tell_ready(**_: Any) -> None:
        log.info("event=worker.ready node=%s", node)
        notify.ready(f"{node} is ready")

    signals.task_unknown.connect(count_unknown, weak=False)
    signals.task_rejected.connect(count_rejected, weak=False)
    signals.worker_ready.connect(tell_ready, weak=False)
    signals.worker_shutting_down.connect(begin_exit, weak=False)
    signals.setup_logging.connect(keep_logging, weak=False)
    usher = threading.Thread(target=see_off, name="usher", daemon=True)
    usher.start()
    # Celery warns of root; its reason is pickle, and we take JSON only.
    warnings.filterwarnings("ignore", category=SecurityWarning)
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
    try:
        worker.start()
    finally:
        leaving.set()
        gone.set()
    usher.join(EXIT_S * 2)
    log.info("event=worker.stopped node=%s", node)
    return int(worker.exitcode or 0)


def _stop(service: Service) -> None:
    try:
        service.stop()
    except Exception:
        log.exception("event=service.stop-failed")
