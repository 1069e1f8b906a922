"""Commands end with their client, and what cannot be sent to a pod is refused."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable

import pytest

from galaxy.agent.sessions.exec_session import ExecSessionRunner
from galaxy.errors import Unreachable, UsageError
from galaxy.model.api.sessions import ARGUMENT_BYTES_MAX, EXEC_BYTES_MAX, ExecIn, ExecSession, check_exec
from galaxy.model.messages.worker import Exec, ExecEnded, ExecKill, ExecStarted
from galaxy.nexus.presence import ABSENCE_S, ABSENT_S, LEASE_S, ClientWatch, Peer
from galaxy.nexus.session import Frame
from tests.support.waiting import until

HERE = Peer(closed=False, subscribed=True, leased=True)
UNSEEN = Peer(closed=False, subscribed=False, leased=False)


def test_client_that_was_killed_is_gone_after_a_moment() -> None:
    watch = ClientWatch()
    assert not watch.is_gone(HERE, 0.0)
    killed = Peer(closed=False, subscribed=False, leased=True)
    assert not watch.is_gone(killed, 1.0)
    assert watch.is_gone(killed, 1.0 + ABSENT_S)


def test_client_that_subscribes_again_is_there() -> None:
    watch = ClientWatch()
    watch.is_gone(HERE, 0.0)
    away = Peer(closed=False, subscribed=False, leased=True)
    for second in range(5):
        assert not watch.is_gone(away, 2.0 * second)
        assert not watch.is_gone(HERE, 2.0 * second + 0.4)


def test_client_whose_network_is_cut_is_gone_when_its_lease_ends() -> None:
    watch = ClientWatch()
    assert not watch.is_gone(HERE, 0.0)
    assert watch.is_gone(Peer(closed=False, subscribed=True, leased=False), 10.0)


def test_client_that_never_showed_its_presence_is_not_judged_by_it() -> None:
    watch = ClientWatch()
    assert not any(watch.is_gone(UNSEEN, float(second)) for second in range(100))
    assert not watch.is_known
    assert watch.is_gone(Peer(closed=True, subscribed=False, leased=False), 100.0)


def test_client_is_there_while_redis_is_away_for_a_few_seconds() -> None:
    watch = ClientWatch()
    watch.is_gone(HERE, 0.0)
    assert not any(watch.is_gone(None, 1.0 + second) for second in range(5))
    # Redis came back without the client's key and subscription.
    assert not any(watch.is_gone(UNSEEN, 6.0 + second) for second in range(LEASE_S))
    assert not watch.is_gone(HERE, 15.9)
    assert not watch.is_gone(HERE, 60.0)
    away = Peer(closed=False, subscribed=False, leased=True)
    assert not watch.is_gone(away, 61.0)
    assert watch.is_gone(away, 61.0 + ABSENT_S)


def test_client_that_does_not_come_back_with_redis_is_gone() -> None:
    for lost in (UNSEEN, Peer(closed=False, subscribed=False, leased=True)):
        watch = ClientWatch()
        watch.is_gone(HERE, 0.0)
        watch.is_gone(None, 1.0)
        assert not watch.is_gone(lost, 2.0)
        assert not watch.is_gone(lost, 2.0 + LEASE_S - 0.1)
        watch.is_gone(lost, 2.0 + LEASE_S)
        assert watch.is_gone(lost, 2.0 + LEASE_S + ABSENT_S)


def test_client_is_gone_when_redis_is_away_for_too_long() -> None:
    watch = ClientWatch()
    watch.is_gone(HERE, 0.0)
    assert not watch.is_gone(None, 1.0)
    assert not watch.is_gone(None, 0.9 + ABSENCE_S)
    assert watch.is_gone(None, 1.0 + ABSENCE_S)


class Pipe:
    """The client's end: nobody reads, and ``state`` is what Redis says of it."""

    def __init__(self) -> None:
        self.state = HERE
        self.room = 4
        self.away = False
        self.asked = 0
        self.frames: list[Frame] = []

    def send(
        self,
        direction: str,
        frame: Frame,
        timeout_s: float = 30.0,
        *,
        waiting: Callable[[], None] | None = None,
    ) -> None:
        while len(self.frames) >= self.room and frame.head.kind == "stdout":
            time.sleep(0.02)
            assert waiting is not None
            waiting()
        self.frames.append(frame)

    def receive(self, direction: str, timeout_s: float) -> Frame | None:
        time.sleep(0.05)
        return None

    def close(self, direction: str) -> None: ...

    def peer(self) -> Peer:
        self.asked += 1
        if self.away:
            raise Unreachable("cannot reach Redis")
        return self.state

    def has_reader(self, direction: str) -> bool:
        return False


