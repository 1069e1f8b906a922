"""Logs of several pods become one stream, sorted by time; following picks up what is new."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from galaxy.client import log_stream
from galaxy.client.log_stream import LogStream, NewPods
from galaxy.errors import NotFound
from galaxy.model.api.sessions import LogPosition, SessionOpened, pack_chunks
from galaxy.model.api.views import JobView, LogChunk, LogRun
from galaxy.model.base import encode
from tests.support.waiting import until
from tests.unit.cli.views import pod, view


class Line:
    """A session whose agent is the test."""

    def __init__(self) -> None:
        self.items: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.closed = threading.Event()
        self.agent = True
        self.asked = 0

    def has_agent(self) -> bool:
        self.asked += 1
        return self.agent

    def was_away(self, within_s: float) -> bool:
        return False

    def read(self, direction: str, timeout_s: float) -> bytes | None:
        try:
            return self.items.get(timeout=min(timeout_s, 0.05))
        except queue.Empty:
            return b"" if self.closed.is_set() else None

    def close(self, direction: str) -> None:
        self.closed.set()

    def remove(self) -> None:
        self.closed.set()

    def send(self, *chunks: LogChunk) -> None:
        self.items.put(pack_chunks([encode(chunk) for chunk in chunks]))


class Cluster:
    """The agents of a job's pods, and its view."""

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}
        self.view: JobView | None = None
        self.opened: list[str] = []
        self.resumed: list[tuple[tuple[LogPosition, ...], int]] = []

    def open(self, *pods: str, incarnation: int = 1) -> SessionOpened:
        for name in pods:
            self.lines[f"{name}#{incarnation}"] = Line()
        self.opened += pods
        ids = tuple(f"{name}#{incarnation}" for name in pods)
        return SessionOpened(sessions=ids, pods=pods, incarnations=(incarnation,) * len(pods))

    def session(self, session_id: str) -> Line:
        return self.lines[session_id]

    def show(self, job: str) -> JobView:
        if self.view is None:
            raise NotFound("no such job")
        return self.view

    def open_logs(self, name: str, resume: Sequence[LogPosition] = (), incarnation: int = 0) -> SessionOpened:
        assert self.view is not None
        self.resumed.append((tuple(resume), incarnation))
        found = next(one for one in self.view.pods if one.pod == name)
        return self.open(name, incarnation=found.incarnation)

    def new_pods(self, target: str = "web") -> NewPods:
        return NewPods(target, self.show, self.open_logs)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(log_stream, "FIRST_LOOK_S", 0.02)
    monkeypatch.setattr(log_stream, "NEW_PODS_S", 0.02)
    monkeypatch.setattr(log_stream, "RESUME_S", 0.02)
    return Cluster()


def line(text: str, at_s: float = 0.0, pod: str = "web-1.0") -> LogChunk:
    return LogChunk(pod=pod, task="main", stream="stdout", text=text, at_s=at_s)


END = LogChunk(end=True, incarnation=1)


def stream(cluster: Cluster, opened: SessionOpened, new_pods: NewPods | None = None) -> LogStream:
    return LogStream(opened, cluster.session, new_pods=new_pods)  # type: ignore[arg-type]


def test_pods_are_merged_by_time(cluster: Cluster) -> None:
    opened = cluster.open("web-1.0", "web-1.1")
    cluster.lines["web-1.1#1"].send(line("b", 2.0), line("d", 4.0), END)
    cluster.lines["web-1.0#1"].send(line("a", 1.0), line("c", 3.0), END)
    assert [chunk.text for chunk in stream(cluster, opened)] == ["a", "b", "c", "d"]


def test_pod_that_does_not_answer_holds_the_others_back_for_a_moment_only(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_stream, "GRACE_S", 0.1)
    monkeypatch.setattr(log_stream, "SILENCE_S", 0.5)
    opened = cluster.open("web-1.0", "web-1.1")
    cluster.lines["web-1.0#1"].send(line("a", 1.0), END)
    chunks = list(stream(cluster, opened))
    assert [chunk.text for chunk in chunks] == ["a", ""]
    assert "the agent of web-1.1 does not answer" in chunks[1].error


