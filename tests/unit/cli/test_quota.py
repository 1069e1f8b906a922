"""Parsing of limits on the command line."""

from __future__ import annotations

import pytest

from galaxy.cli.identity.quota import read_limits
from galaxy.errors import UsageError
from galaxy.model.resources import Ceiling
from galaxy.units import GIB


def test_limits_are_parsed_with_units_and_under_names_of_galaxy_3() -> None:
    read, lift = read_limits(["cpu=1.5", "memory=2G", "disk=none", "containers=40"])
    assert (read, lift) == (Ceiling(cpu_milli=1500, memory_bytes=2 * GIB, containers=40), ("disk_bytes",))
    assert read_limits(["millicore=250", "replica=0"]) == (Ceiling(cpu_milli=250, containers=0), ())


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["cpus=1"], 'cannot limit "cpus"; did you mean cpu?'),
        (["cpu"], "is not a limit"),
        (["cpu=a"], "is not a limit"),
        (["containers=-1"], "out of range"),
        (["containers=9" + "9" * 30], "out of range"),
        (["memory=9999E"], "out of range"),
        (["containers=many"], "a whole number"),
        (["cpu=1", "millicore=5"], "limited twice"),
        ([], "no limit given"),
    ],
)
def test_argument_that_is_not_a_limit_is_refused_with_the_reason(arguments: list[str], cause: str) -> None:
    with pytest.raises(UsageError, match=cause):
        read_limits(arguments)
