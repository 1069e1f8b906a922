"""Tables for people, with colours on a terminal, and JSON and YAML for programs."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from galaxy.cli.output import (
    Output,
    format_age,
    one_line,
    plain_table,
    print_err,
    print_out,
    truncate,
    with_all_fields,
)
from galaxy.model.api.views import EndpointView, JobSummary

TITLES = ["POD", "STATE", "REASON"]
ROWS = [["web-1.0", "failed", "exit code 9 after 3 restarts"], ["failed", "running", ""]]


def on_terminal(
    columns: int, *, rows: list[list[str]] = ROWS, headers: bool = True, **environ: str
) -> list[str]:
    """Return the lines that ``print_table`` writes to a terminal of this width."""
    code = (
        f"from galaxy.cli.output import Output\nOutput(headers={headers}).print_table({TITLES!r}, {rows!r})\n"
    )
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    env = clean | {"TERM": "xterm-256color"} | environ
    try:
        subprocess.run([sys.executable, "-c", code], stdout=theirs, stdin=theirs, env=env, check=True)
    finally:
        os.close(theirs)
    with os.fdopen(ours, "rb") as file:
        text = file.read1(65536).decode()
    return [line.rstrip() for line in text.splitlines()]


def without_escapes(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip()


def test_columns_are_aligned_and_lines_have_no_trailing_spaces() -> None:
    assert plain_table([["A", "LONG"], ["xxx", "1"], ["y", ""]]) == ["A    LONG", "xxx  1", "y"]
    assert plain_table([]) == []


def test_table_in_a_pipe_is_plain_and_complete(capsys: pytest.CaptureFixture[str]) -> None:
    Output().print_table(TITLES, ROWS)
    assert capsys.readouterr().out.splitlines() == [
        "POD      STATE    REASON",
        "web-1.0  failed   exit code 9 after 3 restarts",
        "failed   running",
    ]


def test_no_headers_prints_rows_only(capsys: pytest.CaptureFixture[str]) -> None:
    Output(headers=False).print_table(["A"], [["x"]])
    Output(headers=False).print_table(["A"], [])
    assert capsys.readouterr().out == "x\n"


def test_text_from_others_cannot_move_the_cursor_in_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert one_line("a\x1b[2Jb\nc") == "a [2Jb c"
    Output().print_table(["A"], [["\x1b[2J\n"]])
    assert capsys.readouterr().out == "A\n [2J\n"


def test_wide_terminal_shows_the_same_columns_as_a_pipe() -> None:
    lines = [without_escapes(line) for line in on_terminal(100)]
    assert lines == plain_table([TITLES, *ROWS])
    assert [without_escapes(line) for line in on_terminal(100, headers=False)] == plain_table(ROWS)


def test_reason_has_lines_of_its_own_on_a_narrow_terminal() -> None:
    lines = [without_escapes(line) for line in on_terminal(30)]
    assert lines == [
        "POD      STATE",
        "web-1.0  failed",
        "    exit code 9 after 3",
        "    restarts",
        "failed   running",
    ]
    lines = [without_escapes(line) for line in on_terminal(30, headers=False)]
    assert lines[:2] == ["web-1.0  failed", "    exit code 9 after 3"]


def test_no_word_of_a_reason_is_lost_at_any_width() -> None:
    reason = "task main: exit code 9; " + "x" * 70 + " žluť 🐎 after 3 restarts"
    rows = [["web-1.0", "failed", reason], ["web-1.1", "running", ""]]
    for columns in (24, 40, 79, 80, 81, 120, 200):
        lines = [without_escapes(line) for line in on_terminal(columns, rows=rows)]
        assert "".join(reason.split()) in "".join("".join(lines).split()), columns
        assert all(len(line) <= columns for line in lines)


def test_narrow_terminal_cuts_lines_and_keeps_the_first_columns() -> None:
    lines = [without_escapes(line) for line in on_terminal(12)]
    assert [line for line in lines if not line.startswith(" ")] == [
        "POD      ST…",
        "web-1.0  fa…",
        "failed   ru…",
    ]


def test_long_cell_is_cut_even_when_the_terminal_is_wide() -> None:
    (line,) = on_terminal(100, rows=[["web-1.0", "x" * 200, ""]], headers=False)
    assert line == "web-1.0  " + "x" * 90 + "…"


def test_states_are_coloured_unless_the_user_wants_no_colours() -> None:
    assert "\x1b[31mfailed" in on_terminal(100)[1]
    assert not any("\x1b" in line for line in on_terminal(100, NO_COLOR="1"))


def test_text_is_shortened_with_an_ellipsis() -> None:
    assert (truncate("abc", 3), truncate("abcd", 3)) == ("abc", "ab…")


def test_printed_lines_keep_their_line_ends_and_no_other_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_out("a\x1b[2J\nb\x9b2J")
    print_err("a\r\x1b]0;x\x07b")
    assert capsys.readouterr() == ("a [2J\nb 2J\n", "a  ]0;x b\n")


def test_data_for_programs_is_complete_and_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    text = "a\x1b[2J\x9b2J\x7f\u00a0é"
    for form in ("json", "yaml"):
        Output(form).print_data([text], [])
        out = capsys.readouterr().out
        assert not {"\x1b", "\x9b", "\x7f"} & set(out)
        assert form == "yaml" or json.loads(out) == [text]
        assert "é" in out


def test_data_for_programs_has_every_field() -> None:
    job = JobSummary(job="a-1", name="a", type="service", state="running", revision=1, replica=1)
    assert with_all_fields(job)["healthy"] == 0
    endpoint = EndpointView(service="s", pod="a-1.0", address="h", port=1, state="healthy")
    assert with_all_fields((endpoint,)) == [
        {"service": "s", "pod": "a-1.0", "address": "h", "port": 1, "state": "healthy"}
    ]


def test_times_are_relative_and_empty_for_never() -> None:
    assert format_age(100.0, 165.4) == "1m5s"
    assert format_age(0.0, 165.0) == ""
    assert format_age(200.0, 100.0) == "0s"  # A clock ahead of ours.
