"""What one message costs: bytes in Redis, and microseconds of CPU to publish and to receive it.

    python -m bench.messages --messages 2000 --pods 10

Publishes orders with the production publisher to a Redis that it starts, then receives them with the
production transport: parse the list item, decode the call as Celery's pool does, decode the struct,
acknowledge. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import redis
from kombu import Connection, Queue
from kombu.serialization import loads

from galaxy.model.base import encode
from galaxy.model.messages import names
from galaxy.model.messages.container import ContainerOrders, DestroyContainer
from galaxy.model.step import Send
from galaxy.nexus.envelope import read
from galaxy.nexus.publisher import Publisher
from galaxy.nexus.sentinel_transport import Server
from galaxy.nexus.url import parse
from galaxy.tasks import app as tasks_app
from galaxy.tasks.transport import Dropped
from tests.support.redis_server import RedisServer, running_server

QUEUE = "agent.h1"


def orders(count: int) -> ContainerOrders:
    destroy = tuple(DestroyContainer(container=f"web-3f9a2c.{n}", incarnation=n + 1) for n in range(count))
    return ContainerOrders(agent="h1", epoch=1_700_000_000_000, until_s=1.8e9, destroy=destroy)


def connect(server: RedisServer) -> Connection:
    """Return a connection as a worker has it."""
    tasks_app.make_app(server.url, node="agent@h1", queues=(QUEUE,))
    url = parse(server.url)
    options = tasks_app.transport_options("agent@h1", Server(url), (QUEUE,), 1.0, Dropped())
    return Connection(
        url.server(), transport="galaxy.tasks.transport:GuardedTransport", transport_options=options
    )


def receive(server: RedisServer, count: int) -> float:
    """Return the seconds that receiving ``count`` messages took."""
    done = 0

    def take(message: Any) -> None:
        nonlocal done
        _, arguments, _ = loads(
            message.body, message.content_type, message.content_encoding, accept={message.content_type}
        )
        read(arguments["v"], arguments["body"], ContainerOrders)
        message.ack()
        done += 1

    with connect(server) as connection:
        channel = connection.channel()
        queue = Queue(QUEUE, exchange="", routing_key=QUEUE, no_declare=True, channel=channel)
        connection.Consumer([queue], channel=channel, on_message=take, auto_declare=False).consume()
        start_s = time.process_time()
        while done < count:
            connection.drain_events(timeout=30)
        return time.process_time() - start_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--pods", type=int, default=10, help="container commands in each message")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    body = orders(asked.pods)
    sends = [
        Send(queue=QUEUE, task=names.CONTAINER_APPLY, body=body, id=f"order:{n}")
        for n in range(asked.messages)
    ]
    published, received = [], []
    with running_server() as server:
        publisher = Publisher(server.url, name="bench")
        publisher.publish(sends[:10])
        client = redis.Redis.from_url(server.url)
        size = len(client.lindex(QUEUE, 0))
        receive(server, 10)
        for _ in range(asked.rounds):
            start_s = time.process_time()
            publisher.publish(sends)
            published.append((time.process_time() - start_s) / asked.messages * 1e6)
            received.append(receive(server, asked.messages) / asked.messages * 1e6)
        publisher.close()
        client.close()
    figures = {
        "struct_bytes": len(encode(body)),
        "message_bytes": size,
        "publish_us": round(statistics.median(published), 1),
        "receive_us": round(statistics.median(received), 1),
    }
    print(f"{figures['struct_bytes']} bytes of orders are a message of {size} bytes;", end=" ")
    print(f"publish {figures['publish_us']} us, receive {figures['receive_us']} us (median)")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
