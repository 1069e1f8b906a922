"""Agents' reports: each agent has one mailbox per leader, which holds the newest report that is not taken.

An agent writes only its own mailboxes (``nexus.acl``), so no host reports for another. A report that is
still unread is replaced by one that contains it, so a leader that falls behind has less to read, not more.
A leader takes many mailboxes in one round trip. Taking is fenced: a process that has lost the lead takes
nothing.

A sorted set names the agents that wait, the longest waiting first. Every agent's login may write to it, so
it is a hint and nothing depends on it: an agent that was stolen can put its name first, others last, and
any number of names into it. Therefore each round also looks into some mailboxes of all known agents in
turn, an agent that sends much waits for its next turn (``BYTES_PER_S``), and a set with more names than
there can be is deleted. So no agent can delay the reports of another for longer than one turn of all.

What a leader took and did not handle before it died is lost. The next leader asks every agent for a full
report, and the digests in heartbeats show what else is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final

import msgspec
import redis

from galaxy.driver.interfaces import Grant, RefusedReport, TakenReports
from galaxy.errors import BadMessage, NotLeader
from galaxy.model.base import MESSAGE_BYTES_MAX, WIRE_VERSION, check_wire, decode, encode
from galaxy.model.messages.agent import AgentReport
from galaxy.model.messages.names import RESMAN
from galaxy.nexus import keys
from galaxy.nexus.connection import BLOCK_S, reaching

EXPIRES_S: Final = 600
"""How long an unread report is kept. If it expires, the next leader asks for full reports anyway."""
TAKEN_MAX: Final = 100
"""The most mailboxes that one round trip takes."""
TAKEN_BYTES_MAX: Final = 4 * 1024 * 1024
"""A round trip takes no further mailbox after this many bytes."""
POPPED_MAX: Final = 1000
"""The most names that one round trip takes from the set; most of a false one have no mailbox."""
TURN_MAX: Final = 200
"""Known agents whose mailboxes one round trip looks into, whether or not the set names them. They get at
most half of what it takes."""
KNOWN_S: Final = 10.0
"""How often the names of the known agents are read."""
WAITING_SLACK: Final = 1000
"""The set may have twice as many names as there are known agents, and so many more."""
BYTES_PER_S: Final = 1024 * 1024
"""The rate at which reports of one agent are taken, if the last one was longer than ``SMALL_BYTES``."""
SMALL_BYTES: Final = 64 * 1024
FALSE_S: Final = 0.01
"""Pause after a round trip that found none of the reports that the set promised."""
UNREAD_MAX: Final = 100_000
"""Upper bound on the names that one reading of agents with unread reports looks at."""

POST: Final = """
local time = redis.call('TIME')
local posted = 0
if ARGV[4] == '1' or redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  posted = 1
end
-- Always, because the name may be lost with a leader that died.
redis.call('ZADD', KEYS[2], 'NX', time[1] .. '.' .. string.format('%06d', time[2]), ARGV[1])
return posted
"""

_TAKE: Final = """
-- KEYS: lock, set. ARGV: proof, prefix of mailboxes, most mailboxes, most bytes, longest report, most popped
-- names, most names in the set, a name that was popped ('' if none), its score, number of agents whose turn
-- it is, their names, and the names of agents that are not taken now.
local leads = redis.call('GET', KEYS[1]) == ARGV[1]
local popped, turns = ARGV[8], tonumber(ARGV[10])
if not leads then
  if popped ~= '' then redis.call('ZADD', KEYS[2], 'NX', ARGV[9], popped) end
  return false
