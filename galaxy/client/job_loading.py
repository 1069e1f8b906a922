"""Prepare a job for submission: read it, stage its packages, read its secret files."""

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
"""A spec, a tree as in a job file, or the path of a job file (``-`` is standard input)."""


def read(job: Job) -> tuple[JobSpec, Path]:
    """Return ``job`` as a checked spec, and the folder to which its paths are relative.

    Raises:
        SpecError: the job is invalid; the error lists every problem.
    """
    if isinstance(job, JobSpec):
        return job, Path()
    if isinstance(job, Mapping):
        return parsing.load(dict(job)), Path()
    path = os.fspath(job)
    return job_file.load(path), Path() if path == "-" else Path(path).parent


def prepare(job: Job, *, base: str | os.PathLike[str], cluster_dir: str) -> tuple[JobSpec, dict[str, Secret]]:
    """Return ``job`` with its packages staged, and the content of its secret files.

    Paths are relative to ``base``, or to the job file's folder when ``base`` is empty.

    Raises:
        SpecError: the job is invalid; the error lists every problem.
        GalaxyError: a package is a file, and the cluster is on other hosts.
    """
    spec, folder = read(job)
    folder = Path(base) if os.fspath(base) else folder
    return stage(spec, base=folder, cluster_dir=cluster_dir), read_files(spec, base=folder)


def remove_unneeded_packages(cluster_dir: str, used: Callable[[], Iterable[str]]) -> None:
    """Remove staged packages that no job uses, once they exceed the limit of ``unneeded``."""
    if not cluster_dir:
        return
    with contextlib.suppress(OSError, GalaxyError):  # The next submission tries again.
        for path in unneeded(cluster_dir, used, now_s=time.time()):
            path.unlink(missing_ok=True)
