"""Agents' reports: each agent has one mailbox per leader, which holds the newest report that is not taken.

An agent writes only its own mailboxes (``nexus.acl``), so no host reports for another. A report that is
still unread is replaced by one that contains it, so a leader that falls behind has less to read, not more.
A leader takes many mailboxes in one round trip, the longest waiting first. Taking is fenced: a process that
has lost the lead takes nothing.

What a leader took and did not handle before it died is lost. The next leader asks every agent for a full
report, and the digests in heartbeats show what else is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import redis

from galaxy.driver.interfaces import Grant, RefusedReport, TakenReports
from galaxy.errors import BadMessage, NotLeader
from galaxy.model.base import MESSAGE_BYTES_MAX, WIRE_VERSION, check_wire, decode, encode
from galaxy.model.messages.agent import AgentReport
from galaxy.nexus import keys
from galaxy.nexus.connection import BLOCK_S, reaching

EXPIRES_S: Final = 600
"""How long an unread report is kept. If it expires, the next leader asks for full reports anyway."""
TAKEN_MAX: Final = 100
"""The most mailboxes that one round trip takes."""
TAKEN_BYTES_MAX: Final = 4 * 1024 * 1024
"""A round trip takes no further mailbox after this many bytes."""
UNREAD_MAX: Final = 100_000
"""Upper bound on the names that one reading of agents with unread reports returns."""

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
local leads = redis.call('GET', KEYS[1]) == ARGV[1]
local taken, bytes = {}, 0
local function take(name)
  local mailbox = ARGV[2] .. name
  local size = redis.pcall('STRLEN', mailbox)
  if type(size) ~= 'number' or size > tonumber(ARGV[5]) then
    redis.call('DEL', mailbox)
    taken[#taken + 1] = {name, type(size) == 'number' and size or -1}
  elseif redis.call('EXISTS', mailbox) == 1 then
    taken[#taken + 1] = {name, redis.call('GETDEL', mailbox)}
    bytes = bytes + size
  end
end
if not leads then
  if ARGV[6] then redis.call('ZADD', KEYS[2], 'NX', ARGV[7], ARGV[6]) end
  return false
end
if ARGV[6] then take(ARGV[6]) end
for _ = 1, tonumber(ARGV[3]) do
  if bytes >= tonumber(ARGV[4]) then break end
  local next = redis.call('ZPOPMIN', KEYS[2])
  if #next == 0 then break end
  take(next[1])
end
return taken
"""


class Mailboxes:
    """The mailboxes of all agents in Redis."""

    def __init__(self, client: redis.Redis, address: str) -> None:
        self._client = client
        self._address = address
        self._post = client.register_script(POST)
        self._take = client.register_script(_TAKE)

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
        with reaching(self._address):
            found = self._taken(grant)
            if not found and wait_s > 0:
                popped: Any = self._client.bzpopmin([waiting], timeout=max(0.01, min(wait_s, BLOCK_S)))
                if popped is not None:
                    found = self._taken(grant, popped[1], popped[2])
        return read_taken(found)

    def _taken(self, grant: Grant, *popped: Any) -> list[tuple[bytes, Any]]:
        found: Any = self._take(
            keys=[keys.lock(grant.role), keys.reporting(grant.role)],
            args=[
                f"{grant.owner}:{grant.epoch}", keys.report(grant.role, ""), TAKEN_MAX, TAKEN_BYTES_MAX,
                MESSAGE_BYTES_MAX, *popped,
            ],
        )  # fmt: skip
        if found is None:
            raise NotLeader(f"{grant.owner} does not lead {grant.role} in epoch {grant.epoch} any more")
        return [(name, data) for name, data in found]


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
