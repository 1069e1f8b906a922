"""Limits that the kernel counts per user apply to each container alone, because each has its own user."""

from __future__ import annotations

import pytest

from galaxy.units import MIB
from tests.support.hostile import quoted

COMMON = """
import array, ctypes, fcntl, json, os, signal, socket, time
libc = ctypes.CDLL(None, use_errno=True)
class Value(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("pointer", ctypes.c_void_p)]
libc.sigqueue.argtypes = [ctypes.c_int, ctypes.c_int, Value]
signal.pthread_sigmask(signal.SIG_BLOCK, {40})
kept = []
def watch():
    return libc.inotify_init1(0) >= 0
def queue():
    return libc.sigqueue(os.getpid(), 40, Value(number=1)) == 0
def pass_files():
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    kept.append(pair)
    pair[0].setblocking(False)
    try:
        for _ in range(8):
            pair[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 250))])
    except BlockingIOError:
        pass
    except OSError:
        return False
    return True
def widen_pipe():
    pair = os.pipe()
    kept.append(pair)
    try:
        return fcntl.fcntl(pair[1], 1031, 1 << 20) == 1 << 20
    except OSError:
        return False
"""
EXHAUST = "\nwhile {0}(): pass\nprint('exhausted', flush=True)\ntime.sleep(1000)"
TRY = "\nprint(json.dumps({0}()))"


@pytest.mark.parametrize("what", ["watch", "queue", "pass_files", "widen_pipe"])
def test_container_that_exhausts_a_per_user_limit_does_not_affect_another(host, what: str) -> None:
    other = host.container("other", memory_bytes=128 * MIB)
    assert other.facts(COMMON + TRY.format(what)), "the host itself has none left"
    greedy = host.container(
        "greedy", start=quoted(COMMON + EXHAUST.format(what)), memory_bytes=256 * MIB, cpu_milli=1000
    )
    try:
        greedy.await_log("exhausted")
        assert other.facts(COMMON + TRY.format(what))
    finally:
        greedy.destroy()
        other.destroy()
