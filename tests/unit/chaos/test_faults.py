"""A fault without a process to hit is an error, and a failing workload is a violation."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, cast

import pytest

from galaxy.errors import HostError
from galaxy.testing.chaos.faults import await_processes
from galaxy.testing.chaos.witness_listener import WitnessListener
from galaxy.testing.chaos.workload import Workload
from tests.support.waiting import until


class RestartingCluster:
    """A cluster without a process until it is asked to restart them."""

    def __init__(self, *, restarts: bool = True) -> None:
        self._restarts = restarts
        self._pids: list[int] = []

    def pids(self, part: str) -> list[int]:
        return self._pids

    def restart_standbys(self) -> None:
        self._pids = [7] if self._restarts else []


class AcceptingCluster:
    """A cluster whose client accepts everything until ``error`` is set, and then raises it."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.agents = 1
        self.error: Exception | None = None

    def galaxy(self, timeout_s: float) -> Any:
        return self

    def submit(self, spec: Any, *, key: str) -> None:
        if self.error is not None:
            raise self.error

    update = stop = start = remove = submit

    def close(self) -> None:
        pass


def test_process_that_is_being_restarted_is_waited_for() -> None:
    assert await_processes("launcher", cast(Any, RestartingCluster())) == [7]


def test_part_without_a_process_is_an_error_not_a_survived_fault() -> None:
    with pytest.raises(HostError, match="no process of launcher to hit"):
        await_processes("launcher", cast(Any, RestartingCluster(restarts=False)), timeout_s=0.2)


def test_unexpected_error_of_the_workload_is_a_violation(tmp_path: Path) -> None:
    cluster = AcceptingCluster(tmp_path)
    listener = WitnessListener()
    workload = Workload(cast(Any, cluster), listener, random.Random(1), lambda _: None)
    workload.start()
    cluster.error = ValueError("unexpected")
    (violation,) = until("the workload fails", lambda: workload.violations)
    assert "ValueError: unexpected" in violation
    workload.close()
    listener.close()
