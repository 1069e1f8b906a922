"""A callback that raises is reported, and keeps no other one from being called."""

from __future__ import annotations

import os
import signal

from galaxy.worker_entry.event_loop import READ, EventLoop


def test_callbacks_after_one_that_raises_are_called_in_the_same_turn() -> None:
    faults: list[Exception] = []
    called: list[str] = []
    loop = EventLoop(faults.append)

    def fail(*_: object) -> None:
        raise ValueError("a defect")

    loop.after(0.0, fail)
    loop.after(0.0, lambda: called.append("timer"))
    for call in (fail, lambda _: called.append("file")):
        readable, written = os.pipe()
        os.write(written, b"x")
        loop.add(readable, READ, call)
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    try:
        loop.on_signal(signal.SIGUSR1, fail)
        loop.on_signal(signal.SIGUSR2, lambda: called.append("signal"))
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        loop.run_once()
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
    assert sorted(called) == ["file", "signal", "timer"]
    assert [str(fault) for fault in faults] == ["a defect"] * 3
