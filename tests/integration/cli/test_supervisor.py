"""The supervisor with small real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from galaxy.cli.local.child import Child, rotate_log
from galaxy.cli.local.supervisor import PartChanged, Stopped, Supervisor
from galaxy.errors import HostError

READY = """
import os, socket, sys, time
def ready():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.sendto(b"READY=1\\nSTATUS=here", "\\0" + os.environ["NOTIFY_SOCKET"][1:])
"""


@pytest.fixture
def changes() -> list[PartChanged]:
    return []


@pytest.fixture
def supervisor(changes: list[PartChanged]) -> Iterator[Supervisor]:
    with Supervisor(changes.append, pids_changed=lambda: None) as one:
        yield one
        one.stop(list(one.children), grace_s=1.0)


@pytest.fixture
def child(tmp_path: Path) -> Callable[..., Child]:
    def make(code: str, name: str = "part") -> Child:
        return Child(name=name, argv=[sys.executable, "-c", READY + code], log=tmp_path / f"{name}.log")

    return make


def test_child_that_sends_ready_is_ready(
    supervisor: Supervisor, child: Callable[..., Child], changes: list[PartChanged]
) -> None:
    supervisor.start(child("ready(); time.sleep(60)"))
    supervisor.await_ready(["part"], timeout_s=60)
    assert [(h.state, h.detail) for h in changes] == [("starting", ""), ("ready", "here")]


def test_ready_from_another_process_is_ignored(supervisor: Supervisor, child: Callable[..., Child]) -> None:
    supervisor.start(child("import subprocess; subprocess.run([sys.executable, '-c', "
                           f"{READY + 'ready()'!r}]); time.sleep(60)"))  # fmt: skip
    with pytest.raises(HostError, match="not ready in 1s"):
        supervisor.await_ready(["part"], timeout_s=1)


def test_child_that_ends_is_started_again(supervisor: Supervisor, child: Callable[..., Child]) -> None:
    supervisor.start(child("ready(); time.sleep(60)"))
    supervisor.await_ready(["part"], timeout_s=60)
    first = supervisor.children["part"].pid
    os.kill(first, signal.SIGKILL)
    while supervisor.runs_for("part", 5):
        pass
    supervisor.await_ready(["part"], timeout_s=60)
    assert supervisor.children["part"].pid not in (0, first)
    assert supervisor.children["part"].restarts == 1


@pytest.mark.parametrize(("code", "delay_s_max"), [("ready()", 2.0), ("pass", 30.0)])
def test_back_off_grows_to_two_seconds_after_ready_and_to_thirty_without(
    code: str, delay_s_max: float, supervisor: Supervisor, child: Callable[..., Child]
) -> None:
    part = child(code)
    part.env = {"NOTIFY_SOCKET": supervisor.notify_address}
    waits = []
    for _ in range(10):
        part.start(0.0)
        part.ready = code == "ready()"
        part.on_exit(1.0)
        waits.append((part.restart_s or 0.0) - 1.0)
    assert waits[:2] == [0.5, 1.0]
    assert max(waits) == waits[-1] == delay_s_max


def test_child_that_never_becomes_ready_fails_with_its_last_log_lines(
    supervisor: Supervisor, child: Callable[..., Child]
) -> None:
    supervisor.start(child("sys.exit('no such luck')"))
    with pytest.raises(HostError, match="ended 3 times") as caught:
        supervisor.await_ready(["part"], timeout_s=60)
    assert "no such luck" in caught.value.details


def test_children_not_ready_in_time_are_named_with_their_last_log_lines(
    supervisor: Supervisor, child: Callable[..., Child]
) -> None:
    supervisor.start(child("ready(); time.sleep(60)", "early"))
    supervisor.await_ready(["early"], timeout_s=10)
    for name in ("one", "two"):
        supervisor.start(child(f"print('{name} is slow', flush=True); time.sleep(60)", name))
    log = supervisor.children["two"].log
    while not log.read_text():
        supervisor.runs_for("two", 0.01)
    with pytest.raises(HostError) as caught:
        supervisor.await_ready(["early", "one", "two"], timeout_s=1)
    assert caught.value.message == "one, two do not come up: not ready in 1s"
    assert "two: two is slow" in caught.value.details
    assert f"two: log: {log}" in caught.value.details
    assert "galaxy up --timeout" in caught.value.hint


def test_program_that_does_not_exist_fails_at_once(supervisor: Supervisor, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot start part"):
        supervisor.start(Child(name="part", argv=["/no/such/program"], log=tmp_path / "log"))


def test_stop_kills_a_child_that_ignores_sigterm(supervisor: Supervisor, child: Callable[..., Child]) -> None:
    supervisor.start(
        child("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); ready(); time.sleep(60)")
    )
    supervisor.await_ready(["part"], timeout_s=60)
    ref = supervisor.children["part"].ref
    assert ref is not None
    started_s = time.monotonic()
    supervisor.stop(["part"], grace_s=0.3)
    assert not ref.is_running()
    assert time.monotonic() - started_s < 20  # The child sleeps for a minute.


def test_watch_ends_when_the_lifeline_is_closed(child: Callable[..., Child]) -> None:
    out, into = os.pipe()
    with Supervisor(lambda _: None, pids_changed=lambda: None, lifeline=out) as supervisor:
        threading.Timer(0.1, os.close, [into]).start()
        supervisor.watch()
        assert "command at the terminal" in supervisor.stopped_by
    os.close(out)


def test_wait_for_readiness_ends_on_sigterm(supervisor: Supervisor, child: Callable[..., Child]) -> None:
    supervisor.start(child("time.sleep(60)"))
    threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGTERM]).start()
    with pytest.raises(Stopped):
        supervisor.await_ready(["part"], timeout_s=60)


def test_supervisor_knows_who_sent_the_signal_that_stops_it() -> None:
    # In a process of its own, which has one thread, as in production: others would take the signal.
    code = (
        "from galaxy.cli.local.supervisor import Supervisor\n"
        "with Supervisor(print, pids_changed=lambda: None) as one:\n"
        "    print('runs', flush=True)\n"
        "    one.watch()\n"
        "print(one.stopped_by)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "runs\n"
    process.send_signal(signal.SIGHUP)
    stopped_by, _ = process.communicate(timeout=60)
    assert stopped_by.startswith(f"SIGHUP from process {os.getpid()} of user ")
    program = Path("/proc/self/cmdline").read_bytes().split(b"\0")[0].decode()
    assert f"(uid {os.getuid()}): {program}" in stopped_by


def test_children_inherit_no_blocked_signals_and_the_umask_of_their_part(
    supervisor: Supervisor, child: Callable[..., Child], tmp_path: Path
) -> None:
    own = child(f"""
import signal
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
open({str(tmp_path / "result")!r}, "w").write(f"{{sorted(blocked)}} {{os.umask(0):o}}")
ready(); time.sleep(60)
""")
    own.umask = 0o077
    before = os.umask(0o027)
    try:
        supervisor.start(own)
        supervisor.await_ready(["part"], timeout_s=60)
    finally:
        os.umask(before)
    assert (tmp_path / "result").read_text() == "[] 77"


def test_log_over_its_limit_is_copied_once_and_truncated(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    with log.open("a") as writer:
        writer.write("x" * 1000)
        writer.flush()
        assert rotate_log(log, bytes_max=1000)
        writer.write("after")
        writer.flush()
    assert log.read_text() == "after"
    assert (tmp_path / "part.log.1").read_text() == "x" * 1000
    assert not rotate_log(log, bytes_max=1000)
