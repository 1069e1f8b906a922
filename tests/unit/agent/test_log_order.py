"""Both streams of a program are read in the order in which they were written, run by run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galaxy.agent.sessions.log_session import LogSessionRunner
from galaxy.model.api.sessions import LogSession, ReadLogs, unpack_chunks
from galaxy.model.api.views import LogChunk
from galaxy.model.base import encode
from galaxy.model.messages.log_files import ARRIVAL_BYTES, ARRIVAL_STEP_S, Run, RunIndex
from galaxy.nexus.presence import Peer
from galaxy.worker_entry import task_logs
from galaxy.worker_entry.event_loop import EventLoop
from galaxy.worker_entry.task_logs import TaskLogs

POD = "web-abc123.0"
Write = Callable[..., None]


class Program:
    """A program's output: written to AppWorker's pipes, and by it to the files of its container."""

    def __init__(
        self, logs: Path, incarnation: int = 1, *, bytes_max: int = 1 << 20, files_max: int = 5
    ) -> None:
        self.folder = logs / f"{POD}_{incarnation}"
        self.folder.mkdir(parents=True)
        self.lost: list[str] = []
        self._loop = EventLoop(on_fault=self.lost.append)
        self._directory = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        self.logs = TaskLogs(
            self._loop,
            self._directory,
            "main",
            bytes_max=bytes_max,
            files_max=files_max,
            on_lost=self.lost.append,
        )
        self._runs = 0

    def start(self, revision: int = 1, restarts: int = 0) -> Program:
        self._runs += 1
        self.logs.begin_run(self._runs, time.time(), revision=revision, restarts=restarts)
        self.logs.write_index()
        return self

    def out(self, text: str) -> Program:
        return self._write(self.logs.stdout, text)

    def err(self, text: str) -> Program:
        return self._write(self.logs.stderr, text)

    def _write(self, fd: int, text: str) -> Program:
        os.write(fd, text.encode())
        self.logs.drain()
        return self


class Pipe:
    """The client's end of a session."""

    def __init__(self) -> None:
        self.chunks: list[LogChunk] = []
        self.ended = threading.Event()

    def write(self, direction: str, data: bytes, timeout_s: float = 30.0) -> None:
        self.chunks += unpack_chunks(data)

    def close(self, direction: str) -> None:
        self.ended.set()

    def peer(self) -> Peer:
        return Peer(closed=self.was_closed, subscribed=False, leased=False)

    def has_reader(self, direction: str) -> bool:
        return True


def read(logs: Path, **options: object) -> list[LogChunk]:
    pipe = Pipe()
    order = LogSession(session="s", pod=POD, read=ReadLogs(target=POD, **options))  # type: ignore[arg-type]
    runner = LogSessionRunner(
        order, pipe, logs, alive=lambda *_: False, closing=threading.Event(), idle_s=60.0
    )
    runner.run()
    assert pipe.ended.is_set()
    assert pipe.chunks[-1].end
    return pipe.chunks


def text(logs: Path, **options: object) -> str:
    chunks = read(logs, **options)
    assert not chunks[-1].error
    return "".join(chunk.text for chunk in chunks)


def marks(logs: Path, **options: object) -> list[tuple[int, int] | str]:
    """Return (revision, restarts) of each mark, and text between."""
    found: list[tuple[int, int] | str] = []
    for chunk in read(logs, **options):
        if chunk.run is not None:
            found.append((chunk.run.revision, chunk.run.restarts))
        elif chunk.text and found and isinstance(found[-1], str):
            found[-1] += chunk.text
        elif chunk.text:
            found.append(chunk.text)
    return found


def test_streams_are_merged_in_the_order_of_arrival(tmp_path: Path) -> None:
    program = Program(tmp_path).start()
    program.out("1\n").err("2\n").err("3\n").out("4\n").err("5\n")
    assert text(tmp_path) == "1\n2\n3\n4\n5\n"
    assert text(tmp_path, stream="stderr") == "2\n3\n5\n"


def test_crash_of_an_earlier_run_comes_before_the_output_of_the_next_one(tmp_path: Path) -> None:
    program = Program(tmp_path).start(revision=1)
    program.out("starting\n").err("Traceback: boom\n")
    program.start(revision=2).out("listening\n")
    assert text(tmp_path) == "starting\nTraceback: boom\nlistening\n"


def test_each_run_is_marked_with_its_revision_and_restart(tmp_path: Path) -> None:
    program = Program(tmp_path).start(revision=1).out("a\n")
    program.start(revision=1, restarts=1).err("b\n")
    program.start(revision=2).out("c\n")
    assert marks(tmp_path) == [(1, 0), "a\n", (1, 1), "b\n", (2, 0), "c\n"]


