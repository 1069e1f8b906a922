"""The Celery application and its settings, which were tested with Celery 5.7 on Redis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from celery import Celery
from kombu import Queue
from kombu.serialization import register

from galaxy.driver.report_reader import ReportCounts
from galaxy.model.api.answers import Reply
from galaxy.nexus.connection import CONNECT_S
from galaxy.nexus.envelope import CALL_TYPE, decode_call
from galaxy.nexus.sentinel import Sentinels
from galaxy.nexus.sentinel_transport import OPTION, Server
from galaxy.nexus.url import parse
from galaxy.tasks.backend import ReplyBackend
from galaxy.tasks.outcomes import Outcomes
from galaxy.tasks.task import GalaxyTask
from galaxy.tasks.transport import Dropped

SOCKET_S: Final = 15
"""Must be longer than ``polling_s``, because it ends the broker's blocking read."""
CALLS: Final = "galaxy-call"
"""Celery's name for the decoder of our messages' bodies; ``json`` is for remote control."""
VISIBILITY_S: Final = 120
"""After this an unacknowledged message is delivered again; much longer than any handler runs."""


def make_app(
    url: str,
    *,
    node: str,
    queues: Sequence[str],
    polling_s: float = 1.0,
    reply: Callable[[Sequence[Reply]], None] | None = None,
    sentinels: Sentinels | None = None,
    reports: ReportCounts | None = None,
) -> Any:
    """Return an app for the process ``node`` (``agent@h1``) that may consume ``queues``.

    Unacknowledged messages are kept under the node's own keys: no other worker restores them, and no
    login needs access to those of others. Queues are plain lists behind the default exchange: nothing
    is declared, so there is no binding that could be lost. ``polling_s`` bounds how long a stop takes.
    ``sentinels`` is shared with the other connections of this process to the same Redis, so that all
    follow a new master together. ``inspect stats`` shows ``reports`` among the transport's options.

    Raises:
        UsageError: ``url`` is not a Redis URL.
    """
    parsed = parse(url)
    register(CALLS, None, decode_call, content_type=CALL_TYPE)
    app = Celery(
        "galaxy", broker=parsed.server(), backend=ReplyBackend, task_cls=GalaxyTask, set_as_current=False
    )
    app.galaxy_reply = reply
    app.galaxy_dropped = Dropped()
    app.galaxy_outcomes = Outcomes()
    app.conf.update(
        broker_transport="galaxy.tasks.transport:GuardedTransport",
        broker_transport_options=transport_options(
            node, Server(parsed, sentinels), queues, polling_s, app.galaxy_dropped
        )
        | ({} if reports is None else {"reports": reports}),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_acquire_timeout=5,
        broker_pool_limit=4,
        task_queues=[Queue(name, routing_key=name, no_declare=True) for name in queues],
        task_default_queue=queues[0],
        task_create_missing_queues=False,
        task_serializer="json",
        result_serializer="json",
        event_serializer="json",
        accept_content=["json", CALLS],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        task_publish_retry_policy={
            "max_retries": 3,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 1,
        },
        worker_consumer="galaxy.tasks.consumer:Consumer",
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=True,
        worker_send_task_events=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        enable_utc=True,
    )
    return app


def transport_options(
    node: str, server: Server, queues: Sequence[str], polling_s: float, dropped: Dropped
) -> dict[str, Any]:
    """Return kombu's options for a worker's broker connection."""
    return {
        "socket_timeout": SOCKET_S,
        "socket_connect_timeout": CONNECT_S,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "visibility_timeout": VISIBILITY_S,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 2,
        "polling_interval": polling_s,
        "unacked_key": f"{node}.unacked",
        "unacked_index_key": f"{node}.unacked_index",
        "unacked_mutex_key": f"{node}.unacked_mutex",
        "priority_steps": [0],
        "client_name": node,
        "queues": tuple(queues),
        "dropped": dropped,
        OPTION: server,
    }
