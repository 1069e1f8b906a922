"""Nothing accepted is lost: from its answer on, a job, update, stop or removal is in the store."""

from __future__ import annotations

from galaxy.model.stored.job import DesiredState, JobRecord
from galaxy.testing.simulation.checkers.violation import Violation
from galaxy.testing.simulation.simulated_user import SimulatedUser

_WISHES = {"run": DesiredState.RUN, "stop": DesiredState.STOP}


def accepted(user: SimulatedUser, jobs: dict[str, JobRecord]) -> None:
    """Compare what ``user`` was promised with the ``jobs`` that AppMaster has committed.

    Raises:
        Violation: something that was answered with yes is not there any more.
    """
    for want in user.wanted.values():
        job = jobs.get(want.job)
        if job is None or job.desired is DesiredState.REMOVE:
            if want.job == user.asking:
                continue  # It asks for just that.
            raise Violation(f"job {want.job} was accepted and is lost")
        if job.revision < want.revision:
            raise Violation(
                f"revision {want.revision} of {want.job} was accepted; the store has {job.revision}"
            )
        if want.job != user.asking and job.desired is not _WISHES[want.wish]:
            raise Violation(f"{want.job} was asked to {want.wish}; the store has {job.desired}")
    for key in user.removed:
        if key in jobs and jobs[key].desired is not DesiredState.REMOVE:
            raise Violation(f"the removal of {key} was accepted and is lost")
