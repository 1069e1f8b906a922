"""One agent for each test."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.agent.harness import Agent, await_no_launchers
from tests.support.redis_server import RedisServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.root)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture
def agent(redis_server: RedisServer) -> Iterator[Agent]:
    folder = Path(tempfile.mkdtemp(prefix=f"galaxy-agent-{uuid.uuid4().hex[:6]}-"))
    made = Agent(folder, redis_server.url)
    try:
        made.start()
        yield made
    finally:
        made.end()
        made.nexus.close()
        left = await_no_launchers(folder)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        assert not left, f"launchers {left} outlived the test"
