"""Requests of clients: changes are answered by the loop, queries beside it, and errors by a problem."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from galaxy.model.api.agents import ListAgents
from galaxy.model.api.answers import Answer
from galaxy.model.api.cluster import ClusterStatus
from galaxy.model.api.jobs import Discover, StopJob
from galaxy.model.api.request import Request
from galaxy.model.base import Struct, decode
from galaxy.model.step import Send
from galaxy.nexus import Nexus
from galaxy.nexus.publisher import Publisher
from tests.support.redis_server import RedisServer
from tests.support.tally_node import running_node


class Client:
    """Sends requests and waits for their answers."""

    def __init__(self, url: str) -> None:
        self.nexus = Nexus.connect(url, name="client")
        self.publisher = Publisher(url, name="client")

    def ask(
        self, op: str, body: Struct, *, task: str = "", deadline_s: float = 60.0, timeout_s: float = 60.0
    ) -> Answer | None:
        request = Request(
            op=op, key="key-1", reply=f"reply-{op}", deadline_s=time.time() + deadline_s, body=body
        )
        self.publisher.publish([Send(queue="tally", task=task or op, body=request, id="request-1")])
        data = self.nexus.await_reply(request.reply, timeout_s)
        return None if data is None else decode(data, Answer)


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Client]:
    with running_node(redis_server.url, "h1") as node:
        node.await_log("event=worker.ready")
        client = Client(redis_server.url)
        yield client
        client.publisher.close()
        client.nexus.close()


def test_request_reaches_the_loop_with_its_body_typed(client: Client) -> None:
    answer = client.ask("galaxy.job.stop", StopJob(job="web"))
    assert answer == Answer(key="key-1", result={"job": "web"})


def test_read_only_request_is_answered_beside_the_loop(client: Client) -> None:
    answer = client.ask("galaxy.agent.list", ListAgents())
    assert answer == Answer(key="key-1", result="at once")


def test_error_of_a_read_only_request_is_answered_with_the_problem(client: Client) -> None:
    answer = client.ask("galaxy.cluster.status", ClusterStatus())
    assert answer is not None and answer.problem is not None
    assert (answer.problem.kind, answer.problem.hint) == ("not-found", "galaxy up")


def test_request_with_a_body_of_another_kind_is_answered_with_the_problem(client: Client) -> None:
    answer = client.ask("galaxy.job.stop", Discover(service="x"))
    assert answer is not None and answer.problem is not None
    assert answer.problem.kind == "bad-message"
    assert "not a StopJob" in answer.problem.message


def test_request_sent_as_another_task_is_refused(client: Client) -> None:
    answer = client.ask("galaxy.job.stop", StopJob(job="web"), task="galaxy.job.remove")
    assert answer is not None and answer.problem is not None
    assert answer.problem.kind == "bad-message"


def test_request_from_a_host_whose_clock_is_a_minute_behind_is_answered(
    client: Client,
) -> None:
    assert client.ask("galaxy.job.stop", StopJob(job="web"), deadline_s=-60.0) is not None
