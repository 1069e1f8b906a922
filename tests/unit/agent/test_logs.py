"""Logs: tails, runs, rotation, following, and what is kept."""

from __future__ import annotations

import os
import queue
import threading
from pathlib import Path

import pytest

from galaxy.agent.housekeeping import remove_old_logs
from galaxy.agent.sessions import log_session
from galaxy.agent.sessions.directory_watch import DirectoryWatch
from galaxy.agent.sessions.line_decoder import LineDecoder
from galaxy.agent.sessions.log_session import LogSessionRunner
from galaxy.agent.sessions.log_streams import TaskLogStream, incarnations_in, streams_in
from galaxy.model.api.sessions import LogPosition, LogSession, ReadLogs, unpack_chunks
from galaxy.model.api.views import LogChunk
from galaxy.model.base import encode
from galaxy.model.messages.log_files import Run, RunIndex
from galaxy.nexus.presence import Peer
from galaxy.nexus.session import ITEM_BYTES_MAX
from tests.support.waiting import until

POD = "web-abc123.0"


class Pipe:
    """A session's far end: what was written, and whether somebody still reads."""

    def __init__(self) -> None:
        self.chunks: queue.Queue[LogChunk] = queue.Queue()
        self.all: queue.Queue[LogChunk] = queue.Queue()
        self.was_closed = False
        self.asked = 0

    def write(self, direction: str, data: bytes, timeout_s: float = 30.0) -> None:
        for chunk in unpack_chunks(data):
            self.all.put(chunk)
            if chunk.text or chunk.end or chunk.run:
                self.chunks.put(chunk)

    def close(self, direction: str) -> None:
        self.was_closed = True

    def peer(self) -> Peer:
        self.asked += 1
        return Peer(closed=self.was_closed, subscribed=False, leased=False)

    def has_reader(self, direction: str) -> bool:
        return not self.was_closed


def directory(logs: Path, incarnation: int = 1) -> Path:
    made = logs / f"{POD}_{incarnation}"
    made.mkdir(parents=True)
    return made


def streamer(
    logs: Path, pipe: Pipe, alive: threading.Event | None = None, **read: object
) -> LogSessionRunner:
    order = LogSession(session="s", pod=POD, read=ReadLogs(target=POD, **read))  # type: ignore[arg-type]
    return LogSessionRunner(
        order,
        pipe,
        logs,
        alive=lambda *_: alive is not None and alive.is_set(),
        closing=threading.Event(),
        idle_s=60.0,
    )


def told(pipe: Pipe) -> tuple[dict[str, str], str]:
    """Return the text of each stream, and the error that the last chunk carries."""
    text: dict[str, str] = {}
    while True:
        chunk = pipe.chunks.get(timeout=30)
        if chunk.end:
            return text, chunk.error
        if chunk.run is not None:
            continue
        name = f"{chunk.task}.{chunk.stream}"
        text[name] = text.get(name, "") + chunk.text


def run(logs: Path, **read: object) -> tuple[dict[str, str], str]:
    pipe = Pipe()
    streamer(logs, pipe, **read).run()
    assert pipe.was_closed
    return told(pipe)


@pytest.mark.parametrize(("tail", "lines"), [(2, 2), (0, 0), (100, 10), (-1, 10)])
def test_tail_gives_the_last_lines(tmp_path: Path, tail: int, lines: int) -> None:
    (directory(tmp_path) / "main.stdout").write_text("".join(f"line {n}\n" for n in range(10)))
    text, error = run(tmp_path, tail=tail)
    expected = "".join(f"line {n}\n" for n in range(10 - lines, 10))
    assert (text.get("main.stdout", ""), error) == (expected, "")


def test_last_line_without_an_end_counts_and_is_given(tmp_path: Path) -> None:
    (directory(tmp_path) / "main.stdout").write_text("one\ntwo\nthree")
    assert run(tmp_path, tail=2)[0] == {"main.stdout": "two\nthree"}


def test_tail_reaches_over_rotated_files_and_blocks(tmp_path: Path) -> None:
    place = directory(tmp_path)
    old = "".join(f"old {n:06}\n" for n in range(20_000))
    (place / "main.stdout.1").write_text(old)
    (place / "main.stdout").write_text("new\n")
    (place / "main.runs.json").write_bytes(encode(RunIndex(stdout=len(old))))
    text = run(tmp_path, tail=15_001)[0]["main.stdout"]
    assert text == "".join(f"old {n:06}\n" for n in range(5_000, 20_000)) + "new\n"


def test_only_the_task_and_stream_asked_for_are_told(tmp_path: Path) -> None:
    place = directory(tmp_path)
    for name in ("a.stdout", "a.stderr", "b.stdout"):
        (place / name).write_text(name)
    assert run(tmp_path, task="a", stream="stderr")[0] == {"a.stderr": "a.stderr"}
    assert set(run(tmp_path)[0]) == {"a.stdout", "a.stderr", "b.stdout"}


