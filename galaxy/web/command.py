"""``galaxy web`` and ``python -m galaxy.web``: Flower for one cluster."""

from __future__ import annotations

import logging
import os
import socket

import click

from galaxy.client.login_urls import join_url
from galaxy.errors import GalaxyError, HostError

WEB_QUEUE = "web"
"""Nothing is sent to it: Flower only looks. A Celery application must have a default queue."""

POOL_LIMIT = 64


@click.command()
@click.option("--dir", "directory", metavar="DIR", help="The cluster of this folder.")
@click.option("--redis", metavar="URL", help="The cluster with this Redis; better in GALAXY_REDIS.")
@click.option("--address", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=5555, show_default=True)
@click.option("--log-level", type=click.Choice(("debug", "info", "warning", "error"), case_sensitive=False),
              default="info", show_default=True, help="What goes to the log.")  # fmt: skip
def web(directory: str | None, redis: str | None, address: str, port: int, log_level: str) -> None:
    """Serve Flower for a cluster until it is told to end.

    FLOWER_BASIC_AUTH=user:password in the environment asks every visitor for it; other
    settings of Flower can be given in the same way.
    """
    if address not in ("127.0.0.1", "::1", "localhost") and not os.environ.get("FLOWER_BASIC_AUTH"):
        raise GalaxyError(
            f"will not show the cluster to everybody who reaches {address}",
            hint="FLOWER_BASIC_AUTH=user:password in the environment asks for a password",
        )
    url = join_url("web", url=redis or "", dir=directory or "")
    # Flower takes most of a second to import: other commands must not pay for it.
    from galaxy.tasks.app import make_app
    from galaxy.tasks.log import set_up
    from galaxy.web.server import serve

    set_up(log_level)
    app = make_app(url, node=f"web@{socket.gethostname()}", queues=[WEB_QUEUE])
    if url.startswith("sentinel"):
        from galaxy.web.queues import read_queues_through_sentinels

        read_queues_through_sentinels(url)
    else:
        # Flower asks the broker itself how long queues are, and knows Redis only by its own name.
        app.conf.broker_transport = "redis"
    if url.startswith("rediss:"):
        # Flower's own clients know of TLS by this setting only.
        app.conf.broker_use_ssl = dict(app.connection_for_read().ssl)
    # Its threads ask at the same time, and each holds a connection while it waits for a second one:
    # with as few as a worker has they wait for each other.
    app.conf.broker_pool_limit = POOL_LIMIT
    logging.getLogger("galaxy.web").info("event=web.starting address=%s port=%d", address, port)
    try:
        serve(app, address=address, port=port)
    except OSError as error:
        raise HostError(f"cannot listen on {address}:{port}: {error.strerror}", hint="--port 0") from error
