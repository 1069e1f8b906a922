"""Nothing accepted is lost: once answered, a job, update, stop or removal stays in the store."""

from __future__ import annotations

from galaxy.model.stored.job import DesiredState, JobRecord
from galaxy.testing.simulation.checkers.violation import Violation
from galaxy.testing.simulation.simulated_user import SimulatedUser

_DESIRED = {"run": DesiredState.RUN, "stop": DesiredState.STOP}


def accepted(user: SimulatedUser, jobs: dict[str, JobRecord]) -> None:
    """Compare what was accepted for ``user`` with the ``jobs`` that AppMaster has committed.

    Raises:
        Violation: something that was accepted is missing.
    """
    for expected in user.expected.values():
        job = jobs.get(expected.job)
        if job is None or job.desired is DesiredState.REMOVE:
            if expected.job == user.pending_job:
                continue  # The pending request asks for its removal.
            raise Violation(f"job {expected.job} was accepted and is lost")
        if job.revision < expected.revision:
            raise Violation(
                f"revision {expected.revision} of {expected.job} was accepted; the store has {job.revision}"
            )
        if expected.job != user.pending_job and job.desired is not _DESIRED[expected.desired]:
            raise Violation(f"{expected.job} was asked to {expected.desired}; the store has {job.desired}")
    for key in user.removed:
        if key in jobs and jobs[key].desired is not DesiredState.REMOVE:
            raise Violation(f"the removal of {key} was accepted and is lost")
