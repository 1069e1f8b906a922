"""Deletes what Redis has of agents that are not known any more. Their logins are deleted by ``admin``."""

from __future__ import annotations

from collections.abc import Sequence

import redis

from galaxy.model.messages import names
from galaxy.nexus import keys
from galaxy.nexus.connection import reaching


def forget_agents(client: redis.Redis, agents: Sequence[str], address: str) -> None:
    """Delete heartbeats, usage, mailboxes, queues and unacknowledged messages of ``agents``."""
    if not agents:
        return
    with reaching(address):
        pipe = client.pipeline(transaction=False)
        pipe.zrem(keys.HEARTBEATS, *agents)
        pipe.hdel(keys.HEARTBEAT_FACTS, *agents)
        pipe.hdel(keys.USAGES, *agents)
        pipe.hdel(keys.METERS, *agents)
        for role in names.PARTS:
            pipe.zrem(keys.reporting(role), *agents)
        for agent in agents:
            pipe.delete(*keys.of_agent(agent))
        pipe.execute()