def test_last_line_is_marked_with_the_run_that_it_belongs_to(tmp_path: Path) -> None:
    program = Program(tmp_path).start(revision=1).out("a\n")
    program.start(revision=3, restarts=7).out("b\nc\n")
    assert marks(tmp_path, tail=1) == [(3, 7), "c\n"]


def test_tail_counts_the_lines_of_both_streams_together(tmp_path: Path) -> None:
    program = Program(tmp_path).start()
    for number in range(10):
        program.out(f"out {number}\n").err(f"err {number}\n")
    assert text(tmp_path, tail=3) == "err 8\nout 9\nerr 9\n"
    assert text(tmp_path, tail=0) == ""
    assert text(tmp_path, tail=3, stream="stdout") == "out 7\nout 8\nout 9\n"


def test_old_line_of_the_other_stream_is_not_among_the_last_lines(tmp_path: Path) -> None:
    program = Program(tmp_path).start().err("warning at start\n")
    for number in range(500):
        program.out(f"{number}\n")
    assert text(tmp_path, tail=2) == "498\n499\n"
    assert text(tmp_path, tail=501).startswith("warning at start\n0\n")


def test_latest_run_alone(tmp_path: Path) -> None:
    program = Program(tmp_path).start(revision=1).out("old\n").err("crash\n")
    program.start(revision=2, restarts=1).out("new\n")
    assert marks(tmp_path, latest=True) == [(2, 1), "new\n"]
    program.start(revision=3)
    assert marks(tmp_path, latest=True) == []


def test_previous_run_is_in_the_order_of_time_as_well(tmp_path: Path) -> None:
    program = Program(tmp_path).start(revision=1).out("first\n")
    program.start(revision=2).out("1\n").err("2\n").out("3\n")
    program.start(revision=3).err("last\n")
    assert marks(tmp_path, previous=True) == [(2, 0), "1\n2\n3\n"]


def test_line_that_another_stream_interrupts_stays_one_line(tmp_path: Path) -> None:
    program = Program(tmp_path).start()
    program.out("half ").err("other\n").out("line\n")
    assert text(tmp_path) == "other\nhalf line\n"


def test_incomplete_line_of_a_crashed_run_ends_before_the_next_run(tmp_path: Path) -> None:
    program = Program(tmp_path).start(revision=1).out("no newline")
    program.start(revision=2).out("next\n")
    assert marks(tmp_path) == [(1, 0), "no newline", (2, 0), "next\n"]


