"""A worker's transport keeps messages whose connection is lost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from kombu import Connection, Message, Queue

from galaxy.model.messages import names
from galaxy.model.messages.container import ContainerOrders
from galaxy.model.step import Send
from galaxy.nexus.publisher import Publisher
from galaxy.nexus.sentinel_transport import Server
from galaxy.nexus.url import parse
from galaxy.tasks.app import transport_options
from galaxy.tasks.transport import Dropped
from tests.support.redis_server import RedisServer

QUEUE = "orders"


def connected(url: str) -> Connection:
    server = parse(url)
    options = transport_options("agent@h1", Server(server), (QUEUE,), 1.0, Dropped())
    return Connection(
        server.server(), transport="galaxy.tasks.transport:GuardedTransport", transport_options=options
    )


@pytest.mark.parametrize("settle", [Message.ack, Message.reject, Message.requeue])
def test_message_settled_after_its_connection_is_gone_stays_for_the_next(
    redis_server: RedisServer, settle: Callable[[Message], None]
) -> None:
    with connected(redis_server.url) as first:
        channel = first.channel()
        queue = Queue(QUEUE, exchange="", routing_key=QUEUE, no_declare=True, channel=channel)
        publisher = Publisher(redis_server.url, name="t")
        orders = ContainerOrders(agent="h1", epoch=1, until_s=1e12)
        publisher.publish([Send(queue=QUEUE, task=names.CONTAINER_APPLY, body=orders, id="order")])
        publisher.close()
        messages: list[Message] = []
        first.Consumer([queue], channel=channel, on_message=messages.append, auto_declare=False).consume()
        while not messages:
            first.drain_events(timeout=30)
        redis_server.stop()
        with suppress(*first.connection_errors):
            first.drain_events(timeout=5)
        first.collect()  # As Celery does, even while messages are being handled.
        channel.close()
        redis_server.start()
        settle(messages[0])
    with connected(redis_server.url) as second:
        client = second.channel().client
        assert client.hlen("agent@h1.unacked") + client.llen(QUEUE) == 1
