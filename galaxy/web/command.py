"""``galaxy web`` and ``python -m galaxy.web``: Flower for one cluster."""

from __future__ import annotations

import logging
import socket

import click

from galaxy.client.contexts import given_url
from galaxy.client.login_urls import join_url
from galaxy.errors import GalaxyError, HostError
from galaxy.web.login import read_logins

WEB_QUEUE = "web"
"""The default queue that a Celery application must have. Nothing is sent to it."""

CONNECTIONS_MAX = 64
"""Flower's threads run concurrently, and each holds one connection while it waits for a second one.
With as few connections as a worker has, they would deadlock."""


@click.command()
@click.option("--dir", "directory", metavar="DIR", help="Use the cluster of this folder.")
@click.option("--redis", metavar="URL", help="Use this Redis; passwords belong in a file.")
@click.option("--redis-file", metavar="FILE", help="Use the Redis whose URL FILE contains.")
@click.option("--address", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=5555, show_default=True,
              help="The port to listen on; 0 chooses a free one.")  # fmt: skip
@click.option("--log-level", type=click.Choice(("debug", "info", "warning", "error"), case_sensitive=False),
              default="info", show_default=True, envvar="GALAXY_LOG_LEVEL",
              help="Lowest level to log.")  # fmt: skip
def web(
    directory: str | None, redis: str | None, redis_file: str | None, address: str, port: int, log_level: str
) -> None:  # fmt: skip
    """Serve Flower for a cluster until SIGTERM or Ctrl-C.

    FLOWER_BASIC_AUTH=USER:PASSWORD in the environment requires this login of every visitor.
    The password is everything after the first colon; several logins have a line each. Other
    settings of Flower can be given in the same way.
    """
    logins = read_logins()
    if address not in ("127.0.0.1", "::1", "localhost") and not logins:
        raise GalaxyError(
            f"will not show the cluster to everyone who can reach {address}",
            hint="FLOWER_BASIC_AUTH=USER:PASSWORD in the environment asks for a password",
        )
    url = join_url("web", url=given_url(redis, redis_file), dir=directory or "")
    # Imported here because Flower takes most of a second, and shell completion imports this module.
    from galaxy.container.kernel import inherited
    from galaxy.tasks.app import make_app
    from galaxy.tasks.log import set_up
    from galaxy.web.server import serve

    inherited.reset()
    set_up(log_level)
    app = make_app(url, node=f"web@{socket.gethostname()}", queues=[WEB_QUEUE])
    if url.startswith("sentinel"):
        from galaxy.web.queues import read_queues_through_sentinels

        read_queues_through_sentinels(url)
    else:
        # Flower reads lengths of queues from the broker itself, and knows Redis only by this name.
        app.conf.broker_transport = "redis"
    if url.startswith("rediss:"):
        # Flower's own Redis clients take TLS settings only from here.
        app.conf.broker_use_ssl = dict(app.connection_for_read().ssl)
    app.conf.broker_pool_limit = CONNECTIONS_MAX
    logging.getLogger("galaxy.web").info("event=web.starting address=%s port=%d", address, port)
    try:
        serve(app, address=address, port=port, logins=logins)
    except OSError as error:
        raise HostError(f"cannot listen on {address}:{port}: {error.strerror}", hint="--port 0") from error
