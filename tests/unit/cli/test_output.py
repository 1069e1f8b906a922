"""Tables, colours and data for machines."""

from __future__ import annotations

import json

import pytest

from galaxy.cli.output import (
    Output,
    format_age,
    one_line,
    print_err,
    print_out,
    table_lines,
    truncate,
    with_all_fields,
)
from galaxy.model.api.views import EndpointView, JobSummary


def test_columns_are_aligned_and_lines_have_no_tail() -> None:
    lines = table_lines(["A", "LONG"], [["xxx", "1"], ["y", ""]])
    assert lines == ["A    LONG", "xxx  1", "y"]


def test_headers_can_be_left_out() -> None:
    assert table_lines(["A"], [["x"]], headers=False) == ["x"]
    assert table_lines(["A"], [], headers=False) == []


def test_lines_are_cut_to_the_terminal() -> None:
    assert table_lines(["A", "B"], [["abc", "defghij"]], width=8)[1] == "abc  de…"
    assert truncate("abc", 0) == "abc"


def test_states_are_coloured_without_moving_columns() -> None:
    plain = table_lines(["POD", "STATE", "X"], [["failed-1", "failed", "y"]])
    coloured = table_lines(["POD", "STATE", "X"], [["failed-1", "failed", "y"]], colour=True)
    assert coloured[1] == plain[1].replace("  failed", "  \x1b[31mfailed\x1b[0m")


def test_text_from_elsewhere_cannot_move_the_cursor() -> None:
    assert one_line("a\x1b[2Jb\nc") == "a [2Jb c"
    assert "\x1b" not in table_lines(["A"], [["\x1b[2J"]])[1]


def test_lines_that_are_written_keep_their_ends_and_nothing_else_that_moves_the_cursor(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_out("a\x1b[2J\nb\x9b2J")
    print_err("a\r\x1b]0;x\x07b")
    assert capsys.readouterr() == ("a [2J\nb 2J\n", "a  ]0;x b\n")


def test_data_for_machines_is_whole_and_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    text = "a\x1b[2J\x9b2J\x7f\u00a0é"
    for form in ("json", "yaml"):
        Output(form).print_data([text], [])
        out = capsys.readouterr().out
        assert not {"\x1b", "\x9b", "\x7f"} & set(out)
        assert form == "yaml" or json.loads(out) == [text]
        assert "é" in out


def test_data_for_machines_has_every_field() -> None:
    job = JobSummary(job="a-1", name="a", type="service", state="running", revision=1, replica=1)
    assert with_all_fields(job)["healthy"] == 0
    endpoint = EndpointView(service="s", pod="a-1.0", address="h", port=1, state="healthy")
    assert with_all_fields((endpoint,)) == [
        {"service": "s", "pod": "a-1.0", "address": "h", "port": 1, "state": "healthy"}
    ]


def test_times_are_told_relative_and_what_never_was_is_empty() -> None:
    assert format_age(100.0, 165.4) == "1m5s"
    assert format_age(0.0, 165.0) == ""
    assert format_age(200.0, 100.0) == "0s"  # A clock that is ahead of ours.
