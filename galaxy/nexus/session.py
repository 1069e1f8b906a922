"""Byte pipes through Redis for exec and logs: two directions, bounded, with flow control.

A direction is a list of items, read in the order in which they were written. A writer waits while
``ITEMS_MAX`` items are unread. All keys expire ``TTL_S`` after their last use, so a session whose two ends
die leaves nothing.

Each item arrives once, also when Redis is away for a while: writers number their items, so that a repeated
write has no effect, and an item stays in its list until the reader asks for the next one. Reading and
writing wait up to ``ABSENCE_S`` for Redis. If Redis comes back without what was written, writing fails.

The ends decide what an item contains; exec and logs use ``Frame``.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal

import redis

from galaxy.errors import BadMessage, Conflict, Unreachable
from galaxy.model.base import Struct, decode, encode
from galaxy.nexus import keys
from galaxy.nexus.connection import BLOCK_S, reaching
from galaxy.nexus.presence import ABSENCE_S, LEASE_S, Peer, Presence

Direction = Literal["in", "out"]
"""``in`` goes to the agent, ``out`` comes from it."""

ITEMS_MAX: Final = 64
ITEM_BYTES_MAX: Final = 64 * 1024
WAITING_S: Final = 0.25
TTL_S: Final = 300
SEEN_S: Final = 30
"""How long a direction counts as read after the last read."""

RETRY_S: Final = 0.2

_WRITE: Final = """
if redis.call('EXISTS', KEYS[4]) == 1 then return 2 end
local written = redis.call('HGET', KEYS[5], 'written')
local writer = redis.call('HGET', KEYS[5], 'writer')
if writer and writer ~= ARGV[4] then return 4 end
written = tonumber(written or 0)
local serial = tonumber(ARGV[5])
if written >= serial then return 1 end
if written ~= serial - 1 then return 3 end
local full = redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[2])
if full then
  redis.call('SET', KEYS[2], '1', 'EX', ARGV[3])
  redis.call('DEL', KEYS[3])
else
  redis.call('RPUSH', KEYS[1], ARGV[1])
  redis.call('HSET', KEYS[5], 'written', serial, 'writer', ARGV[4])
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[5], ARGV[3])
return full and 0 or 1
"""

_NEXT: Final = """
redis.call('SET', KEYS[4], '1', 'EX', ARGV[2])
local received = tonumber(ARGV[3])
local unacknowledged = received - tonumber(redis.call('HGET', KEYS[6], 'taken') or 0)
if unacknowledged > 0 then
  redis.call('LPOP', KEYS[1], unacknowledged)
  redis.call('HSET', KEYS[6], 'taken', received)
  if redis.call('DEL', KEYS[2]) == 1 then
    redis.call('RPUSH', KEYS[3], '1')
    redis.call('EXPIRE', KEYS[3], ARGV[1])
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[6], ARGV[1])
local item = redis.call('LINDEX', KEYS[1], 0)
while item == '' do
  redis.call('LPOP', KEYS[1])
  item = redis.call('LINDEX', KEYS[1], 0)
