"""Prepare a job for submission: read it, stage its packages, read its secret files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from galaxy.client.package_staging import Store, file_problems, stage
from galaxy.client.secret_files import read_files, secret_file_problems
from galaxy.client.source import job_file
from galaxy.model.jobspec import parsing
from galaxy.model.jobspec.diagnostics import Diagnostic
from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.stored.secret import Secret

Job = JobSpec | Mapping[str, Any] | str | os.PathLike[str]
"""A spec, a tree as in a job file, or the path of a job file (``-`` is standard input)."""


def read(job: Job, *, base: str | os.PathLike[str] = "") -> tuple[JobSpec, Path]:
    """Return ``job`` as a checked spec, and the folder to which its paths are relative.

    The folder is ``base``, or without it the job file's, or the working directory.

    Raises:
        SpecError: the job is invalid; the error lists every problem.
    """
    if isinstance(job, JobSpec):
        return job, Path(base)
    if isinstance(job, Mapping):
        return parsing.load(dict(job)), Path(base)
    return load(os.fspath(job), base=base)


def load(path: str, *, base: str | os.PathLike[str] = "") -> tuple[JobSpec, Path]:
    """Read the job file at ``path`` and check the files that it names; ``-`` is standard input.

    Return the spec, and the folder to which its paths are relative, as ``read`` does.

    Raises:
        SpecError: the job or a file that it names is wrong; the error lists every problem.
    """
    folder = Path(base) if os.fspath(base) or path == "-" else Path(path).parent

    def also(spec: JobSpec) -> list[Diagnostic]:
        return [*file_problems(spec, base=folder), *secret_file_problems(spec, base=folder)]

    return job_file.load(path, also=also), folder


def prepare(job: Job, *, base: str | os.PathLike[str], store: Store) -> tuple[JobSpec, dict[str, Secret]]:
    """Return ``job`` with its package files stored by ``store``, and the content of its secret files.

    Paths are relative to ``base``, or to the job file's folder when ``base`` is empty.

    Raises:
        SpecError: the job is invalid; the error lists every problem.
        GalaxyError: a package cannot be stored.
    """
    spec, folder = read(job, base=base)
    files = read_files(spec, base=folder)  # First, because storing packages may take long.
    return stage(spec, base=folder, store=store), files