end
local most, bytes_max = tonumber(ARGV[3]), tonumber(ARGV[4])
local held = {}
for at = 11 + turns, #ARGV do held[ARGV[at]] = true end
local taken, bytes = {}, 0
local function take(name)
  if held[name] then return false end
  local mailbox = ARGV[2] .. name
  local size = redis.pcall('STRLEN', mailbox)
  if type(size) ~= 'number' or size > tonumber(ARGV[5]) then
    redis.call('DEL', mailbox)
    taken[#taken + 1] = {name, type(size) == 'number' and size or -1}
    return true
  elseif redis.call('EXISTS', mailbox) == 1 then
    taken[#taken + 1] = {name, redis.call('GETDEL', mailbox)}
    bytes = bytes + size
    return true
  end
  return false
end
local looked = 0
while looked < turns and #taken < most / 2 and bytes < bytes_max / 2 do
  looked = looked + 1
  local name = ARGV[10 + looked]
  if take(name) then redis.call('ZREM', KEYS[2], name) end
end
if popped ~= '' then take(popped) end
for _ = 1, tonumber(ARGV[6]) do
  if #taken >= most or bytes >= bytes_max then break end
  local next = redis.call('ZPOPMIN', KEYS[2])
  if #next == 0 then break end
  take(next[1])
end
if redis.call('ZCARD', KEYS[2]) > tonumber(ARGV[7]) then redis.call('DEL', KEYS[2]) end
return {looked, taken}
"""

UNREAD: Final = """
local found = {}
for _, name in ipairs(redis.call('ZRANGE', KEYS[1], 0, ARGV[2])) do
  if redis.call('EXISTS', ARGV[1] .. name) == 1 then found[#found + 1] = name end
end
return found
"""
"""Returns the agents in the set that have a report; the set may name others."""


class Mailboxes:
    """The mailboxes of all agents in Redis. One thread takes."""

    def __init__(
        self, client: redis.Redis, address: str, *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._address = address
        self._post = client.register_script(POST)
        self._take = client.register_script(_TAKE)
        self._turns = Turns(now_s)

    def post(self, role: str, report: AgentReport, *, replaces: bool) -> bool:
        """Put a report into the mailbox of its agent; return False if the one before it is still there.

        ``replaces``: put it there in any case; it contains what the unread one does.
        """
        with reaching(self._address):
            return bool(self._post(*post_call(role, report, replaces=replaces)))

    def take(self, grant: Grant, wait_s: float) -> TakenReports:
        """Return some of the unread reports, waiting up to ``wait_s`` for the first one.

        Raises:
            NotLeader: the grant is over; nothing was taken.
        """
        waiting = keys.reporting(grant.role)
        turns = self._turns
        with reaching(self._address):
            if turns.is_outdated():
                known: Any = self._client.hkeys(keys.table(RESMAN, "agents"))
                turns.set_known(known)
            found = self._taken(grant)
            if not found and wait_s > 0:
                timeout_s = max(0.01, min(wait_s, turns.wait_s(), BLOCK_S))
                popped: Any = self._client.bzpopmin([waiting], timeout=timeout_s)
                found = self._taken(grant, *(popped[1:] if popped is not None else ()))
                if popped is not None and not found:
                    time.sleep(FALSE_S)  # Somebody adds names without reports: do not follow at their speed.
        return read_taken(found)

    def _taken(self, grant: Grant, popped: bytes = b"", score: float = 0.0) -> list[tuple[bytes, Any]]:
        turns = self._turns
        next_ones = turns.next_ones()
        found: Any = self._take(
            keys=[keys.lock(grant.role), keys.reporting(grant.role)],
            args=[
                f"{grant.owner}:{grant.epoch}", keys.report(grant.role, ""), TAKEN_MAX, TAKEN_BYTES_MAX,
                MESSAGE_BYTES_MAX, POPPED_MAX, turns.waiting_max, popped, score, len(next_ones), *next_ones,
                *turns.held(),
            ],
        )  # fmt: skip
        if found is None:
            raise NotLeader(f"{grant.owner} does not lead {grant.role} in epoch {grant.epoch} any more")
        looked, taken = found
        turns.looked_into(looked)
        turns.on_taken((name, len(data)) for name, data in taken if isinstance(data, bytes))
        return [(name, data) for name, data in taken]


class Turns:
    """Whose mailbox a leader looks into next, whatever agents say. Times are those of ``now_s``."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._known: list[bytes] = []
        self._known_s = -KNOWN_S
        self._at = 0
        self._held: dict[bytes, float] = {}
        """When the agents may be taken again that have sent much."""
        self._released: dict[bytes, None] = {}
        """Agents that were held: the set may have named them meanwhile, so they are next."""

    @property
    def waiting_max(self) -> int:
        """The most names that the set of waiting agents can have."""
        return 2 * len(self._known) + WAITING_SLACK

    def is_outdated(self) -> bool:
        """Return whether the known agents must be read."""
        return self._now_s() - self._known_s >= KNOWN_S

    def set_known(self, agents: Iterable[bytes]) -> None:
        """Set the agents that take turns. ResMan knows only those that have reported by their own login."""
        self._known, self._known_s = sorted(agents), self._now_s()

    def next_ones(self) -> list[bytes]:
        """Return the agents whose turn it is; ``looked_into`` says how many of them have had it."""
        for agent, until_s in list(self._held.items()):
            if until_s <= self._now_s():
                del self._held[agent]
                self._released[agent] = None
        released = list(islice(self._released, TURN_MAX // 2))
        count = min(TURN_MAX - len(released), len(self._known))
        return released + [self._known[(self._at + n) % len(self._known)] for n in range(count)]

    def looked_into(self, count: int) -> None:
        """Record that the first ``count`` of ``next_ones()`` have had their turn."""
        released = list(islice(self._released, TURN_MAX // 2))
        for agent in released[:count]:
            del self._released[agent]
        if self._known:
            self._at = (self._at + max(0, count - len(released))) % len(self._known)

    def on_taken(self, sizes: Iterable[tuple[bytes, int]]) -> None:
        """Hold agents whose reports, of so many bytes, were long."""
        for agent, size in sizes:
            if size > SMALL_BYTES:
                self._held[agent] = self._now_s() + size / BYTES_PER_S

    def held(self) -> list[bytes]:
        """Return the agents that are not taken now."""
        return list(self._held)

    def wait_s(self) -> float:
        """Return the seconds until an agent may be taken that is held now."""
        return min((until_s - self._now_s() for until_s in self._held.values()), default=float("inf"))


def post_call(role: str, report: AgentReport, *, replaces: bool) -> tuple[list[str], list[Any]]:
    """Return the keys and arguments of the script ``POST``, which posts ``report``."""
    return (
        [keys.report(role, report.agent), keys.reporting(role)],
        [report.agent, pack_report(report), EXPIRES_S * 1000, int(replaces)],
    )


def pack_report(report: AgentReport) -> bytes:
    """Return a report as a mailbox holds it."""
    return encode(_Posted(v=WIRE_VERSION, body=report))


def read_taken(found: Sequence[tuple[bytes, Any]]) -> TakenReports:
    """Decode what was taken: by agent, the contents of its mailbox, or their size if they are no report."""
    reports: list[AgentReport] = []
    refused: list[RefusedReport] = []
    for name, data in found:
        agent = name.decode(errors="replace")
        try:
            reports.append(_read_report(agent, data))
        except BadMessage as error:
            refused.append(RefusedReport(agent=agent, why=error.message))
    return TakenReports(reports=tuple(reports), refused=tuple(refused))


class _Posted(msgspec.Struct):
    v: int
    body: AgentReport


class _Version(msgspec.Struct):
    v: Any = None


def _read_report(agent: str, data: Any) -> AgentReport:
    if isinstance(data, int):
        raise BadMessage(f"{data} bytes are too many" if data >= 0 else "the mailbox is no string")
    try:
        posted = decode(data, _Posted)
    except BadMessage:
        check_wire(decode(data, _Version).v)  # Another version explains why the rest cannot be read.
        raise
    check_wire(posted.v)
    if posted.body.agent != agent:
        raise BadMessage(f"it is a report of {posted.body.agent[:80]!r}")
    return posted.body