end
if not item and redis.call('EXISTS', KEYS[5]) == 1 then return {1, ''} end
return {0, item}
"""

FrameKind = Literal["stdin", "stdout", "stderr", "resize", "exit", "eof", "error"]


class FrameHead(Struct, frozen=True, kw_only=True):
    """A frame's kind: ``exit`` has ``status``, ``resize`` rows and columns, ``error`` a ``message``.

    ``pod`` and ``task`` name the origin of log text, where a session carries logs of several.
    """

    kind: FrameKind
    status: int = 0
    rows: int = 0
    columns: int = 0
    message: str = ""
    pod: str = ""
    task: str = ""


class Frame(Struct, frozen=True, kw_only=True):
    """One piece of a session: its kind, and its bytes (of stdin, stdout and stderr)."""

    head: FrameHead
    data: bytes = b""


def pack(frame: Frame) -> bytes:
    """Return a frame as one line of JSON and the raw bytes."""
    return encode(frame.head) + b"\n" + frame.data


def unpack(item: bytes) -> Frame:
    """Read what ``pack`` wrote.

    Raises:
        BadMessage: ``item`` is not a frame.
    """
    line, newline, data = item.partition(b"\n")
    if not newline:
        raise BadMessage(f"not a session frame: {item[:80]!r}")
    return Frame(head=decode(line, FrameHead), data=data)


class Session:
    """One end of a session; both ends are the same class. Threads may share it, one reader per direction."""

    def __init__(self, client: redis.Redis, address: str, session_id: str) -> None:
        self.id = session_id
        self._client = client
        self._address = address
        self._write = client.register_script(_WRITE)
        self._next = client.register_script(_NEXT)
        self._writer = uuid.uuid4().hex
        self._locks = {"in": threading.Lock(), "out": threading.Lock()}
        """Held while an item of a direction is written: their order is that of their numbers."""
        self._written = {"in": 0, "out": 0}
        self._received = {"in": 0, "out": 0}
        self._away_since_s: float | None = None
        self._last_away_s: float | None = None

    def write(
        self,
        direction: Direction,
        data: bytes,
        timeout_s: float = 30.0,
        *,
        waiting: Callable[[], None] | None = None,
    ) -> None:
        """Append one item of at most ``ITEM_BYTES_MAX``, waiting while too many are unread.

        ``waiting`` is called every ``WAITING_S`` meanwhile; what it raises ends the wait.

        Raises:
            Conflict: this direction is closed, so nothing will be read; or another end writes to it.
            Unreachable: no room within ``timeout_s``, or Redis was away for too long, or lost the session.
            ValueError: the item is empty or too long.
        """
        if not 0 < len(data) <= ITEM_BYTES_MAX:
            raise ValueError(f"an item has 1 to {ITEM_BYTES_MAX} bytes, this one {len(data)}")
        end_s = time.monotonic() + timeout_s
        with self._locks[direction]:
            while not self._try_write(direction, data):
                left_s = end_s - time.monotonic()
                if left_s <= 0:
                    raise Unreachable(f"session {self.id}: the reader took nothing for {timeout_s:g} s")
                block_s = min(left_s, BLOCK_S if waiting is None else WAITING_S)
                room = keys.session_room(self.id, direction)
                self._reach(partial(self._client.blpop, [room], timeout=max(0.01, block_s)), None)
                if waiting is not None:
                    waiting()

    def _try_write(self, direction: Direction, data: bytes) -> bool:
        """Append an item if there is room; return False if not, or if Redis is away."""
        serial = self._written[direction] + 1
        names = [
            keys.session(self.id, direction),
            keys.session_wait(self.id, direction),
            keys.session_room(self.id, direction),
            keys.session_closed(self.id, direction),
            keys.session_count(self.id, direction),
        ]
        call = partial(self._write, keys=names, args=[data, ITEMS_MAX, TTL_S, self._writer, serial])
        outcome = self._reach(call, 0)
        if outcome == 2:
            raise Conflict(f"session {self.id} is closed in direction {direction!r}")
        if outcome == 3:
            raise Unreachable(f"Redis at {self._address} has lost session {self.id}")
        if outcome == 4:
            raise Conflict(f"another process writes to session {self.id} in direction {direction!r}")
        if outcome == 1:
            self._written[direction] = serial
        return bool(outcome == 1)

    def read(self, direction: Direction, timeout_s: float) -> bytes | None:
        """Return the next item; ``b""`` when closed and all read; None after ``timeout_s``.

        Raises:
            Unreachable: Redis was away for too long.
        """
        end_s = time.monotonic() + timeout_s
        key = keys.session(self.id, direction)
        names = [
            key,
            keys.session_wait(self.id, direction),
            keys.session_room(self.id, direction),
            keys.session_seen(self.id, direction),
            keys.session_closed(self.id, direction),
            keys.session_count(self.id, direction),
        ]
        while True:
            args = [TTL_S, SEEN_S, self._received[direction]]
            answer = self._reach(partial(self._next, keys=names, args=args), None)
            closed, item = answer or (0, None)
            if closed:
                return b""
            if item is None:
                left_s = end_s - time.monotonic()
                if left_s <= 0:
                    return None
                if answer is None:  # The last item may still be the first of the list.
                    continue
                block_s = max(0.01, min(left_s, BLOCK_S))
                # The item is moved to where it is: a read that leaves it there and can wait.
                client: Any = self._client
                item = self._reach(partial(client.blmove, key, key, block_s, "LEFT", "LEFT"), None)
            if item:
                self._received[direction] += 1
                return bytes(item)
            # ``close`` pushes an empty item to wake a blocked reader: check again.

    def _reach(self, call: Callable[[], Any], otherwise: Any) -> Any:
        """Return what ``call`` returns, or ``otherwise`` after a pause if Redis is away.

        Raises:
            Unreachable: Redis has been away for ``ABSENCE_S``.
        """
        try:
            with reaching(self._address):
                answer = call()
        except Unreachable:
            now_s = self._last_away_s = time.monotonic()
            if self._away_since_s is None:
                self._away_since_s = now_s
            if now_s - self._away_since_s >= ABSENCE_S:
                raise
            time.sleep(RETRY_S)
            return otherwise
        self._away_since_s = None
        return answer

    def was_away(self, within_s: float) -> bool:
        """Return whether Redis did not answer this session some time within the last ``within_s``."""
        return self._last_away_s is not None and time.monotonic() - self._last_away_s < within_s

    def send(
        self,
        direction: Direction,
        frame: Frame,
        timeout_s: float = 30.0,
        *,
        waiting: Callable[[], None] | None = None,
    ) -> None:
        """Write a frame, in several items when its data is long; raises as ``write``."""
        room = ITEM_BYTES_MAX - len(pack(Frame(head=frame.head)))
        for start in range(0, max(len(frame.data), 1), room):
            piece = Frame(head=frame.head, data=frame.data[start : start + room])
            self.write(direction, pack(piece), timeout_s, waiting=waiting)

    def receive(self, direction: Direction, timeout_s: float) -> Frame | None:
        """Return the next frame, None after ``timeout_s``; a closed direction gives ``eof``.

        Raises:
            BadMessage: an item was not a frame. Unreachable: Redis does not answer.
        """
        item = self.read(direction, timeout_s)
        if item is None:
            return None
        return unpack(item) if item else Frame(head=FrameHead(kind="eof"))

    def close(self, direction: Direction) -> None:
        """End a direction, from either side: writes fail from now on, reads end after the last item."""
        key = keys.session(self.id, direction)
        room = keys.session_room(self.id, direction)
        with reaching(self._address):
            pipe = self._client.pipeline()
            pipe.set(keys.session_closed(self.id, direction), "1", ex=TTL_S)
            pipe.rpush(key, b"")
            pipe.expire(key, TTL_S)
            pipe.rpush(room, "1")
            pipe.expire(room, TTL_S)
            pipe.execute()

    def is_closed(self, direction: Direction) -> bool:
        """Return whether either side closed this direction."""
        with reaching(self._address):
            return bool(self._client.exists(keys.session_closed(self.id, direction)))

    def has_reader(self, direction: Direction) -> bool:
        """Return whether this direction was read within the last ``SEEN_S``."""
        with reaching(self._address):
            return bool(self._client.exists(keys.session_seen(self.id, direction)))

    def attend(self) -> Presence:
        """Show the client's presence until the result is closed. See ``galaxy.nexus.presence``."""
        return Presence(self._client, self.id)

    def peer(self) -> Peer:
        """Return what is known of the client, and renew the agent's lease."""
        client = keys.session_client(self.id)
        with reaching(self._address):
            pipe: Any = self._client.pipeline(transaction=False)
            pipe.exists(keys.session_closed(self.id, "out"))
            pipe.exists(client)
            pipe.pubsub_numsub(client)
            pipe.set(keys.session_agent(self.id), "1", ex=LEASE_S)
            # What a client does not read, because it is suspended or its reader waits, is kept.
            pipe.expire(keys.session(self.id, "out"), TTL_S)
            pipe.expire(keys.session_count(self.id, "out"), TTL_S)
            closed, leased, subscribers, *_ = pipe.execute()
        return Peer(closed=bool(closed), leased=bool(leased), subscribed=subscribers[0][1] > 0)

    def has_agent(self) -> bool:
        """Return whether the agent has renewed its lease within the last ``LEASE_S``."""
        with reaching(self._address):
            return bool(self._client.exists(keys.session_agent(self.id)))

    def remove(self) -> None:
        """Close both directions, and delete all other keys of this session."""
        deleted = [
            name(self.id, direction)
            for direction in ("in", "out")
            for name in (
                keys.session,
                keys.session_room,
                keys.session_wait,
                keys.session_seen,
                keys.session_count,
            )
        ]
        with reaching(self._address):
            pipe = self._client.pipeline()
            pipe.delete(*deleted)
            for direction in ("in", "out"):
                pipe.set(keys.session_closed(self.id, direction), "1", ex=TTL_S)
            pipe.execute()
