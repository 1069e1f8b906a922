"""How long queues are, for Flower's page of the broker, where Sentinels know which server to ask.

Flower's own way there asks one Sentinel only, and none with TLS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import flower.views

from galaxy.nexus.connection import open_client


class Queues:
    """What Flower calls a broker."""

    def __init__(self, url: str) -> None:
        self._client = open_client(url, name="web")

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return name and number of messages of every queue."""
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
    """Have Flower ask whoever is master whenever it asks."""
    queues = Queues(url)
    flower.views.Broker = lambda *_, **__: queues
