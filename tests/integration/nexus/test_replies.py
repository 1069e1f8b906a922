"""Answers to clients: one that cannot be sent keeps no other from leaving."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from galaxy.model.api.answers import Answer, Reply
from galaxy.model.base import decode
from galaxy.nexus import Nexus
from tests.support.redis_server import RedisServer


@pytest.fixture
def nexus(redis_server: RedisServer) -> Iterator[Nexus]:
    nexus = Nexus.connect(redis_server.url, name="replies")
    yield nexus
    nexus.close()


@pytest.mark.parametrize("result", [object(), "\ud800"], ids=["no JSON", "half a character"])
def test_answer_that_cannot_be_encoded_fails_and_the_others_arrive(nexus: Nexus, result: object) -> None:
    nexus.reply(
        [
            Reply(reply="a", answer=Answer(key="a", result=1)),
            Reply(reply="b", answer=Answer(key="b", result=result)),
            Reply(reply="c", answer=Answer(key="c", result=3)),
        ]
    )
    answers = {reply: nexus.await_reply(reply, 2.0) for reply in "abc"}
    assert answers["a"] == b'{"key":"a","result":1}'
    assert answers["c"] == b'{"key":"c","result":3}'
    assert answers["b"] is not None
    problem = decode(answers["b"], Answer).problem
    assert problem is not None and "cannot be encoded" in problem.message