def test_following_picks_up_a_pod_that_scaling_adds_and_ends_with_the_job(cluster: Cluster) -> None:
    cluster.view = view(pod(0))
    followed = stream(cluster, cluster.open("web-1.0"), cluster.new_pods())
    chunks = iter(followed)
    cluster.lines["web-1.0#1"].send(line("first"))
    assert next(chunks).text == "first"
    cluster.view = view(pod(0), pod(1))
    while "web-1.1#1" not in cluster.lines:
        assert not cluster.lines["web-1.0#1"].closed.wait(0.01)
    cluster.lines["web-1.1#1"].send(line("second", pod="web-1.1"), END)
    assert next(chunks).text == "second"
    assert followed.pods == ("web-1.0", "web-1.1")
    cluster.view = None
    cluster.lines["web-1.0#1"].send(END)
    assert list(chunks) == []
    assert cluster.opened == ["web-1.0", "web-1.1"]


def test_following_waits_for_the_first_pod(cluster: Cluster) -> None:
    cluster.view = view(pod(0, "pending", agent=""))
    followed = stream(cluster, SessionOpened(sessions=(), pods=()), cluster.new_pods())
    assert followed.pods == ()
    cluster.view = view(pod(0))
    while "web-1.0#1" not in cluster.lines:
        assert not threading.Event().wait(0.01)
    cluster.lines["web-1.0#1"].send(line("up"), END)
    cluster.view = None
    assert [chunk.text for chunk in followed] == ["up"]


def test_following_continues_with_the_container_that_replaces_another(cluster: Cluster) -> None:
    cluster.view = view(pod(0))
    chunks = iter(stream(cluster, cluster.open("web-1.0"), cluster.new_pods("web.0")))
    cluster.lines["web-1.0#1"].send(line("old"), END)
    assert next(chunks).text == "old"
    cluster.view = view(pod(0, incarnation=2))
    while "web-1.0#2" not in cluster.lines:
        assert not threading.Event().wait(0.01)
    cluster.lines["web-1.0#2"].send(line("new"), LogChunk(end=True, incarnation=2))
    cluster.view = view()
    assert [chunk.text for chunk in chunks] == ["new"]


def test_session_that_showed_an_older_container_than_expected_is_opened_again(cluster: Cluster) -> None:
    cluster.view = view(pod(0, incarnation=2))
    chunks = iter(stream(cluster, cluster.open("web-1.0", incarnation=2), cluster.new_pods()))
    cluster.lines["web-1.0#2"].send(line("old"), END)
    assert next(chunks).text == "old"
    while len(cluster.opened) < 2:
        assert not threading.Event().wait(0.01)
    cluster.view = None
    cluster.lines["web-1.0#2"].send(line("new"), LogChunk(end=True, incarnation=2))
    assert [chunk.text for chunk in chunks] == ["new"]


def test_closing_closes_every_session(cluster: Cluster) -> None:
    followed = stream(cluster, cluster.open("web-1.0"), cluster.new_pods())
    cluster.view = view(pod(0))
    followed.close()
    assert cluster.lines["web-1.0#1"].closed.is_set()
    assert list(followed) == []


HERE = (LogPosition(task="main", stream="stdout", at=6, run_s=0.5),)


@pytest.mark.parametrize("how", ["the agent says so", "the session is closed", "the agent was killed"])
def test_following_continues_where_a_session_ended_before_its_log(cluster: Cluster, how: str) -> None:
    cluster.view = view(pod(0))
    chunks = iter(stream(cluster, cluster.open("web-1.0"), cluster.new_pods("web.0")))
    first = cluster.lines["web-1.0#1"]
    run = LogChunk(pod="web-1.0", task="main", at_s=0.5, run=LogRun(revision=1, restarts=0))
    start = LogChunk(pod="web-1.0", task="main", stream="stdout", next=0, incarnation=1)
    first.send(start, run, replace(line("first\n"), next=6))
    assert [next(chunks).text for _ in range(2)] == ["", "first\n"]
    if how == "the agent says so":
        first.send(LogChunk(end=True, incarnation=1, interrupted=True, error="the agent is ending"))
    elif how == "the session is closed":
        first.closed.set()
    else:
        until("the agent was seen", lambda: first.asked > 1)
        first.agent = False
    again = until("it is opened again", lambda: find_other(cluster, first))
    assert cluster.resumed == [(HERE, 1)]
    cluster.view = None
    again.send(replace(line("second\n"), next=13), END)
    assert [(chunk.text, chunk.error) for chunk in chunks] == [("second\n", "")]


def find_other(cluster: Cluster, first: Line) -> Line | None:
    found = cluster.lines["web-1.0#1"]
    return None if found is first else found


def test_log_that_is_not_followed_and_ends_early_says_so(cluster: Cluster) -> None:
    opened = cluster.open("web-1.0")
    cluster.lines["web-1.0#1"].send(line("a"))
    cluster.lines["web-1.0#1"].closed.set()
    first, second = list(stream(cluster, opened))
    assert first.text == "a"
    assert "is incomplete" in second.error
