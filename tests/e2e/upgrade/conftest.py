"""A host for parts of any release, and nothing left of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from galaxy.cli.local import remains
from tests.support.parts import Parts
from tests.support.redis_server import RedisServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.timeout(180))
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture
def mixed(redis_server: RedisServer) -> Iterator[Parts]:
    folder = Path(tempfile.mkdtemp(prefix="galaxy-upgrade-")).resolve()
    made = Parts(folder, redis_server.url)
    try:
        yield made
    finally:
        made.end()
        print(made.words())  # Shown with a failure.
        left = remains.clear(folder, [f"{made.root}-{name}" for name in ("h1", "far")])
        shutil.rmtree(folder, ignore_errors=True)
    assert not left
