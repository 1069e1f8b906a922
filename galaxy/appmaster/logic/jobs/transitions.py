"""The lifecycles of pods and jobs as transition tables.

Events are conclusions of AppMaster, not messages: a report becomes an event only if its incarnation and
generation are the current ones. A pair that is not in the table changes nothing.
"""

from __future__ import annotations

from typing import Final

from galaxy.model.stored.job import JobState, PodPhase
from galaxy.statemachine.transitions import TransitionTable


class PodEvent:
    """Something that happened to a pod."""


class RunOrdered(PodEvent):
    """An order was sent that deploys and runs its programs, perhaps again."""


class StopOrdered(PodEvent):
    """An order was sent that stops its programs."""


class DrainBegan(PodEvent):
    """Its endpoints are withdrawn, because its programs are about to be stopped."""


class DrainCancelled(PodEvent):
    """Its programs do not have to be stopped any more."""


class ContainerLost(PodEvent):
    """Its container or its host is gone; another incarnation of the slot follows."""


class ObservedDeploying(PodEvent):
    """Its programs are being deployed or started."""


class ObservedUp(PodEvent):
    """Its programs are up."""


class ObservedDown(PodEvent):
    """One of its programs ended and waits for its restart."""


class ObservedStopped(PodEvent):
    """Its programs are stopped as ordered."""


class ObservedFinished(PodEvent):
    """All of its programs ended with exit code 0, for good."""


class ObservedFailed(PodEvent):
    """One of its programs failed for good."""


_P = PodPhase

POD_TRANSITIONS: Final = TransitionTable(
    {
        (_P.PENDING, RunOrdered): _P.DEPLOYING,
        (_P.PENDING, StopOrdered): _P.STOPPING,
        (_P.DEPLOYING, ObservedUp): _P.RUNNING,
        (_P.DEPLOYING, ObservedDown): _P.BACKOFF,
        (_P.DEPLOYING, ObservedFinished): _P.FINISHED,
        (_P.DEPLOYING, ObservedFailed): _P.FAILED,
        (_P.DEPLOYING, RunOrdered): _P.DEPLOYING,
        (_P.DEPLOYING, StopOrdered): _P.STOPPING,
        (_P.DEPLOYING, ContainerLost): _P.PENDING,
        (_P.RUNNING, ObservedDeploying): _P.DEPLOYING,
        (_P.RUNNING, ObservedDown): _P.BACKOFF,
        (_P.RUNNING, ObservedFinished): _P.FINISHED,
        (_P.RUNNING, ObservedFailed): _P.FAILED,
        (_P.RUNNING, DrainBegan): _P.DRAINING,
        (_P.RUNNING, RunOrdered): _P.DEPLOYING,
        (_P.RUNNING, StopOrdered): _P.STOPPING,
        (_P.RUNNING, ContainerLost): _P.PENDING,
        (_P.BACKOFF, ObservedDeploying): _P.DEPLOYING,
        (_P.BACKOFF, ObservedUp): _P.RUNNING,
        (_P.BACKOFF, ObservedFinished): _P.FINISHED,
        (_P.BACKOFF, ObservedFailed): _P.FAILED,
        (_P.BACKOFF, RunOrdered): _P.DEPLOYING,
        (_P.BACKOFF, StopOrdered): _P.STOPPING,
        (_P.BACKOFF, ContainerLost): _P.PENDING,
        (_P.DRAINING, DrainCancelled): _P.RUNNING,
        (_P.DRAINING, ObservedDeploying): _P.DEPLOYING,
        (_P.DRAINING, ObservedDown): _P.BACKOFF,
        (_P.DRAINING, ObservedFinished): _P.FINISHED,
        (_P.DRAINING, ObservedFailed): _P.FAILED,
        (_P.DRAINING, RunOrdered): _P.DEPLOYING,
        (_P.DRAINING, StopOrdered): _P.STOPPING,
        (_P.DRAINING, ContainerLost): _P.PENDING,
        (_P.STOPPING, ObservedStopped): _P.STOPPED,
        (_P.STOPPING, ObservedFinished): _P.FINISHED,
        (_P.STOPPING, ObservedFailed): _P.STOPPED,
        (_P.STOPPING, RunOrdered): _P.DEPLOYING,
        (_P.STOPPING, StopOrdered): _P.STOPPING,
        (_P.STOPPING, ContainerLost): _P.PENDING,
        (_P.STOPPED, RunOrdered): _P.DEPLOYING,
        (_P.STOPPED, StopOrdered): _P.STOPPING,
        (_P.STOPPED, ContainerLost): _P.PENDING,
        (_P.FAILED, ObservedUp): _P.RUNNING,
        (_P.FAILED, ObservedDeploying): _P.DEPLOYING,
        (_P.FAILED, RunOrdered): _P.DEPLOYING,
        (_P.FAILED, StopOrdered): _P.STOPPING,
        (_P.FAILED, ContainerLost): _P.PENDING,
        (_P.FINISHED, RunOrdered): _P.DEPLOYING,
    }
)
"""A finished pod leaves that phase only through an order, which only a new request of its owner causes."""


