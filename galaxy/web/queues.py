"""Lengths of queues for Flower's broker page, when Redis is found through Sentinels.

Flower's own implementation asks a single Sentinel, and does not support TLS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import flower.views

from galaxy.nexus.connection import open_client


class Queues:
    """Implements the interface of Flower's brokers."""

    def __init__(self, url: str) -> None:
        self._client = open_client(url, name="web")

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return the name and the number of messages of every queue."""
        return await asyncio.get_running_loop().run_in_executor(None, self._lengths, sorted(names))

    def _lengths(self, names: list[str]) -> list[dict[str, Any]]:
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.llen(name)
        return [
            {"name": name, "messages": int(length)}
            for name, length in zip(names, pipe.execute(), strict=True)
        ]


def read_queues_through_sentinels(url: str) -> None:
    """Make Flower read the lengths of queues from the current master."""
    queues = Queues(url)
    flower.views.Broker = lambda *_, **__: queues
