"""Each test module has its own launcher."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hostile import ContainerHost
from tests.support.marks import needs_root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needs_root(items, Path(__file__).parent)


@pytest.fixture(scope="module")
def host() -> Iterator[ContainerHost]:
    host = ContainerHost()
    try:
        yield host
    finally:
        host.close()
