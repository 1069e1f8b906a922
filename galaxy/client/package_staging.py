"""Stage package files: what a job file names by path is stored in the cluster, for every host to fetch."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from galaxy.client.paths import resolve_path
from galaxy.errors import SpecError
from galaxy.model.api.views import PackageView
from galaxy.model.base import Struct
from galaxy.model.jobspec.diagnostics import Diagnostic
from galaxy.model.jobspec.package_source import NAME_MAX, packages_of, scheme_of
from galaxy.model.jobspec.spec import DataSpec, JobSpec, PackageSpec, TaskSpec
from galaxy.units import GIB, MIB, format_bytes

FILE_BYTES_MAX: Final = 4 * GIB
"""No agent takes a larger package, and the cluster refuses one that is much smaller already."""
_BLOCK_BYTES: Final = MIB
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f/\ud800-\udfff]")


class PackageFile(Struct, frozen=True, kw_only=True):
    """A package file that was read once: its absolute ``path``, its digest and its size."""

    path: str
    sha256: str
    size_bytes: int

    @property
    def name(self) -> str:
        """The name that the cluster shows, as short as it must be."""
        return _CONTROL.sub("_", os.path.basename(self.path))[-NAME_MAX:]


Store = Callable[[PackageFile], PackageView]
"""Stores a package in the cluster, unless it is there already."""


def stage(spec: JobSpec, *, base: Path, store: Store) -> JobSpec:
    """Return ``spec`` with every package path replaced by the source of a stored package, and its SHA-256.

    Relative paths start at ``base``, the job file's folder. Every file is read before the first is stored.

    Raises:
        SpecError: packages do not exist, are folders, or differ from their sha256; all are named.
        GalaxyError: the cluster cannot store one.
    """
    problems = file_problems(spec, base=base)
    files: dict[PackageSpec, PackageFile] = {}
    for where, package in packages_of(spec) if not problems else ():
        if scheme_of(package.source) == "":
            files[package] = found = read_package(resolve_path(base, package.source))
            if package.sha256 not in ("", found.sha256):
                text = f'package "{package.source}" has checksum {found.sha256}'
                problems.append(Diagnostic((*where, "sha256"), text))
    if problems:
        raise SpecError(
            f'cannot use the packages of job "{spec.name}"', details=[str(problem) for problem in problems]
        )
    stored = {package: _stored(package, store(file)) for package, file in files.items()}
    if not stored:
        return spec
    tasks = tuple(_with_packages(task, stored) for task in spec.pod.tasks)
    return msgspec.structs.replace(spec, pod=msgspec.structs.replace(spec.pod, tasks=tasks))


def file_problems(spec: JobSpec, *, base: Path) -> list[Diagnostic]:
    """Return a diagnostic for each package path, relative to ``base``, that is not a readable file."""
    return [
        Diagnostic((*where, "source"), text)
        for where, package in packages_of(spec)
        if scheme_of(package.source) == "" and (text := _path_problem(package.source, base))
    ]


def read_package(path: Path) -> PackageFile:
    """Return the digest and size of a package file.

    Raises:
        SpecError: it cannot be read, or cannot be a package.
    """
    if problem := _problem(str(path), path):
        raise SpecError(problem)
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
    except (OSError, ValueError) as error:
        raise SpecError(_unreadable(str(path), path, error)) from error
    return PackageFile(path=str(path.absolute()), sha256=digest.hexdigest(), size_bytes=size)


def _path_problem(source: str, base: Path) -> str:
    try:
        return _problem(source, resolve_path(base, source))
    except SpecError as error:
        return error.message


def _problem(shown: str, path: Path) -> str:
    """Return what is wrong with a package file, or "" when it is one that can be read."""
    try:
        if path.is_dir():
            archive = f"{path.name or 'package'}.tar.gz"
            return f'package "{shown}" is a folder; make an archive: tar -czf {archive} -C {path} .'
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            facts = os.fstat(file.fileno())
    except (OSError, ValueError) as error:
        return _unreadable(shown, path, error)
    if not stat.S_ISREG(facts.st_mode):
        return f'package "{shown}" is not a regular file'
    if not 0 < facts.st_size <= FILE_BYTES_MAX:
        limit, size = format_bytes(FILE_BYTES_MAX), format_bytes(facts.st_size)
        return f'package "{shown}" has {size}; a package is not empty, and has {limit} at most'
    return ""


def _unreadable(shown: str, path: Path, error: Exception) -> str:
    why = getattr(error, "strerror", None) or str(error)
    return f'cannot read package "{shown}": {why}; looked at {path.absolute()}'


def _stored(package: PackageSpec, view: PackageView) -> PackageSpec:
    return msgspec.structs.replace(package, source=view.source, sha256=view.sha256)


def _with_packages(task: TaskSpec, stored: dict[PackageSpec, PackageSpec]) -> TaskSpec:
    package = stored.get(task.package, task.package) if task.package else None
    data = task.data
    if data is not None:
        packages = tuple(stored.get(each, each) for each in data.packages)
        data = DataSpec(packages=packages, reload=data.reload)
    return msgspec.structs.replace(task, package=package, data=data)