def test_each_line_has_the_time_of_its_arrival(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(monkeypatch)
    program = Program(tmp_path).start()
    clock.now_s = 1000.5
    program.out("a\n")
    clock.now_s = 1002.25
    program.out("b\n").err("c\n")
    times = [(chunk.text, chunk.at_s) for chunk in read(tmp_path) if chunk.text]
    assert times == [("a\n", 1000.5), ("b\n", 1002.25), ("c\n", 1002.25)]
    assert text(tmp_path, since_s=1001.0) == "b\nc\n"
    assert text(tmp_path, since_s=1001.0, tail=1) == "c\n"
    assert text(tmp_path, since_s=1003.0) == ""


def test_flood_of_both_streams_is_in_order_within_each_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(monkeypatch)
    program = Program(tmp_path).start()
    for number in range(1000):
        program.out(f"{number}\n").err(f"{number}\n")
    clock.now_s += 1.0
    program.err("later\n").out("last\n")
    assert (program.folder / "main.arrivals").stat().st_size < 110 * ARRIVAL_BYTES
    lines = text(tmp_path, tail=-1).splitlines()
    assert lines[:80] == [str(number) for number in range(40) for _ in range(2)]
    assert lines[-2:] == ["later", "last"]
    for stream in ("stdout", "stderr"):
        assert text(tmp_path, tail=-1, stream=stream).splitlines()[:-1] == list(map(str, range(1000)))


def test_clock_that_is_set_back_does_not_change_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(monkeypatch, 5000.0)
    program = Program(tmp_path).start().out("1\n")
    clock.now_s = 10.0
    for number in range(2, 400):
        clock.now_s += 0.001
        (program.out if number % 2 else program.err)(f"{number}\n")
    assert text(tmp_path, tail=-1) == "".join(f"{number}\n" for number in range(1, 400))


def test_flood_of_one_stream_writes_a_record_for_each_step_of_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(monkeypatch)
    program = Program(tmp_path).start()
    size = (program.folder / "main.arrivals").stat().st_size
    for number in range(1000):
        clock.now_s += ARRIVAL_STEP_S / 100
        program.out(f"{number}\n")
    grown = (program.folder / "main.arrivals").stat().st_size - size
    assert 0 < grown <= 11 * ARRIVAL_BYTES


def test_records_are_bounded_and_output_older_than_they_are_is_still_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(monkeypatch)
    program = Program(tmp_path, bytes_max=20_000, files_max=2).start()
    for number in range(2000):
        clock.now_s += 0.001
        program.out(f"{number}\n").err(f"{number}\n")
    sizes = [path.stat().st_size for path in program.folder.glob("main.arrivals*")]
    assert len(sizes) == 2 and sum(sizes) <= 2 * 4096
    lines = text(tmp_path, tail=-1).splitlines()
    assert sorted(map(int, lines)) == sorted([*range(2000)] * 2)
    assert lines[-400:] == [str(number) for number in range(1800, 2000) for _ in range(2)]


def test_output_without_records_is_given_run_after_run(tmp_path: Path) -> None:
    folder = tmp_path / f"{POD}_1"
    folder.mkdir()
    (folder / "main.stdout").write_text("out 1\nout 2\n")
    (folder / "main.stderr").write_text("err 1\nerr 2\n")
    runs = (
        Run(number=1, started_s=10.0, stdout=0, stderr=0),
        Run(number=2, started_s=20.0, stdout=6, stderr=6),
    )
    (folder / "main.runs.json").write_bytes(encode(RunIndex(runs=runs)))
    assert text(tmp_path) == "out 1\nerr 1\nout 2\nerr 2\n"
    assert all(chunk.at_s == 0.0 for chunk in read(tmp_path) if chunk.text)
    assert text(tmp_path, since_s=25.0) == "out 2\nerr 2\n"


@pytest.mark.parametrize("damage", ["cut", "gone", "garbage", "zeros"])
def test_damaged_records_lose_no_output(tmp_path: Path, damage: str) -> None:
    program = Program(tmp_path).start()
    for number in range(50):
        program.out(f"{number}\n").err(f"{number}\n")
    records = program.folder / "main.arrivals"
    data = records.read_bytes()
    match damage:
        case "cut":
            records.write_bytes(data[:-5])
        case "gone":
            records.unlink()
        case "garbage":
            records.write_bytes(os.urandom(len(data)))
        case "zeros":
            records.write_bytes(bytes(len(data)))
    lines = text(tmp_path, tail=-1).splitlines()
    assert sorted(map(int, lines)) == sorted([*range(50)] * 2)


def test_following_gives_new_output_in_order_and_marks_new_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(monkeypatch)
    program = Program(tmp_path).start().out("1\n")
    pipe, alive = Pipe(), threading.Event()
    alive.set()
    order = LogSession(session="s", pod=POD, read=ReadLogs(target=POD, follow=True))
    runner = LogSessionRunner(
        order, pipe, tmp_path, alive=lambda *_: alive.is_set(), closing=threading.Event(), idle_s=60.0
    )
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    expected = ["1\n"]
    for number in range(2, 60):
        clock.now_s += 0.001
        (program.out if number % 3 else program.err)(f"{number}\n")
        expected.append(f"{number}\n")
    program.start(revision=1, restarts=1).err("again\n")
    alive.clear()
    thread.join(30)
    shown = [chunk for chunk in pipe.chunks if chunk.text or chunk.run]
    assert "".join(chunk.text for chunk in shown) == "".join([*expected, "again\n"])
    assert [chunk.run.restarts for chunk in shown if chunk.run] == [0, 1]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    writes=st.lists(
        st.tuples(st.sampled_from(["out", "err", "run"]), st.integers(1, 400), st.sampled_from([0.0, 0.02])),
        max_size=40,
    ),
    tail=st.integers(0, 50),
)
def test_any_order_of_writes_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[str, int, float]], tail: int
) -> None:
    logs = tmp_path_factory.mktemp("logs")
    with pytest.MonkeyPatch.context() as patch:
        clock = FakeClock(patch)
        program = Program(logs, bytes_max=3000, files_max=90).start()
        written = []
        for number, (what, size, pause_s) in enumerate(writes):
            clock.now_s += pause_s
            line = f"{number}:{'x' * size}\n"
            if what == "run":
                program.start()
                continue
            (program.out if what == "out" else program.err)(line)
            written.append(line)
    assert text(logs, tail=-1) == "".join(written)
    assert text(logs, tail=tail) == "".join(
        written[len(written) - tail :] if tail < len(written) else written
    )
    times = [chunk.at_s for chunk in read(logs, tail=-1) if chunk.text]
    assert all(earlier <= later for earlier, later in pairwise(times))


class FakeClock:
    """The clock that AppWorker reads."""

    def __init__(self, patch: pytest.MonkeyPatch, now_s: float = 100.0) -> None:
        self.now_s = now_s
        patch.setattr(task_logs.time, "time", lambda: self.now_s)
