"""Diagnostics, and the error that lists them."""

from __future__ import annotations

from galaxy.model.jobspec.diagnostics import (
    DIAGNOSTICS_MAX,
    Diagnostic,
    Mark,
    nearest_mark,
    spec_error,
    write_path,
)
from galaxy.suggest import nearest


def test_path_is_formatted_with_dots_and_indexes() -> None:
    assert write_path(("pod", "tasks", 0, "ports", 1, "name")) == "pod.tasks[0].ports[1].name"


def test_position_of_a_missing_field_is_that_of_its_parent() -> None:
    marks = {(): Mark(1, 1), ("pod",): Mark(3, 1)}
    assert nearest_mark(("pod", "tasks", 0), marks) == Mark(3, 1)
    assert nearest_mark(("x",), {}) is None


def test_similar_name_is_suggested_and_a_different_one_is_not() -> None:
    assert nearest("replcia", ["replica", "step"]) == "replica"
    assert nearest("zzz", ["replica", "step"]) == ""


def test_diagnostics_are_listed_in_the_order_of_the_file() -> None:
    marks = {("a",): Mark(9, 1), ("b",): Mark(2, 3)}
    error = spec_error([Diagnostic(("a",), "x"), Diagnostic(("b",), "y")], name="f", marks=marks)
    assert error.details == ("f:2:3: `b`: y", "f:9:1: `a`: x")


def test_long_list_of_diagnostics_is_counted_and_cut() -> None:
    error = spec_error([Diagnostic((), "x")] * (DIAGNOSTICS_MAX + 5), name="f", marks={})
    assert len(error.details) == DIAGNOSTICS_MAX + 1
    assert error.details[-1] == "and 5 more"
