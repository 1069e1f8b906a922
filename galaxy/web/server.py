"""Flower on Galaxy's own Celery application: every role is a worker in it, every message a task.

Flower 2.2 is started through the same helpers as its own command uses; they are not a public
interface, hence the pin in pyproject.toml.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
from typing import Any, Final

from celery import Celery
from flower.app import Flower
from flower.command import apply_env_options, extract_settings
from flower.options import options
from flower.urls import settings
from kombu.exceptions import OperationalError

from galaxy.driver import notify
from galaxy.web.log_filter import RepeatedLineFilter

LOOPBACK: Final = "127.0.0.1"
OPTIONS: Final[dict[str, Any]] = {
    "read_only": True,  # looking is for all; changing goes through AppMaster, which asks who you are
    "enable_events": False,  # our workers send events by themselves; asking all of them each 5 s is a storm
    "purge_offline_workers": 86_400,
    "max_workers": 20_000,  # the default of 5,000 silently forgets the rest
    "max_tasks": 20_000,
    "inspect_timeout": 5_000.0,
    "natural_time": True,
    "tasks_columns": "name,state,worker,args,received,runtime,uuid",
}
"""Flower's settings here; FLOWER_* in the environment overrides each, FLOWER_BASIC_AUTH adds one."""


WAKES_S: Final = (0.3, 1.0, 2.0, 4.0, 8.0)
"""When all workers are asked for a heartbeat, in seconds after the start.

Flower asks once, and often before its own subscription has reached Redis: the answers are lost,
and the workers unseen until their next heartbeat, half a minute later.
"""


def serve(app: Celery, *, port: int, address: str = LOOPBACK) -> None:
    """Serve Flower until SIGTERM or SIGINT; says READY=1 once it listens.

    Raises:
        OSError: the port is taken.
    """
    configure(address=address, port=port)
    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    logging.getLogger("flower.events").addFilter(RepeatedLineFilter())
    flower = Flower(capp=app, options=options, **settings)
    atexit.register(flower.stop)
    signal.signal(signal.SIGTERM, _end)
    listening = flower.start_http_server()
    for pause_s in WAKES_S:
        flower.io_loop.call_later(pause_s, flower.io_loop.run_in_executor, None, _wake_workers, app)
    flower.io_loop.add_callback(notify.ready, f"http://{address}:{listening}/")
    try:
        flower.start()
    except (KeyboardInterrupt, SystemExit):
        # Flower's own threads block on the broker; nothing of theirs is worth waiting for.
        logging.shutdown()
        os._exit(0)


def configure(*, address: str, port: int) -> None:
    """Set Flower's options: ours, then what the environment says, then where to listen."""
    for name, value in OPTIONS.items():
        setattr(options, name, value)
    apply_env_options()
    options.address = address
    options.port = port
    extract_settings()


def _wake_workers(app: Celery) -> None:
    # A broker that is away is waited for by Flower itself; then the next heartbeat shows them.
    with contextlib.suppress(OperationalError):
        app.control.broadcast("heartbeat")


def _end(*_: object) -> None:
    raise SystemExit(0)