def test_previous_is_the_run_before_the_latest(tmp_path: Path) -> None:
    place = directory(tmp_path)
    (place / "main.stdout").write_text("first\nsecond\nthird\n")
    runs = tuple(
        Run(number=n, started_s=0.0, stdout=at, stderr=0) for n, at in enumerate((0, 6, 13), start=1)
    )
    (place / "main.runs.json").write_bytes(encode(RunIndex(runs=runs)))
    assert run(tmp_path, previous=True)[0] == {"main.stdout": "second\n"}


def test_previous_of_a_first_run_is_the_container_before(tmp_path: Path) -> None:
    (directory(tmp_path, 1) / "main.stdout").write_text("earlier life\n")
    (directory(tmp_path, 2) / "main.stdout").write_text("this life\n")
    assert run(tmp_path, previous=True)[0] == {"main.stdout": "earlier life\n"}
    assert run(tmp_path)[0] == {"main.stdout": "this life\n"}


def test_pod_without_logs_says_so(tmp_path: Path) -> None:
    assert run(tmp_path) == ({}, f"no logs of {POD} on this host")
    directory(tmp_path)
    assert run(tmp_path, previous=True)[1] == f"{POD} has not run before"


def test_follow_tells_what_is_written_and_ends_with_the_container(tmp_path: Path) -> None:
    place, pipe, alive = directory(tmp_path), Pipe(), threading.Event()
    alive.set()
    log = place / "main.stdout"
    log.write_text("before\n")
    thread = threading.Thread(target=streamer(tmp_path, pipe, alive, follow=True).run, daemon=True)
    thread.start()
    assert pipe.chunks.get(timeout=30).text == "before\n"
    with log.open("a") as writer:
        writer.write("while\n")
    assert pipe.chunks.get(timeout=30).text == "while\n"
    alive.clear()
    with log.open("a") as writer:
        writer.write("last\n")
    assert told(pipe) == ({"main.stdout": "last\n"}, "")
    thread.join(5)


def test_follow_goes_on_over_a_rotation(tmp_path: Path) -> None:
    place, pipe, alive = directory(tmp_path), Pipe(), threading.Event()
    alive.set()
    (place / "main.stdout").write_text("one\n")
    thread = threading.Thread(target=streamer(tmp_path, pipe, alive, follow=True).run, daemon=True)
    thread.start()
    assert pipe.chunks.get(timeout=30).text == "one\n"
    with (place / "main.stdout").open("a") as writer:
        writer.write("two\n")
    (place / "main.stdout").rename(place / "main.stdout.1")
    (place / "main.runs.json").write_bytes(encode(RunIndex(stdout=8)))
    (place / "main.stdout").write_text("three\n")
    alive.clear()
    assert told(pipe) == ({"main.stdout": "two\nthree\n"}, "")
    thread.join(5)


def test_follow_ends_when_the_reader_has_gone(tmp_path: Path) -> None:
    pipe, alive = Pipe(), threading.Event()
    alive.set()
    directory(tmp_path)
    thread = threading.Thread(target=streamer(tmp_path, pipe, alive, follow=True).run, daemon=True)
    thread.start()
    pipe.was_closed = True
    thread.join(10)
    assert not thread.is_alive()


def test_link_in_a_log_directory_is_not_followed(tmp_path: Path) -> None:
    (directory(tmp_path) / "main.stdout").symlink_to("/etc/passwd")
    assert run(tmp_path)[0] == {}


def test_names_that_are_no_logs_are_passed_over(tmp_path: Path) -> None:
    place = directory(tmp_path)
    for name in ("main.stdout", "main.runs.json", "x", "main.stdout.1", "../y.stdout".replace("/", "-")):
        (place / name).write_text("")
    assert [(one.task, one.stream) for one in streams_in(place)] == [("main", "stdout")]
    assert [life[0] for life in incarnations_in(tmp_path, POD)] == [1]


def test_character_cut_between_blocks_is_whole_again() -> None:
    lines = LineDecoder()
    data = "größe\n".encode()
    assert lines.add(data[:3]) == ""
    assert lines.add(data[3:]) == "größe\n"
    assert lines.add(b"\xff\n") == "�\n"


def test_bytes_that_are_not_utf8_are_sent_as_they_are_beside_the_readable_text(tmp_path: Path) -> None:
    data = b"caf\xe9 \xc3\xa9\n" + b"\xff" * 9000 + b"\n" + "🐎".encode() * 9000 + b"\xfe\n" + b"plain\n"
    (directory(tmp_path) / "main.stdout").write_bytes(data)
    pipe = Pipe()
    streamer(tmp_path, pipe, tail=-1).run()
    chunks = []
    while not (chunk := pipe.chunks.get(timeout=30)).end:
        chunks.append(chunk)
    assert "".join(chunk.exact for chunk in chunks).encode("utf-8", "surrogateescape") == data
    assert "".join(chunk.text for chunk in chunks).startswith("caf\ufffd é\n")
    assert max(len(encode(chunk)) for chunk in chunks) < ITEM_BYTES_MAX


