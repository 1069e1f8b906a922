"""Chunks of logs are printed as lines, with a prefix when there are several pods."""

from __future__ import annotations

from galaxy.cli.job.logs import LINE_MAX, Printer
from galaxy.model.api.views import LogChunk


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
