"""Byte pipes through Redis for exec and logs: two directions, bounded, with flow control.

A direction is a list of items, read in the order in which they were written. A writer waits while
``ITEMS_MAX`` items are unread. All keys expire ``TTL_S`` after their last use, so a session whose two ends
die leaves nothing.

The ends decide what an item contains; exec and logs use ``Frame``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, Literal

import redis

from galaxy.errors import BadMessage, Conflict, Unreachable
from galaxy.model.base import Struct, decode, encode
from galaxy.nexus import keys
from galaxy.nexus.connection import BLOCK_S, reaching
from galaxy.nexus.presence import LEASE_S, Peer, Presence

Direction = Literal["in", "out"]
"""``in`` goes to the agent, ``out`` comes from it."""

ITEMS_MAX: Final = 64
ITEM_BYTES_MAX: Final = 64 * 1024
WAITING_S: Final = 0.25
TTL_S: Final = 300
SEEN_S: Final = 30
"""How long a direction counts as read after the last read."""

_WRITE: Final = """
if redis.call('EXISTS', KEYS[4]) == 1 then return 2 end
if redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[2]) then
  redis.call('SET', KEYS[2], '1', 'EX', ARGV[3])
  redis.call('DEL', KEYS[3])
  return 0
end
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""

_TAKE: Final = """
redis.call('SET', KEYS[4], '1', 'EX', ARGV[2])
local item = redis.call('LPOP', KEYS[1])
if item and redis.call('DEL', KEYS[2]) == 1 then
  redis.call('RPUSH', KEYS[3], '1')
  redis.call('EXPIRE', KEYS[3], ARGV[1])
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
    """One end of a session; both ends are the same class. Threads may share it."""

    def __init__(self, client: redis.Redis, address: str, session_id: str) -> None:
        self.id = session_id
        self._client = client
        self._address = address
        self._write = client.register_script(_WRITE)
        self._take = client.register_script(_TAKE)

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
            Conflict: this direction is closed, so nothing will be read.
            Unreachable: no room within ``timeout_s``, or Redis does not answer.
            ValueError: the item is empty or too long.
        """
        if not 0 < len(data) <= ITEM_BYTES_MAX:
            raise ValueError(f"an item has 1 to {ITEM_BYTES_MAX} bytes, this one {len(data)}")
        end_s = time.monotonic() + timeout_s
        room = keys.session_room(self.id, direction)
        while True:
            with reaching(self._address):
                outcome = self._write(
                    keys=[
                        keys.session(self.id, direction),
                        keys.session_wait(self.id, direction),
                        room,
                        keys.session_closed(self.id, direction),
                    ],
                    args=[data, ITEMS_MAX, TTL_S],
                )
                if outcome == 1:
                    return
                if outcome == 2:
                    raise Conflict(f"session {self.id} is closed in direction {direction!r}")
                left_s = end_s - time.monotonic()
                if left_s <= 0:
                    raise Unreachable(f"session {self.id}: the reader took nothing for {timeout_s:g} s")
                block_s = BLOCK_S if waiting is None else WAITING_S
                self._client.blpop([room], timeout=max(0.01, min(left_s, block_s)))
            if waiting is not None:
                waiting()

    def read(self, direction: Direction, timeout_s: float) -> bytes | None:
        """Return the next item; ``b""`` when closed and all read; None after ``timeout_s``.

        Raises:
            Unreachable: Redis does not answer.
        """
        end_s = time.monotonic() + timeout_s
        key = keys.session(self.id, direction)
        while True:
            with reaching(self._address):
                closed, item = self._take(
                    keys=[
                        key,
                        keys.session_wait(self.id, direction),
                        keys.session_room(self.id, direction),
                        keys.session_seen(self.id, direction),
                        keys.session_closed(self.id, direction),
                    ],
                    args=[TTL_S, SEEN_S],
                )
                if closed:
                    return b""
                if item is None:
                    left_s = end_s - time.monotonic()
                    if left_s <= 0:
                        return None
                    found = self._client.blpop([key], timeout=max(0.01, min(left_s, BLOCK_S)))
                    item = None if found is None else found[1]
            if item:
                return bytes(item)
            # ``close`` pushes an empty item to wake a blocked reader: check again.

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
            closed, leased, subscribers, _ = pipe.execute()
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
            for name in (keys.session, keys.session_room, keys.session_wait, keys.session_seen)
        ]
        with reaching(self._address):
            pipe = self._client.pipeline()
            pipe.delete(*deleted)
            for direction in ("in", "out"):
                pipe.set(keys.session_closed(self.id, direction), "1", ex=TTL_S)
            pipe.execute()