def test_line_without_end_is_bounded() -> None:
    lines = LineDecoder()
    total = sum(len(lines.add(b"x" * 50_000)) for _ in range(10))
    assert total >= 400_000
    assert total + len(lines.rest()) == 500_000


def test_watch_wakes_for_a_write_and_not_without(tmp_path: Path) -> None:
    watch = DirectoryWatch(tmp_path)
    assert not watch.wait(0.0)
    (tmp_path / "a").write_text("x")
    assert watch.wait(30.0)
    assert not watch.wait(0.0)
    watch.close()


def test_watch_of_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="inotify_add_watch"):
        DirectoryWatch(tmp_path / "none")


def test_position_is_passed_over_what_rotation_dropped(tmp_path: Path) -> None:
    (tmp_path / "main.stdout").write_text("kept")
    (tmp_path / "main.runs.json").write_bytes(encode(RunIndex(stdout=1000)))
    files = TaskLogStream(tmp_path, "main", "stdout")
    assert files.read(0) == (1004, b"kept")
    assert (files.begin(), files.end()) == (1000, 1004)


# ---- what is kept


def aged(logs: Path, name: str, age_s: float, size: int) -> None:
    place = logs / name
    place.mkdir()
    (place / "main.stdout").write_bytes(b"x" * size)
    for path in (place / "main.stdout", place):
        os.utime(path, (10_000 - age_s, 10_000 - age_s))


def test_old_logs_go_and_those_of_held_containers_stay(tmp_path: Path) -> None:
    for name, age_s in (("old-1.0_1", 500), ("held-1.0_1", 500), ("new-1.0_1", 5)):
        aged(tmp_path, name, age_s, 10)
    removed = remove_old_logs(tmp_path, {"held-1.0_1"}, now_s=10_000, keep_s=100, bytes_max=10**9)
    assert removed == ["old-1.0_1"]
    assert sorted(os.listdir(tmp_path)) == ["held-1.0_1", "new-1.0_1"]


def test_oldest_logs_go_first_beyond_the_budget(tmp_path: Path) -> None:
    for number in range(4):
        aged(tmp_path, f"p-1.{number}_1", 100 - number, 100_000)
    remove_old_logs(tmp_path, set(), now_s=10_000, keep_s=10**6, bytes_max=250_000)
    assert sorted(os.listdir(tmp_path)) == ["p-1.2_1", "p-1.3_1"]


def test_session_resumed_after_any_interruption_gives_every_byte_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_session, "CHECK_S", 0.02)
    place = directory(tmp_path)
    output = {"stdout": b"", "stderr": b""}
    read = {"stdout": "", "stderr": ""}
    resume: tuple[LogPosition, ...] = ()
    pieces = (
        b"one\n",
        b"two\nhalf ",
        b"of it\n",
        b"\xff\xfe\n",
        "ž".encode()[:1],
        "ž".encode()[1:] + b"\n",
        b"",
    )
    for number, piece in enumerate(pieces):
        name = "stderr" if number % 3 == 2 else "stdout"
        output[name] += piece
        with (place / f"main.{name}").open("ab") as writer:
            writer.write(piece)
        pipe, alive, closing = Pipe(), threading.Event(), threading.Event()
        alive.set()
        order = LogSession(
            session="s",
            pod=POD,
            read=ReadLogs(target=POD, follow=True, tail=-1, resume=resume, resume_incarnation=1),
        )
        runner = LogSessionRunner(order, pipe, tmp_path, alive=lambda *_: True, closing=closing, idle_s=60.0)
        thread = threading.Thread(target=runner.run, daemon=True)
        thread.start()
        until("it follows", lambda pipe=pipe: pipe.asked > 0)
        closing.set()
        thread.join(10)
        at = {(one.task, one.stream): one.at for one in resume}
        while not (chunk := pipe.all.get(timeout=10)).end:
            if chunk.next >= 0:
                at[chunk.task, chunk.stream] = chunk.next
            if chunk.text:
                read[chunk.stream] += chunk.exact
        assert chunk.interrupted and chunk.incarnation == 1
        resume = tuple(LogPosition(task=task, stream=stream, at=end) for (task, stream), end in at.items())
    alive.clear()
    text, _ = run(tmp_path, follow=True, tail=-1, resume=resume, resume_incarnation=1)
    for name in output:
        whole = read[name].encode("utf-8", "surrogateescape") + text.get(f"main.{name}", "").encode()
        assert whole == output[name]
