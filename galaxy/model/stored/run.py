"""Runs: one execution of a batch job each."""

from __future__ import annotations

from enum import StrEnum

from galaxy.model.base import Struct


class RunState(StrEnum):
    """``active`` until the run ends: its pods run, wait, or are stopped for now.

    ``finished``: every pod ended with exit code 0. ``failed``: every pod has ended, at least one
    failed for good. ``removed``: the job was removed before.
    """

    ACTIVE = "active"
    FINISHED = "finished"
    FAILED = "failed"
    REMOVED = "removed"

    @property
    def is_over(self) -> bool:
        """Whether the run has ended; only a recovery makes it active again."""
        return self is not RunState.ACTIVE


class RunRecord(Struct, frozen=True, kw_only=True):
    """One execution of a batch job: of all its indexes, with its outcome.

    ``run`` counts the job's runs from 1. ``attempts`` is 1, and one more for each time that failed
    pods of the run were recovered. Times are Unix seconds.
    """

    job: str
    run: int
    started_s: float
    state: RunState = RunState.ACTIVE
    ended_s: float | None = None
    exit_code: int | None = None
    attempts: int = 1


def run_key(job: str, run: int) -> str:
    """Return the key of a run in the table ``runs``."""
    return f"{job}/{run}"
