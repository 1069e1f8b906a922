"""Emulates a slow link for kernels without netem: forwards frames between two interfaces with delay and loss.

    python slow_link.py --delay-ms 200 --jitter-ms 50 --loss 0.01 --rate-bit 1000000 --seed 1 LEFT RIGHT

Every frame is queued at ``rate`` (bits per second, 0 means no limit), then delayed by ``delay`` plus or
minus a random part of ``jitter``; order is kept. A frame that would be queued for more than ``QUEUE_S``
is dropped, as a router does. Prints "ready" when it forwards, and ends with its parent.
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
"""Longest queue: more than one bandwidth-delay product, 125 kB at 1 Mbit/s."""


class Direction:
    """Frames in transit in one direction, oldest first."""

    def __init__(self, link: argparse.Namespace, rng: random.Random) -> None:
        self._link = link
        self._rng = rng
        self._free_s = 0.0
        self._last_s = 0.0
        self.waiting: deque[tuple[float, bytes]] = deque()

    def enqueue(self, frame: bytes, now_s: float) -> None:
        """Queue ``frame``, or drop it."""
        if self._rng.random() < self._link.loss:
            return
        starts_s = max(now_s, self._free_s)
        if starts_s - now_s > QUEUE_S:
            return
        rate_bit = self._link.rate_bit
        self._free_s = starts_s + (len(frame) * 8 / rate_bit if rate_bit else 0.0)
        jitter_s = self._rng.uniform(-1.0, 1.0) * self._link.jitter_ms / 1000
        due_s = self._free_s + max(0.0, self._link.delay_ms / 1000 + jitter_s)
        self._last_s = max(self._last_s, due_s)
        self.waiting.append((self._last_s, frame))

    def due(self, now_s: float) -> list[bytes]:
        """Remove and return the frames that have arrived."""
        arrived = []
        while self.waiting and self.waiting[0][0] <= now_s:
            arrived.append(self.waiting.popleft()[1])
        return arrived


def open_interface(interface: str) -> socket.socket:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    end.bind((interface, ETH_P_ALL))
    end.setblocking(False)
    return end


def forward(link: argparse.Namespace) -> None:
    """Forward frames until the process ends."""
    ends = (open_interface(link.left), open_interface(link.right))
    rng = random.Random(link.seed)
    directions = (Direction(link, rng), Direction(link, rng))
    print("ready", flush=True)
    while True:
        now_s = time.monotonic()
        heads = [direction.waiting[0][0] for direction in directions if direction.waiting]
        wait_s = max(0.0, min(heads) - now_s) if heads else None
        readable, _, _ = select.select(ends, (), (), wait_s)
        now_s = time.monotonic()
        for end in readable:
            _receive_all(end, directions[ends.index(end)], now_s)
        for direction, end in zip(directions, reversed(ends), strict=True):
            for frame in direction.due(now_s):
                _send(end, frame)


def _receive_all(end: socket.socket, direction: Direction, now_s: float) -> None:
    while True:
        try:
            frame, where = end.recvfrom(FRAME_BYTES_MAX)
        except (BlockingIOError, OSError):  # OSError: the interface is down for a moment.
            return
        if where[2] != PACKET_OUTGOING:
            direction.enqueue(frame, now_s)


def _send(end: socket.socket, frame: bytes) -> None:
    try:
        end.send(frame)
    except OSError:
        return  # The link loses what the other end does not accept.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--jitter-ms", type=float, default=0.0)
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--rate-bit", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("left")
    parser.add_argument("right")
    forward(parser.parse_args())


if __name__ == "__main__":
    main()
