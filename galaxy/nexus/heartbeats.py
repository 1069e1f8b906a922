"""Heartbeats: agents write them, leaders read all of them at once. All times are by Redis' clock."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import redis
from msgspec.structs import replace

from galaxy.errors import BadMessage
from galaxy.model.base import WIRE_VERSION, Struct, decode, encode
from galaxy.model.messages.agent import AgentUsage, Heartbeat, HeartbeatsRead, MeterSample
from galaxy.nexus import keys
from galaxy.nexus.connection import reaching
from galaxy.nexus.mailboxes import UNREAD, UNREAD_MAX

T = TypeVar("T", bound=Struct)

TROUBLE_MAX: Final = 300
"""Longest reason why an agent cannot carry out orders, in characters."""

_WRITE: Final = """
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] .. '.' .. string.format('%06d', time[2]), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
if ARGV[3] ~= '' then redis.call('HSET', KEYS[3], ARGV[1], ARGV[3]) end
if ARGV[4] ~= '' then redis.call('HSET', KEYS[4], ARGV[1], ARGV[4]) end
return time
"""

log = logging.getLogger(__name__)


class Heartbeats:
    """A sorted set of times, a hash of facts, and a hash of usage samples, each by agent."""

    def __init__(self, client: redis.Redis, address: str) -> None:
        self._client = client
        self._address = address
        self._write = client.register_script(_WRITE)
        self._unread = client.register_script(UNREAD)

    def send(
        self,
        agent: str,
        *,
        boot: str,
        containers: int,
        pods: int,
        usage: AgentUsage | None,
        meters: MeterSample | None = None,
        trouble: str = "",
        leaving: bool = False,
    ) -> float:
        """Record a heartbeat of ``agent`` with its facts; return Redis' clock in Unix seconds."""
        facts = Heartbeat(
            agent=agent,
            at_s=0.0,
            boot=boot,
            containers=containers,
            pods=pods,
            wire=WIRE_VERSION,
            trouble=trouble[:TROUBLE_MAX],
            leaving=leaving,
        )
        with reaching(self._address):
            seconds, micros = self._write(
                keys=[keys.HEARTBEATS, keys.HEARTBEAT_FACTS, keys.USAGES, keys.METERS],
                args=[
                    agent,
                    encode(facts),
                    b"" if usage is None else encode(usage),
                    b"" if meters is None else encode(meters),
                ],
            )
        return int(seconds) + int(micros) / 1e6

    def read(self, role: str = "") -> HeartbeatsRead:
        """Return the last heartbeat of every agent, sorted by agent.

        With ``role``, also the agents whose reports its leader has not taken.
        """
        with reaching(self._address):
            pipe = self._client.pipeline()
            pipe.time()
            pipe.zrange(keys.HEARTBEATS, 0, -1, withscores=True)
            pipe.hgetall(keys.HEARTBEAT_FACTS)
            if role:
                self._unread(
                    keys=[keys.reporting(role)], args=[keys.report(role, ""), UNREAD_MAX - 1], client=pipe
                )
            clock, times, facts, *more = pipe.execute()
        unread = frozenset(member.decode(errors="replace") for members in more for member in members)
        return replace(_heartbeats(clock, times, facts), unread=unread)

    def read_some(self, agents: Sequence[str]) -> HeartbeatsRead:
        """Return the last heartbeats of ``agents``, sorted by agent."""
        names = sorted(set(agents))
        with reaching(self._address):
            pipe = self._client.pipeline()
            pipe.time()
            if names:
                pipe.zmscore(keys.HEARTBEATS, names)
                pipe.hmget(keys.HEARTBEAT_FACTS, names)
            clock, *found = pipe.execute()
        members = [name.encode() for name in names]
        times, facts = found or ([], [])
        scored = [(name, at_s) for name, at_s in zip(members, times, strict=True) if at_s is not None]
        return _heartbeats(clock, scored, dict(zip(members, facts, strict=True)))

    def usages(self) -> dict[str, AgentUsage]:
        """Return the last usage sample of every agent that sent one."""
        with reaching(self._address):
            rows: Any = self._client.hgetall(keys.USAGES)
        return _by_agent(rows, AgentUsage)

    def meters(self) -> dict[str, MeterSample]:
        """Return the last meters of every agent that sent any."""
        with reaching(self._address):
            rows: Any = self._client.hgetall(keys.METERS)
        return _by_agent(rows, MeterSample)

    def usages_of(self, agents: Sequence[str]) -> dict[str, AgentUsage]:
        """Return the last usage samples of those of ``agents`` that sent one."""
        names = sorted(set(agents))
        if not names:
            return {}
        with reaching(self._address):
            found: Any = self._client.hmget(keys.USAGES, names)
        rows = {name.encode(): data for name, data in zip(names, found, strict=True) if data}
        return _by_agent(rows, AgentUsage)


def _heartbeats(
    clock: tuple[int, int], times: Iterable[tuple[bytes, float]], facts: Mapping[bytes, bytes | None]
) -> HeartbeatsRead:
    heartbeats = []
    for member, at_s in sorted(times):
        try:
            facts_of = decode(facts.get(member) or b"", Heartbeat)
        except BadMessage:
            log.warning("event=heartbeat.unreadable agent=%r", member[:80])
            continue
        heartbeats.append(
            Heartbeat(
                agent=member.decode(errors="replace"),
                at_s=float(at_s),
                boot=facts_of.boot,
                containers=facts_of.containers,
                pods=facts_of.pods,
                wire=facts_of.wire,
                trouble=facts_of.trouble,
                leaving=facts_of.leaving,
            )
        )
    return HeartbeatsRead(now_s=int(clock[0]) + int(clock[1]) / 1e6, heartbeats=tuple(heartbeats))


def _by_agent(rows: Mapping[bytes, bytes], kind: type[T]) -> dict[str, T]:
    samples = {}
    for agent in sorted(rows):
        try:
            samples[agent.decode(errors="replace")] = decode(rows[agent], kind)
        except BadMessage:
            log.warning("event=usage.unreadable agent=%r kind=%s", agent[:80], kind.__name__)
    return samples
