"""The publisher pushes one list item per message, in the format that Celery workers read."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from galaxy.errors import BadMessage, Unreachable
from galaxy.model.api.jobs import StopJob
from galaxy.model.api.request import Request
from galaxy.model.base import WIRE_VERSION
from galaxy.model.step import Send
from galaxy.nexus import Nexus
from galaxy.nexus.envelope import Payload, decode_call, read
from galaxy.nexus.publisher import BATCH, Publisher
from tests.support.redis_server import RedisServer
from tests.support.waiting import within_limit


@pytest.fixture
def nexus(redis_server: RedisServer) -> Iterator[Nexus]:
    nexus = Nexus.connect(redis_server.url, name="reader")
    yield nexus
    nexus.close()


@pytest.fixture
def publisher(redis_server: RedisServer) -> Iterator[Publisher]:
    publisher = Publisher(redis_server.url, name="publisher")
    yield publisher
    publisher.close()


def send(queue: str, job: str = "web", **over: object) -> Send:
    return Send(
        **{"queue": queue, "task": "galaxy.job.stop", "body": StopJob(job=job), "id": f"stop:{job}", **over}
    )  # type: ignore[arg-type]


def queued(nexus: Nexus, queue: str) -> list[dict[str, object]]:
    return [json.loads(item) for item in reversed(nexus.client.lrange(queue, 0, -1))]


def test_every_send_is_one_message_in_its_queue_and_order_is_kept(nexus: Nexus, publisher: Publisher) -> None:
    publisher.publish([send(f"agent.h{n % 3}", job=f"j{n}") for n in range(9)])
    for host in range(3):
        ids = [message["headers"]["id"] for message in queued(nexus, f"agent.h{host}")]  # type: ignore[index]
        assert ids == [f"stop:j{n}" for n in range(9) if n % 3 == host]


def test_messages_to_a_thousand_hosts_go_in_a_few_round_trips(nexus: Nexus, publisher: Publisher) -> None:
    publisher.publish([send("warm")])
    start_s = time.perf_counter()
    publisher.publish([send(f"agent.h{n}") for n in range(1000)])
    print(f"\n1000 messages: {(time.perf_counter() - start_s) * 1000:.1f} ms")
    assert len(nexus.client.keys("agent.*")) == 1000
    assert not nexus.client.keys("_kombu*")


def test_message_decodes_to_its_struct_and_its_headers_show_nothing_of_it(
    nexus: Nexus, publisher: Publisher
) -> None:
    publisher.publish([send("q", job="secret-job", id="1")])
    (message,) = queued(nexus, "q")
    headers = message["headers"]
    assert isinstance(headers, dict)
    assert "secret" not in json.dumps(headers)
    args, kwargs, _ = decode_call(json.dumps(message["body"]))
    assert args == []
    assert read(kwargs["v"], kwargs["body"], StopJob) == StopJob(job="secret-job")
    assert "secret" not in repr(kwargs)
    left_s = (datetime.fromisoformat(headers["expires"]) - datetime.now(UTC)).total_seconds()
    assert 50 < left_s <= 60


def test_message_of_a_request_names_the_queue_of_its_answer(nexus: Nexus, publisher: Publisher) -> None:
    request = Request(op="galaxy.job.stop", key="k", reply="r-9", deadline_s=1.0, body=StopJob(job="x"))
    publisher.publish([send("q", body=request)])
    (message,) = queued(nexus, "q")
    assert message["properties"]["reply_to"] == "r-9"  # type: ignore[index]


def test_body_that_cannot_be_encoded_is_left_out_and_the_others_are_sent(
    nexus: Nexus, publisher: Publisher
) -> None:
    publisher.publish([send("q", job="a"), send("q", body=object()), send("q", job="b")])
    assert len(queued(nexus, "q")) == 2


def test_message_that_redis_refuses_is_left_out_and_the_others_are_sent_once(
    nexus: Nexus, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    nexus.client.set("agent.h2", "not a list")
    publisher.publish([send("warm")])
    publisher.publish([send(f"agent.h{n % 5}", job=f"j{n}") for n in range(2 * BATCH)])
    assert [nexus.client.llen(f"agent.h{host}") for host in (0, 1, 3, 4)] == [2 * BATCH // 5] * 4
    assert "event=send.refused queue=agent.h2" in caplog.text


def test_stopped_server_is_unreachable_and_a_restarted_one_is_used_again(
    redis_server: RedisServer, nexus: Nexus, publisher: Publisher
) -> None:
    publisher.publish([send("q")])
    redis_server.stop()
    for _ in range(2):
        with pytest.raises(Unreachable, match="cannot publish"):
            publisher.publish([send("q")])
    redis_server.start()
    publisher.publish([send("q")])
    redis_server.stop()
    redis_server.start()
    publisher.publish([send("q")])
    assert len(queued(nexus, "q")) == 3


def test_hung_server_is_unreachable_within_seconds(redis_server: RedisServer, publisher: Publisher) -> None:
    publisher.publish([send("q")])
    redis_server.pause()

    def refused() -> None:
        with pytest.raises(Unreachable):
            publisher.publish([send("q")])

    within_limit("failed", 7.0, refused)
    redis_server.resume()


@pytest.mark.parametrize("v", [None, 0, 1, WIRE_VERSION - 1, WIRE_VERSION + 1, "3", True, 2.5, {"a": 2}])
def test_another_wire_version_is_a_bad_message(v: object) -> None:
    with pytest.raises(BadMessage, match="wire version"):
        read(v, Payload(b'{"job":"x"}'), StopJob)


def test_call_without_a_body_is_a_bad_message() -> None:
    for body in (None, "{}", {"job": "x"}):
        with pytest.raises(BadMessage, match="no StopJob"):
            read(WIRE_VERSION, body, StopJob)


def test_opened_publisher_sends_its_first_message_without_a_further_connection(
    nexus: Nexus, publisher: Publisher
) -> None:
    publisher.open()
    before = nexus.client.info("stats")["total_connections_received"]
    publisher.publish([send("opened")])
    assert nexus.client.info("stats")["total_connections_received"] == before
    assert len(queued(nexus, "opened")) == 1


def test_opening_again_replaces_every_connection(nexus: Nexus, publisher: Publisher) -> None:
    def ours() -> set[str]:
        return {client["id"] for client in nexus.client.client_list() if client["name"] == "publisher"}

    publisher.open()
    first = ours()
    publisher.open()
    assert first
    assert not first & ours()
    publisher.publish([send("opened")])
    assert len(queued(nexus, "opened")) == 1


def test_publisher_opened_while_redis_is_away_works_when_it_is_back(
    redis_server: RedisServer,
) -> None:
    publisher = Publisher(redis_server.url, name="publisher")
    redis_server.stop()
    publisher.open()
    with pytest.raises(Unreachable):
        publisher.publish([send("early")])
    redis_server.start()
    publisher.publish([send("late")])
    publisher.close()
