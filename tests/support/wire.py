"""A long wire, for kernels without netem: carries frames between two interfaces, late, in order, some lost.

    python wire.py --delay-ms 200 --jitter-ms 50 --loss 0.01 --rate-bit 1000000 --seed 1 LEFT RIGHT

Every frame waits its turn at ``rate`` (bits a second, 0 for no limit), then ``delay`` and as much
again as chance says within ``jitter``. What would have to wait for more than ``QUEUE_S`` before its
turn is dropped, as a router does. Says "ready" on its output, and ends with its parent.
"""

from __future__ import annotations

import argparse
import random
import select
import socket
import time
from collections import deque

ETH_P_ALL = 0x0003
PACKET_OUTGOING = 4
FRAME_BYTES_MAX = 65_550
QUEUE_S = 1.0
"""One bandwidth-delay product and more: 125 kB at 1 Mbit/s."""


class Direction:
    """Frames on their way from one end to the other, oldest first."""

    def __init__(self, wire: argparse.Namespace, chance: random.Random) -> None:
        self._wire = wire
        self._chance = chance
        self._free_s = 0.0
        self._last_s = 0.0
        self.waiting: deque[tuple[float, bytes]] = deque()

    def take(self, frame: bytes, now_s: float) -> None:
        """Let ``frame`` in, or drop it."""
        if self._chance.random() < self._wire.loss:
            return
        begins_s = max(now_s, self._free_s)
        if begins_s - now_s > QUEUE_S:
            return
        rate_bit = self._wire.rate_bit
        self._free_s = begins_s + (len(frame) * 8 / rate_bit if rate_bit else 0.0)
        jitter_s = self._chance.uniform(-1.0, 1.0) * self._wire.jitter_ms / 1000
        due_s = self._free_s + max(0.0, self._wire.delay_ms / 1000 + jitter_s)
        self._last_s = max(self._last_s, due_s)
        self.waiting.append((self._last_s, frame))

    def due(self, now_s: float) -> list[bytes]:
        """Take out what has arrived."""
        arrived = []
        while self.waiting and self.waiting[0][0] <= now_s:
            arrived.append(self.waiting.popleft()[1])
        return arrived


def opened(interface: str) -> socket.socket:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    end.bind((interface, ETH_P_ALL))
    end.setblocking(False)
    return end


def carry(wire: argparse.Namespace) -> None:
    """Carry frames for ever."""
    ends = (opened(wire.left), opened(wire.right))
    chance = random.Random(wire.seed)
    ways = (Direction(wire, chance), Direction(wire, chance))
    print("ready", flush=True)
    while True:
        now_s = time.monotonic()
        heads = [way.waiting[0][0] for way in ways if way.waiting]
        wait_s = max(0.0, min(heads) - now_s) if heads else None
        readable, _, _ = select.select(ends, (), (), wait_s)
        now_s = time.monotonic()
        for end in readable:
            _take_all(end, ways[ends.index(end)], now_s)
        for way, end in zip(ways, reversed(ends), strict=True):
            for frame in way.due(now_s):
                _send(end, frame)


def _take_all(end: socket.socket, way: Direction, now_s: float) -> None:
    while True:
        try:
            frame, where = end.recvfrom(FRAME_BYTES_MAX)
        except (BlockingIOError, OSError):  # Also: the interface is down for a moment.
            return
        if where[2] != PACKET_OUTGOING:
            way.take(frame, now_s)


def _send(end: socket.socket, frame: bytes) -> None:
    try:
        end.send(frame)
    except OSError:
        return  # A wire loses what the other end does not take.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--jitter-ms", type=float, default=0.0)
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--rate-bit", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("left")
    parser.add_argument("right")
    carry(parser.parse_args())


if __name__ == "__main__":
    main()