class Worker:
    """AppWorker, whose commands write until they are killed."""

    def __init__(self) -> None:
        self.killed = threading.Event()
        self.begun: queue.SimpleQueue[Exec] = queue.SimpleQueue()

    def begin(self, pod: str, packet: Exec, files: tuple[int, ...], sink: Callable[..., None]) -> None:
        sink(ExecStarted(request=7), [])
        self.begun.put(packet)
        if packet.detach:
            assert files == ()
            return
        self._files = files

        def work() -> None:
            while not self.killed.is_set():
                try:
                    os.write(files[1], b"x" * 32768)
                except OSError:
                    break
            for fd in files:
                os.close(fd)
            sink(ExecEnded(request=7, status=137), [])

        threading.Thread(target=work, daemon=True).start()

    def send(self, pod: str, packet: object) -> None:
        if isinstance(packet, ExecKill):
            self.killed.set()


def runner(pipe: Pipe, worker: Worker, **fields: object) -> threading.Thread:
    order = ExecSession(session="s", pod="web-1.0", exec=ExecIn(pod="web", argv=("yes",), **fields))  # type: ignore[arg-type]
    session = ExecSessionRunner(order, pipe, worker, closing=threading.Event(), idle_s=60.0)
    thread = threading.Thread(target=session.run, daemon=True)
    thread.start()
    return thread


def test_command_whose_client_died_is_killed_though_its_output_is_not_read() -> None:
    pipe, worker = Pipe(), Worker()
    thread = runner(pipe, worker)
    while len(pipe.frames) < pipe.room:
        assert thread.is_alive()
        time.sleep(0.01)
    pipe.state = Peer(closed=False, subscribed=False, leased=True)
    assert worker.killed.wait(10)
    thread.join(10)
    assert not thread.is_alive()


def test_command_whose_client_is_there_waits_for_it_to_read() -> None:
    pipe, worker = Pipe(), Worker()
    thread = runner(pipe, worker)
    while len(pipe.frames) < pipe.room:
        assert thread.is_alive()
        time.sleep(0.01)
    assert not worker.killed.wait(1.5)
    pipe.state = Peer(closed=True, subscribed=True, leased=True)
    assert worker.killed.wait(10)
    thread.join(10)


def test_command_goes_on_while_redis_is_away() -> None:
    pipe, worker = Pipe(), Worker()
    thread = runner(pipe, worker)
    until("output waits", lambda: len(pipe.frames) >= pipe.room)
    pipe.away = True
    asked = pipe.asked
    until("the client was looked for", lambda: pipe.asked > asked + 2)
    assert not worker.killed.is_set()
    pipe.away = False
    asked = pipe.asked
    until("the client was seen again", lambda: pipe.asked > asked + 2)
    assert not worker.killed.is_set()
    pipe.state = Peer(closed=True, subscribed=True, leased=True)
    assert worker.killed.wait(10)
    thread.join(10)


def test_detached_command_is_started_and_not_killed() -> None:
    pipe, worker = Pipe(), Worker()
    thread = runner(pipe, worker, detach=True)
    thread.join(10)
    assert not thread.is_alive()
    assert worker.begun.get().detach
    assert [(frame.head.kind, frame.head.status) for frame in pipe.frames] == [("exit", 0)]
    assert not worker.killed.is_set()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("echo", "x" * ARGUMENT_BYTES_MAX), "argument 1 of the command is too long"),
        (("echo", "ž" * (ARGUMENT_BYTES_MAX // 2)), "argument 1 of the command is too long"),
        (("echo", "a\0b"), "zero byte"),
        (("echo", *["x" * 1000] * 300), "the command is too long"),
        (("echo", "\x01" * 100_000), "the command is too long"),
    ],
)
def test_command_that_no_pod_could_run_is_refused_with_the_limit(argv: tuple[str, ...], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_exec(argv)


def test_longest_command_is_accepted() -> None:
    check_exec(("echo", "x" * (ARGUMENT_BYTES_MAX - 1)))
    check_exec(("echo", *["x" * 1000] * (EXEC_BYTES_MAX // 1003 - 1)))
