"""A single-threaded event loop: descriptors, timers, and signals that only wake it."""

from __future__ import annotations

import contextlib
import heapq
import os
import select
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Final

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
_EVENTS_AT_ONCE: Final = 64
_WAIT_S_MAX: Final = 60.0


class Timer:
    """A call to be made at a monotonic time unless it is cancelled."""

    __slots__ = ("at_s", "call")

    def __init__(self, at_s: float, call: Callable[[], None] | None) -> None:
        self.at_s = at_s
        self.call = call

    def cancel(self) -> None:
        self.call = None

    def __lt__(self, other: Timer) -> bool:
        return self.at_s < other.at_s


class EventLoop:
    """Calls back when a descriptor is ready, a timer is due, or a signal has arrived.

    It is level-triggered, and every callback does a bounded amount of work: a flood on one
    descriptor delays the others by one callback at a time. A callback that raises is reported to
    ``on_fault``, and the others are called all the same.
    """

    def __init__(self, on_fault: Callable[[Exception], None]) -> None:
        self._on_fault = on_fault
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self._signals: dict[int, Callable[[], None]] = {}
        self._received: set[int] = set()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.add(self._wake_read, READ, self._drain)

    def add(self, fd: int, events: int, call: Callable[[int], None]) -> None:
        """Call ``call(events)`` whenever ``fd`` is ready for ``events`` or has hung up."""
        self._epoll.register(fd, events)
        self._calls[fd] = call

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Stop watching ``fd``, before it is closed. Does nothing if it is not watched."""
        if self._calls.pop(fd, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def at(self, at_s: float, call: Callable[[], None]) -> Timer:
        """Call ``call`` at a monotonic time."""
        timer = Timer(at_s, call)
        heapq.heappush(self._timers, timer)
        return timer

    def after(self, delay_s: float, call: Callable[[], None]) -> Timer:
        return self.at(time.monotonic() + delay_s, call)

    def on_signal(self, number: int, call: Callable[[], None]) -> None:
        """Call ``call`` from the loop after signal ``number``; several signals may cause one call."""
        self._signals[number] = call
        signal.signal(number, lambda got, _frame: self._received.add(got))
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    def run_once(self) -> None:
        """Wait until a descriptor, timer or signal is ready, and handle it."""
        wait_s = _WAIT_S_MAX
        if self._timers:
            wait_s = min(max(self._timers[0].at_s - time.monotonic(), 0.0), _WAIT_S_MAX)
        for fd, events in self._epoll.poll(wait_s, _EVENTS_AT_ONCE):
            call = self._calls.get(fd)
            if call is not None:
                self._guard(partial(call, events))
        while self._received:
            self._guard(self._signals[self._received.pop()])
        self._run_timers()

    def _run_timers(self) -> None:
        now_s = time.monotonic()
        while self._timers and (self._timers[0].call is None or self._timers[0].at_s <= now_s):
            timer = heapq.heappop(self._timers)
            if timer.call is not None:
                self._guard(timer.call)

    def _guard(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001  (a defect of ours must not end the user's programs)
            self._on_fault(error)

    def _drain(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
