"""Fenced storage of tables: one script per commit, all or nothing, refused when the caller does not lead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import redis

from galaxy.driver.interfaces import Grant
from galaxy.errors import NotLeader, Unreachable
from galaxy.model.base import Struct, decode
from galaxy.model.messages.names import APPMASTER
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.stored.package import PACKAGES
from galaxy.model.stored.table import Table, TableChange
from galaxy.nexus import keys
from galaxy.nexus.change_feed import ENTRIES_MAX, entries_of
from galaxy.nexus.confirm import Confirmer
from galaxy.nexus.connection import reaching
from galaxy.nexus.packages import content_operations
from galaxy.nexus.trace import trace_writes

N = TypeVar("N", bound=Struct)

CHUNK_BYTES: Final = 4 * 1024 * 1024
"""A longer commit is staged in chunks, and then takes effect in one script."""
SCAN_COUNT: Final = 5000
"""Rows that one HSCAN asks for."""
GROUP: Final = 500
"""Rows in one HSET or HDEL: Lua's stack holds about eight thousand values."""

_FENCE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if tonumber(redis.call('GET', KEYS[2]) or '0') > tonumber(ARGV[2]) then return 0 end
"""

_STAGE: Final = (
    _FENCE
    + """
if ARGV[3] == '1' then redis.call('DEL', KEYS[3]) end
local i, n = 4, #ARGV
while i <= n do
  local j = math.min(i + 999, n)
  redis.call('RPUSH', KEYS[3], unpack(ARGV, i, j))
  i = j + 1
end
redis.call('PEXPIRE', KEYS[3], 60000)
return 1
"""
)

_COMMIT: Final = (
    _FENCE
    + """
if redis.call('GET', KEYS[3]) == ARGV[3] then
  redis.call('SET', KEYS[3], ARGV[3])  -- WAIT counts only what its own connection wrote.
  return 2
end
local before = redis.call('GET', KEYS[3]) or ''
local ops, i = ARGV, 5
if ARGV[4] ~= '0' then
  ops, i = redis.call('LRANGE', KEYS[4], 0, -1), 1
  redis.call('DEL', KEYS[4])
  if #ops ~= tonumber(ARGV[4]) then return 3 end
end
local n = #ops
while i <= n do
  local kind, key, count = ops[i], KEYS[tonumber(ops[i + 1])], tonumber(ops[i + 2])
  local first, last = i + 3, i + 2 + count
  if kind == 'S' then
    redis.call('HSET', key, unpack(ops, first, last))
  elseif kind == 'D' then
    redis.call('HDEL', key, unpack(ops, first, last))
  elseif kind == 'P' then
    local upload = KEYS[tonumber(ops[first])]
    if redis.call('EXISTS', key) == 0 and redis.call('EXISTS', upload) == 1 then
      redis.call('RENAME', upload, key)
      redis.call('PERSIST', key)
    end
  elseif kind == 'U' then
    redis.call('DEL', key)  -- Not UNLINK: the leaders' logins may not use it (nexus.acl).
  elseif kind == 'F' then
    redis.call('XADD', key, 'MAXLEN', '~', ops[first], '*', 'rows', ops[first + 1],
      'commit', ARGV[3], 'after', before)
    before = ARGV[3]
  else
    redis.call('XADD', key, 'MAXLEN', '~', ops[first], '*', 'event', ops[first + 2])
    if ops[first + 1] ~= '0' then redis.call('EXPIRE', key, ops[first + 1]) end
  end
  i = last + 1
