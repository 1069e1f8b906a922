"""Positions in a task's output, over rotated files."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from galaxy.model.messages.log_files import Run, RunIndex, file_names, pieces, run_span


def test_files_are_named_newest_first():
    assert file_names("web", "stdout", 3) == ("web.stdout", "web.stdout.1", "web.stdout.2")


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 200), st.data())
def test_pieces_are_the_bytes_between_two_positions_that_rotation_left(sizes, dropped, data):
    """``sizes`` are oldest first; ``dropped`` bytes came before them and are gone."""
    total = dropped + sum(sizes)
    stream = bytes(position % 251 for position in range(total))
    names = [f"f{age}" for age in range(len(sizes))]
    contents, at = {}, dropped
    for name, size in zip(reversed(names), sizes, strict=True):
        contents[name] = stream[at : at + size]
        at += size
    start = data.draw(st.integers(0, total))
    end = data.draw(st.none() | st.integers(start, total + 10))
    newest_first = [(name, len(contents[name])) for name in names]
    read = b"".join(
        contents[piece.name][piece.start : piece.start + piece.length]
        for piece in pieces(newest_first, total - sizes[-1], start, end)
    )
    assert read == stream[max(start, dropped) : end]


def test_run_spans_from_its_start_to_the_next_ones():
    runs = tuple(Run(number=n, started_s=float(n), stdout=n * 100, stderr=n) for n in (1, 2, 3))
    index = RunIndex(stdout=0, stderr=0, runs=runs)
    assert run_span(index, "stdout") == (300, None)
    assert run_span(index, "stdout", back=1) == (200, 300)
    assert run_span(index, "stderr", back=2) == (1, 2)
    assert run_span(index, "stdout", back=3) is None
    assert run_span(RunIndex(), "stdout") is None
