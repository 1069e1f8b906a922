"""Chunks of logs are printed as lines, with a prefix when there are several pods."""

from __future__ import annotations

from galaxy.cli.job.logs import LINE_MAX, PODS_SHOWN, Printer, why_nothing
from galaxy.model.api.views import LogChunk, LogRun, TaskView
from galaxy.model.messages.container import Reason
from tests.unit.cli.views import pod, view


def chunk(text: str, pod: str = "a.0", stream: str = "stdout") -> LogChunk:
    return LogChunk(pod=pod, task="main", stream=stream, text=text)


def test_chunks_of_one_pod_are_printed_unchanged() -> None:
    assert Printer(prefix=False, colour=False)(chunk("a\nb")) == "a\nb"


def test_lines_of_several_pods_start_with_their_pod_and_are_never_mixed() -> None:
    printer = Printer(prefix=True, colour=False)
    assert printer(chunk("one\nhalf")) == "a.0 | one\n"
    assert printer(chunk("other\n", "a.1")) == "a.1 | other\n"
    assert printer(chunk("way\n")) == "a.0 | halfway\n"


def test_streams_of_one_pod_have_separate_lines() -> None:
    printer = Printer(prefix=True, colour=False)
    printer(chunk("out"))
    assert printer(chunk("err\n", stream="stderr")) == "a.0 | err\n"
    assert printer.rest() == "a.0 | out\n"


def test_line_longer_than_the_limit_is_printed_in_pieces() -> None:
    printer = Printer(prefix=True, colour=False)
    assert len(printer(chunk("x" * (LINE_MAX + 1)))) > LINE_MAX
    assert printer.rest() == ""


def run(revision: int, restarts: int = 0, pod: str = "a.0") -> LogChunk:
    return LogChunk(pod=pod, task="main", run=LogRun(revision=revision, restarts=restarts))


def test_mark_stands_between_runs_and_not_before_the_first_one() -> None:
    printer = Printer(marks=True, colour=False)
    text = "".join(map(printer, [run(1), chunk("a\n"), run(2, 3), chunk("b\n")]))
    assert text == "a\n--- a.0 main: revision 2, restart 3 ---\nb\n"


def test_mark_begins_a_line_of_its_own() -> None:
    printer = Printer(marks=True, colour=False)
    assert "".join(map(printer, [chunk("half"), run(2)])) == "half\n--- a.0 main: revision 2 ---\n"
    prefixed = Printer(marks=True, prefix=True, colour=False)
    shown = "".join(map(prefixed, [chunk("half"), run(2)]))
    assert shown == "a.0 | half\n--- a.0 main: revision 2 ---\n"


def test_without_marks_lines_are_as_the_program_wrote_them() -> None:
    printer = Printer(colour=False)
    assert "".join(map(printer, [chunk("a\n"), run(2), chunk("b\n")])) == "a\nb\n"


def test_each_line_starts_with_its_time_and_a_line_in_pieces_with_that_of_its_beginning() -> None:
    printer = Printer(timestamps=True, colour=False)
    chunks = [
        LogChunk(pod="a.0", task="main", stream="stdout", text="one\ntwo\nthr", at_s=1.5),
        LogChunk(pod="a.0", task="main", stream="stdout", text="ee\n", at_s=2.0),
        LogChunk(pod="a.0", task="main", stream="stdout", text="old\n"),
    ]
    assert "".join(map(printer, chunks)).splitlines() == [
        "1970-01-01T00:00:01.500Z one",
        "1970-01-01T00:00:01.500Z two",
        "1970-01-01T00:00:01.500Z three",
        "-                        old",
    ]


def test_prefix_that_comes_with_a_second_pod_keeps_lines_whole() -> None:
    printer = Printer(colour=False)
    assert printer(chunk("half")) == "half"
    printer.prefix = True
    assert printer(chunk("other\n", "a.1")) == "\na.1 | other\n"


def test_missing_output_is_explained_by_the_state_and_reason_of_the_pod() -> None:
    task = TaskView(name="main", state="backoff", reason=Reason(code="fetch", message="cannot fetch a.tar"))
    job = view(pod(0, "backoff", tasks=(task,)), pod(1))
    assert why_nothing(job, ["web-1.0"], filtered=False) == [
        "no output of web-1.0, which is backoff: cannot fetch a.tar"
    ]
    assert why_nothing(job, ["web-1.1"], filtered=True) == ["no such output of web-1.1, which is running"]


def test_missing_output_of_many_pods_is_explained_for_the_first_ones() -> None:
    job = view(*(pod(index) for index in range(PODS_SHOWN + 3)))
    lines = why_nothing(job, [each.pod for each in job.pods], filtered=False)
    assert len(lines) == PODS_SHOWN + 1
    assert lines[-1] == "nor of 3 more pods"
