"""Finds jobs and pods by what a person typed: a name, an id, or the beginning of an id."""

from __future__ import annotations

from collections.abc import Sequence

from galaxy.appmaster.logic.state import AppMasterState
from galaxy.errors import Conflict, NotFound
from galaxy.model.stored.job import DesiredState, HistoryRecord, JobRecord, PodRecord
from galaxy.suggest import did_you_mean

SHOWN_MAX = 5


def find_job(state: AppMasterState, text: str) -> JobRecord:
    """Return the job that ``text`` names, for a change: by id, name, or the beginning of an id.

    The beginning of an id must be longer than the job's name, so that a change of ``web`` never
    changes ``web-canary`` because ``web`` is gone.

    Raises:
        NotFound: no such job; suggests near misses. Conflict: ids of several jobs begin like that.
    """
    job = _live_job(state, text)
    if job is not None and (text == job.name or len(text) > len(job.name) + 1):
        return job
    hint = ""
    if text in state.history or state.history.where("name", text):
        hint = f"galaxy job show {text}: it has been removed"
    raise _not_found(state, "job", text, hint)


def find_any(state: AppMasterState, text: str) -> JobRecord | HistoryRecord:
    """Return the live job that ``text`` names, or else the last removed one in the history."""
    job = _live_job(state, text)
    if job is not None:
        return job
    past = _past(state, text)
    if past is None:
        raise _not_found(state, "job", text)
    return past


def find_pods(state: AppMasterState, text: str) -> tuple[PodRecord, ...]:
    """Return the pods of the job that ``text`` names, or the one pod that it names: ``JOB.INDEX``."""
    head, dot, index = text.rpartition(".")
    if not dot or not index.isdecimal():
        return _pods_of(state, find_any(state, text))
    found = find_any(state, head)
    for pod in _pods_of(state, found):
        if pod.index == int(index):
            return (pod,)
    names = [str(pod.index) for pod in _pods_of(state, found)]
    message = f'job "{found.job}" has no pod {int(index)}'
    there = f"its pods are {_some(names)}" if len(names) > 1 else f"its only pod is {names[0]}"
    raise NotFound(message, details=[there if names else "it has no pods"])


def _pods_of(state: AppMasterState, found: JobRecord | HistoryRecord) -> tuple[PodRecord, ...]:
    if isinstance(found, HistoryRecord):
        return found.pods
    return tuple(state.job_pods(found.job))


def _live_job(state: AppMasterState, text: str) -> JobRecord | None:
    """Return the live job that ``text`` names. Authority rules and operations both use it.

    A name or id in the history is never taken for the beginning of another job's id: when ``web`` is
    removed, ``web`` does not mean ``web-canary``, and neither does a removed ``web-canary-1``.
    """
    removed = text in state.history or bool(state.history.where("name", text))
    return _named(state, text) or (None if removed else _prefixed(state, text))


def _named(state: AppMasterState, text: str) -> JobRecord | None:
    if text in state.jobs:
        return state.jobs[text]
    named = [state.jobs[key] for key in state.jobs.where("name", text)]
    if named:
        staying = [job for job in named if job.desired is not DesiredState.REMOVE]
        return max(staying or named, key=lambda job: job.created_s)
    return None


def _prefixed(state: AppMasterState, text: str) -> JobRecord | None:
    matches = sorted(key for key in state.jobs if key.startswith(text)) if text else []
    if len(matches) > 1:
        message = f'"{text}" is the beginning of {len(matches)} jobs'
        raise Conflict(message, details=[_some(matches)], hint="write more of the id")
    return state.jobs[matches[0]] if matches else None


def _past(state: AppMasterState, text: str) -> HistoryRecord | None:
    keys: Sequence[str] = state.history.where("name", text)
    if text in state.history:
        keys = [text]
    elif not keys and text:
        keys = [key for key in state.history if key.startswith(text)]
    return max((state.history[key] for key in keys), key=lambda past: past.at_s, default=None)


def not_found_service(state: AppMasterState, service: str) -> NotFound:
    """Return the error for a service that no job declares."""
    return NotFound(
        f'there is no service "{service}"',
        details=did_you_mean(service, state.services),
        hint="galaxy job show JOB has a job's endpoints; job files name services under `services`",
    )


def _not_found(state: AppMasterState, what: str, text: str, hint: str = "") -> NotFound:
    names = [name for job in state.jobs.values() for name in (job.name, job.job)]
    return NotFound(
        f'there is no {what} "{text}"', details=did_you_mean(text, names), hint=hint or "galaxy job list"
    )


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_MAX
    return ", ".join(names[:SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")