end
redis.call('SET', KEYS[3], ARGV[3])
return 1
"""
)


class FencedStore:
    """The tables of every role. A commit names the leader and its epoch, which Redis checks."""

    def __init__(self, client: redis.Redis, address: str, *, confirmer: Confirmer | None = None) -> None:
        self._client = client
        self._address = address
        self._confirmer = confirmer or Confirmer(client, 0, address)
        self._commit = client.register_script(_COMMIT)
        self._stage = client.register_script(_STAGE)

    def commit(
        self, grant: Grant, serial: int, changes: Sequence[TableChange], trace: Sequence[TraceEvent]
    ) -> None:
        """Write ``changes`` and ``trace``, all or nothing; committing a serial twice has the effect of once.

        Raises:
            NotLeader: the grant is over; nothing was written.
            Unreachable: it is not known whether enough replicas have it; commit the same serial again.
        """
        role = grant.role
        hashes, operations = _operations(role, changes, trace)
        fence = [keys.lock(role), keys.epoch(role)]
        proof: list[Any] = [f"{grant.owner}:{grant.epoch}", grant.epoch]
        staged = _size(operations) > CHUNK_BYTES
        with reaching(self._address):
            if staged:
                for first, chunk in _chunks(operations):
                    self._check(
                        grant,
                        self._stage(keys=[*fence, keys.staging(role)], args=[*proof, int(first), *chunk]),
                    )
            self._check(
                grant,
                self._confirmer.run(
                    self._commit,
                    keys=[*fence, keys.committed(role), keys.staging(role), *hashes],
                    args=[
                        *proof,
                        f"{grant.epoch}:{serial}",
                        len(operations) if staged else 0,
                        *([] if staged else operations),
                    ],
                ),
            )

    def load(self, role: str, tables: Iterable[Table[Any]]) -> None:
        """Fill ``tables`` with the stored rows.

        Raises:
            BadMessage: a stored row cannot be read.
        """
        for table in tables:
            table.load(self._rows(role, table.name).items())

    def read_table(self, role: str, table: str, kind: type[N]) -> dict[str, N]:
        """Return the rows of a table as last committed, sorted by key."""
        rows = self._rows(role, table)
        return {key: decode(rows[key], kind) for key in sorted(rows)}

    def read_some(self, role: str, table: str, names: Sequence[str], kind: type[N]) -> dict[str, N]:
        """Return those of the rows ``names`` of a table that there are, as last committed."""
        if not names:
            return {}
        with reaching(self._address):
            found: Any = self._client.hmget(keys.table(role, table), list(names))
        return {name: decode(data, kind) for name, data in zip(names, found, strict=True) if data is not None}

    def read_names(self, role: str, table: str) -> list[str]:
        """Return the keys of a table's rows, sorted, without the rows."""
        with reaching(self._address):
            found: Any = self._client.hkeys(keys.table(role, table))
        return sorted(name.decode() for name in found)

    def read_rows(self, role: str, table: str, accept: Callable[[Sequence[tuple[str, bytes]]], None]) -> str:
        """Pass all rows of a table to ``accept`` in pieces; return the last commit that they may include.

        Rows that are committed meanwhile may be passed, missing, or passed twice.
        """
        return self._scan(role, keys.table(role, table), accept)

    def _rows(self, role: str, table: str) -> dict[str, bytes]:
        rows: dict[str, bytes] = {}
        self._scan(role, keys.table(role, table), rows.update)
        return rows

    def _scan(self, role: str, key: str, accept: Callable[[Sequence[tuple[str, bytes]]], object]) -> str:
        untyped: Any = self._client
        # One connection, because a cursor is only valid on its server, and the last commit must be that
        # server's; this raises when the connection ends.
        with reaching(self._address), untyped.client() as one:
            cursor = None
            while cursor != 0:
                cursor, found = one.hscan(key, cursor=cursor or 0, count=SCAN_COUNT)
                accept([(field.decode(), value) for field, value in found.items()])
            return (one.get(keys.committed(role)) or b"").decode()

    def _check(self, grant: Grant, answer: int) -> None:
        if answer == 0:
            raise NotLeader(f"{grant.owner} does not lead {grant.role} in epoch {grant.epoch} any more")
        if answer == 3:  # Redis restarted, or another master took over, without the first chunks.
            raise Unreachable(f"Redis at {self._address} lost part of a long commit")


def _operations(
    role: str, changes: Sequence[TableChange], trace: Sequence[TraceEvent]
) -> tuple[list[str], list[bytes | str]]:
    """Return the keys after the first four, and the flat list of operations on them."""
    numbers: dict[str, int] = {}
    operations: list[bytes | str] = []
    sets: dict[str, list[bytes | str]] = {}
    drops: dict[str, list[bytes | str]] = {}
    for change in changes:
        if change.value is None:
            drops.setdefault(change.table, []).append(change.key)
        else:
            sets.setdefault(change.table, []).extend((change.key, change.value))
    for kind, by_table, width in (("S", sets, 2 * GROUP), ("D", drops, GROUP)):
        for table, items in by_table.items():
            number = numbers.setdefault(keys.table(role, table), len(numbers) + 5)
            for start in range(0, len(items), width):
                group = items[start : start + width]
                operations += [kind, str(number), str(len(group)), *group]
    for change in changes:
        if change.table == PACKAGES and role == APPMASTER:
            operations += content_operations(change, lambda key: numbers.setdefault(key, len(numbers) + 5))
    number = numbers.setdefault(keys.changes(role), len(numbers) + 5)
    for entry in entries_of(changes):
        operations += ["F", str(number), "2", str(ENTRIES_MAX), entry]
    for stream, length, ttl_s, data in trace_writes(trace):
        number = numbers.setdefault(stream, len(numbers) + 5)
        operations += ["X", str(number), "3", str(length), str(ttl_s), data]
    return list(numbers), operations


def _size(operations: Sequence[bytes | str]) -> int:
    return sum(map(len, operations))


def _chunks(operations: Sequence[bytes | str]) -> Iterator[tuple[bool, list[bytes | str]]]:
    chunk: list[bytes | str] = []
    size = 0
    first = True
    for operation in operations:
        chunk.append(operation)
        size += len(operation)
        if size >= CHUNK_BYTES:
            yield first, chunk
            chunk, size, first = [], 0, False
    if chunk:
        yield first, chunk
