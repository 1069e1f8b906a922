"""A job on its way to the cluster: read from wherever it is, packages staged, secrets gathered."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from galaxy.client.package_staging import stage, unneeded
from galaxy.client.secret_files import read_files
from galaxy.client.source import job_file
from galaxy.errors import GalaxyError
from galaxy.model.jobspec import parsing
from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.stored.secret import Secret

Job = JobSpec | Mapping[str, Any] | str | os.PathLike[str]
"""A job: a spec, a tree as in a job file, or the path of a job file (``-`` is standard input)."""


def read(job: Job) -> tuple[JobSpec, Path]:
    """Return ``job`` as a checked spec, and the folder that its paths start at.

    Raises:
        SpecError: with every problem of it.
    """
    if isinstance(job, JobSpec):
        return job, Path()
    if isinstance(job, Mapping):
        return parsing.load(dict(job)), Path()
    path = os.fspath(job)
    return job_file.load(path), Path() if path == "-" else Path(path).parent


def ready(job: Job, *, base: str | os.PathLike[str], cluster_dir: str) -> tuple[JobSpec, dict[str, Secret]]:
    """Return ``job`` as it is sent: its packages staged, and the secrets that are files.

    Paths start at ``base``, or (empty) at the job file's folder.

    Raises:
        SpecError: with every problem of it. GalaxyError: the cluster is on another host.
    """
    spec, folder = read(job)
    folder = Path(base) if os.fspath(base) else folder
    return stage(spec, base=folder, cluster_dir=cluster_dir), read_files(spec, base=folder)


def tidy(cluster_dir: str, used: Callable[[], Iterable[str]]) -> None:
    """Remove packages of earlier jobs and revisions once there are too many of them; see ``unneeded``."""
    if not cluster_dir:
        return
    with contextlib.suppress(OSError, GalaxyError):  # The next job tidies instead.
        for path in unneeded(cluster_dir, used, now_s=time.time()):
            path.unlink(missing_ok=True)
