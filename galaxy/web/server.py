"""Flower on Galaxy's own Celery application: each role is a worker, and each message a task.

Flower 2.2 is started through the same helpers that its own command uses. They are not a public
interface, hence the pin in pyproject.toml.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
from collections.abc import Sequence
from typing import Any, Final

from celery import Celery
from flower.app import Flower
from flower.command import apply_env_options, extract_settings
from flower.options import options
from flower.urls import settings
from kombu.exceptions import OperationalError

from galaxy.driver import notify
from galaxy.errors import UsageError
from galaxy.web.log_filter import RepeatedLineFilter
from galaxy.web.login import require

LOOPBACK: Final = "127.0.0.1"
OPTIONS: Final[dict[str, Any]] = {
    "read_only": True,  # changes go through AppMaster, which authenticates users
    "enable_events": False,  # workers send events unasked; asking all of them every 5 s floods the broker
    "purge_offline_workers": 86_400,
    "max_workers": 20_000,  # beyond the default of 5,000 Flower silently drops workers
    "max_tasks": 2_500,  # of about 6 KB each; the default of 100,000 takes more memory than all of Galaxy
    "inspect_timeout": 5_000.0,
    "natural_time": True,
    "tasks_columns": "name,state,worker,args,received,runtime,uuid",
}
"""Flower's settings. FLOWER_* in the environment overrides each; FLOWER_BASIC_AUTH adds a password."""

HEARTBEAT_REQUESTS_S: Final = (0.3, 1.0, 2.0, 4.0, 8.0)
"""When all workers are asked for a heartbeat, in seconds after the start.

Flower asks once, often before its own subscription has reached Redis. The answers are lost then, and
workers stay invisible until their next heartbeat, up to half a minute later.
"""


def serve(app: Celery, *, port: int, address: str = LOOPBACK, logins: Sequence[str] = ()) -> None:
    """Serve Flower until SIGTERM or SIGINT; send READY=1 (sd_notify) once it listens.

    With ``logins`` (``USER:PASSWORD``) it asks every visitor for one of them.

    Raises:
        OSError: the port is taken.
        UsageError: a variable of Flower's has a wrong value.
    """
    configure(address=address, port=port, logins=logins)
    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    logging.getLogger("flower.events").addFilter(RepeatedLineFilter())
    flower = Flower(capp=app, options=options, **settings)
    atexit.register(flower.stop)
    signal.signal(signal.SIGTERM, _exit)
    bound_port = flower.start_http_server()
    for delay_s in HEARTBEAT_REQUESTS_S:
        flower.io_loop.call_later(delay_s, flower.io_loop.run_in_executor, None, _request_heartbeats, app)
    flower.io_loop.add_callback(notify.ready, f"http://{address}:{bound_port}/")
    try:
        flower.start()
    except (KeyboardInterrupt, SystemExit):
        # Flower's threads block on the broker; a normal exit would wait for them.
        logging.shutdown()
        os._exit(0)


def configure(*, address: str, port: int, logins: Sequence[str] = ()) -> None:
    """Set Flower's options: ours, then those of the environment, then the address and the logins."""
    for name, value in OPTIONS.items():
        setattr(options, name, value)
    try:
        apply_env_options()
    except ValueError as error:
        raise UsageError(f"a variable FLOWER_... has a wrong value: {error}") from error
    options.basic_auth = list(logins)
    if logins:
        require(logins)
    options.address = address
    options.port = port
    extract_settings()


def _request_heartbeats(app: Celery) -> None:
    # While the broker is away Flower waits for it, and the next regular heartbeat shows the workers.
    with contextlib.suppress(OperationalError):
        app.control.broadcast("heartbeat")


def _exit(*_: object) -> None:
    raise SystemExit(0)
