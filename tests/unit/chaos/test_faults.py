"""A fault strikes somebody, or says that it does not; and a load that breaks is heard of."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, cast

import pytest

from galaxy.errors import HostError
from galaxy.testing.chaos.faults import living
from galaxy.testing.chaos.witness_listener import WitnessListener
from galaxy.testing.chaos.workload import Workload


class Town:
    """Stands for a cluster whose processes come when they are tended."""

    def __init__(self, top: Path = Path(), *, comes: bool = True) -> None:
        self.top = top
        self.agents = 1
        self._comes = comes
        self._there: list[int] = []

    def pids(self, part: str) -> list[int]:
        return self._there

    def tend(self) -> None:
        self._there = [7] if self._comes else []

    def galaxy(self, timeout_s: float) -> Any:
        raise ValueError("nobody expects this")


def test_a_process_that_is_being_started_again_is_waited_for() -> None:
    assert living("launcher", cast(Any, Town())) == [7]


def test_a_part_without_any_process_is_no_fault_that_was_survived() -> None:
    with pytest.raises(HostError, match="no process of launcher to strike"):
        living("launcher", cast(Any, Town(comes=False)), timeout_s=0.2)


def test_a_load_that_dies_of_what_nobody_expects_says_so(tmp_path: Path) -> None:
    watch = WitnessListener()
    load = Workload(cast(Any, Town(tmp_path)), watch, random.Random(1), lambda _: None)
    load.go()
    load._run()
    watch.close()
    (wrong,) = load.wrong
    assert "ValueError: nobody expects this" in wrong
