"""Runs of batch jobs: one record for each execution of all pods of a job.

A run starts when its job is submitted and ends when every pod has ended, or when the job is removed.
Recovering failed pods makes the same run active again, as another attempt.
"""

from __future__ import annotations

import msgspec

from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.stored.job import JobRecord
from galaxy.model.stored.run import RunRecord, RunState, run_key


def start(state: AppMasterState, job: JobRecord) -> JobRecord:
    """Start the next run of a batch job and return the job with its number; other jobs are unchanged."""
    if not job.type.is_batch:
        return job
    number = job.run + 1
    state.runs.put(run_key(job.job, number), RunRecord(job=job.job, run=number, started_s=state.now_s))
    for old in runs_of(state, job.job)[: -state.config.runs_max]:
        state.runs.drop(run_key(old.job, old.run))
    return state.put_job(msgspec.structs.replace(job, run=number))


def end(state: AppMasterState, job: JobRecord, outcome: RunState, exit_code: int | None = None) -> None:
    """End the active run of ``job``, if it has one."""
    run = state.runs.get(run_key(job.job, job.run))
    if run is not None and not run.state.is_over:
        ended = msgspec.structs.replace(run, state=outcome, ended_s=state.now_s, exit_code=exit_code)
        state.runs.put(run_key(run.job, run.run), ended)


def retry(state: AppMasterState, job: JobRecord) -> None:
    """Make the latest run of ``job`` active again, as another attempt."""
    run = state.runs.get(run_key(job.job, job.run))
    if run is not None:
        active = msgspec.structs.replace(
            run, state=RunState.ACTIVE, ended_s=None, exit_code=None, attempts=run.attempts + 1
        )
        state.runs.put(run_key(run.job, run.run), active)


def runs_of(state: AppMasterState, job: str) -> tuple[RunRecord, ...]:
    """Return the runs of ``job`` that are kept, oldest first."""
    runs = (state.runs[key] for key in state.runs.where("job", job))
    return tuple(sorted(runs, key=lambda run: run.run))


def drop(state: AppMasterState, job: str) -> None:
    """Drop every run of a removed job."""
    for key in state.runs.where("job", job):
        state.runs.drop(key)
