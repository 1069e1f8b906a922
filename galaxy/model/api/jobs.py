"""Operations on jobs and services."""

from __future__ import annotations

from typing import ClassVar

from galaxy.model.api.body import Body, Page, PagedBody
from galaxy.model.api.views import EndpointView, JobSummary, JobView
from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.stored.secret import Secret


class Accepted(Struct, frozen=True, kw_only=True):
    """An accepted change, which is not complete yet: the job's id, its revision, and warnings about it.

    ``effects`` says of an update what each changed field does to running pods.
    """

    job: str
    revision: int = 0
    warnings: tuple[str, ...] = ()
    effects: tuple[str, ...] = ()


class JobList(Page, frozen=True, kw_only=True):
    """Jobs by name, and the number of those that the caller may not see."""

    jobs: tuple[JobSummary, ...]
    hidden: int = 0


class EndpointList(Page, frozen=True, kw_only=True):
    """Endpoints of one service, by pod."""

    endpoints: tuple[EndpointView, ...]


class SubmitJob(Body[Accepted], frozen=True, kw_only=True):
    """Run a job. A live job of the same name is a conflict; a finished one is removed first.

    ``files`` maps each file that the spec's environments name to its content.
    """

    op: ClassVar[str] = "galaxy.job.submit"
    spec: JobSpec
    files: dict[str, Secret] = {}


class UpdateJob(Body[Accepted], frozen=True, kw_only=True):
    """Move a live job to a new spec. ``job`` is a name or an id; ``files`` as in ``SubmitJob``."""

    op: ClassVar[str] = "galaxy.job.update"
    job: str
    spec: JobSpec
    files: dict[str, Secret] = {}


class StopJob(Body[Accepted], frozen=True, kw_only=True):
    """Stop the programs of a job; its containers stay.

    ``job`` is a name, an id, or the beginning of an id.
    """

    op: ClassVar[str] = "galaxy.job.stop"
    job: str


class StartJob(Body[Accepted], frozen=True, kw_only=True):
    """Start the programs of a stopped job in its containers. ``job`` as in ``StopJob``."""

    op: ClassVar[str] = "galaxy.job.start"
    job: str


class RemoveJob(Body[Accepted], frozen=True, kw_only=True):
    """Remove a job and its containers. ``job`` as in ``StopJob``."""

    op: ClassVar[str] = "galaxy.job.remove"
    job: str


class RecoverPod(Body[Accepted], frozen=True, kw_only=True):
    """Deploy ``pod`` again or, when ``pod`` is empty, every failed pod of ``job``."""

    op: ClassVar[str] = "galaxy.job.recover"
    job: str = ""
    pod: str = ""


class ListJobs(PagedBody[JobList], frozen=True, kw_only=True):
    """List jobs; ``all`` includes finished jobs, and removed jobs that the history still has."""

    op: ClassVar[str] = "galaxy.job.list"
    all: bool = False


class ShowJob(Body[JobView], frozen=True, kw_only=True):
    """Show one job, or what the history has of it. ``job`` as in ``StopJob``.

    URLs in the spec have no credentials; ``submitted`` asks for the spec as it was submitted, which only
    the owner gets.
    """

    op: ClassVar[str] = "galaxy.job.show"
    job: str
    submitted: bool = False


class Discover(PagedBody[EndpointList], frozen=True, kw_only=True):
    """List the healthy endpoints of ``service``; ``all`` lists every endpoint with its state."""

    op: ClassVar[str] = "galaxy.service.discover"
    service: str
    all: bool = False