class JobEvent:
    """Something that happened to a job."""


class AllUp(JobEvent):
    """The programs of every pod are up on the job's revision, and no rollout is under way."""


class SomeFailed(JobEvent):
    """Pods failed for good, or restart again and again; all the others are up."""


class UpdateRequested(JobEvent):
    """There is a new revision."""


class RolloutStalled(JobEvent):
    """The new revision fails: no further pod is updated."""


class RolloutResumed(JobEvent):
    """The cause of the stall is gone."""


class StopRequested(JobEvent):
    """Its owner asked to stop its programs and keep its containers."""


class AllStopped(JobEvent):
    """No program of it runs any more."""


class StartRequested(JobEvent):
    """Its owner asked to run it again."""


class AllFinished(JobEvent):
    """Every pod is finished."""


class AllEndedSomeFailed(JobEvent):
    """Every pod has ended for good, and at least one failed."""


class RecoverRequested(JobEvent):
    """Its owner asked to deploy failed pods again."""


class RemoveRequested(JobEvent):
    """Its owner asked to remove it."""


_J = JobState

JOB_TRANSITIONS: Final = TransitionTable(
    {
        (_J.PENDING, AllUp): _J.RUNNING,
        (_J.PENDING, SomeFailed): _J.DEGRADED,
        (_J.PENDING, UpdateRequested): _J.UPDATING,
        (_J.PENDING, StopRequested): _J.STOPPING,
        (_J.PENDING, AllFinished): _J.FINISHED,
        (_J.PENDING, AllEndedSomeFailed): _J.FAILED,
        (_J.PENDING, RemoveRequested): _J.REMOVING,
        (_J.RUNNING, UpdateRequested): _J.UPDATING,
        (_J.RUNNING, StopRequested): _J.STOPPING,
        (_J.RUNNING, AllFinished): _J.FINISHED,
        (_J.RUNNING, AllEndedSomeFailed): _J.FAILED,
        (_J.RUNNING, RemoveRequested): _J.REMOVING,
        (_J.RUNNING, SomeFailed): _J.DEGRADED,
        (_J.DEGRADED, AllUp): _J.RUNNING,
        (_J.DEGRADED, RecoverRequested): _J.PENDING,
        (_J.DEGRADED, UpdateRequested): _J.UPDATING,
        (_J.DEGRADED, StopRequested): _J.STOPPING,
        (_J.DEGRADED, AllFinished): _J.FINISHED,
        (_J.DEGRADED, AllEndedSomeFailed): _J.FAILED,
        (_J.DEGRADED, RemoveRequested): _J.REMOVING,
        (_J.UPDATING, AllUp): _J.RUNNING,
        (_J.UPDATING, UpdateRequested): _J.UPDATING,
        (_J.UPDATING, RolloutStalled): _J.STALLED,
        (_J.UPDATING, StopRequested): _J.STOPPING,
        (_J.UPDATING, AllFinished): _J.FINISHED,
        (_J.UPDATING, AllEndedSomeFailed): _J.FAILED,
        (_J.UPDATING, RemoveRequested): _J.REMOVING,
        (_J.STALLED, AllUp): _J.RUNNING,
        (_J.STALLED, UpdateRequested): _J.UPDATING,
        (_J.STALLED, RolloutResumed): _J.UPDATING,
        (_J.STALLED, StopRequested): _J.STOPPING,
        (_J.STALLED, AllFinished): _J.FINISHED,
        (_J.STALLED, AllEndedSomeFailed): _J.FAILED,
        (_J.STALLED, RemoveRequested): _J.REMOVING,
        (_J.STOPPING, AllStopped): _J.STOPPED,
        (_J.STOPPING, StartRequested): _J.PENDING,
        (_J.STOPPING, AllFinished): _J.FINISHED,
        (_J.STOPPING, AllEndedSomeFailed): _J.FAILED,
        (_J.STOPPING, RemoveRequested): _J.REMOVING,
        (_J.STOPPED, StartRequested): _J.PENDING,
        (_J.STOPPED, AllFinished): _J.FINISHED,
        (_J.STOPPED, AllEndedSomeFailed): _J.FAILED,
        (_J.STOPPED, RemoveRequested): _J.REMOVING,
        (_J.FINISHED, RemoveRequested): _J.REMOVING,
        (_J.FAILED, RecoverRequested): _J.PENDING,
        (_J.FAILED, RemoveRequested): _J.REMOVING,
    }
)
"""``removing`` is final: a job in this state is dropped in the end."""
