"""Stage package files: copy a user's files into the folder that the agents of a local cluster read."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

import msgspec

from galaxy.client.paths import resolve_path
from galaxy.errors import GalaxyError, SpecError
from galaxy.model.jobspec.spec import DataSpec, JobSpec, PackageSpec, TaskSpec
from galaxy.units import GIB

FOLDER: Final = "packages"
CHUNK_BYTES: Final = 1024 * 1024
STAGED_BYTES_MAX: Final = 10 * GIB
"""Limit on the staged packages of a cluster's folder; packages that jobs use are kept beyond it."""
RECENT_S: Final = 86400.0
"""A package that was staged more recently is kept: a revision being replaced may still use it."""
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SUFFIX: Final = re.compile(r"(\.tar\.[a-z0-9]+|\.[a-z0-9]{1,8})?$")


def stage(spec: JobSpec, *, base: Path, cluster_dir: str) -> JobSpec:
    """Return ``spec`` with every package path replaced by a URL that agents can fetch.

    Relative paths start at ``base``, the job file's folder. The copy is named after its SHA-256,
    which also goes into the spec, so equal packages share one file.

    Raises:
        SpecError: a package does not exist, is a folder, or differs from its sha256.
        GalaxyError: the cluster is on another host, or its folder cannot be written.
    """
    tasks = tuple(_stage_task(task, base, cluster_dir) for task in spec.pod.tasks)
    if tasks == spec.pod.tasks:
        return spec
    pod = msgspec.structs.replace(spec.pod, tasks=tasks)
    return msgspec.structs.replace(spec, pod=pod)


def sources_of(spec: JobSpec) -> Iterator[str]:
    """Yield the source of each package of a job."""
    for task in spec.pod.tasks:
        if task.package is not None:
            yield task.package.source
        if task.data is not None:
            yield from (package.source for package in task.data.packages)


def unneeded(
    cluster_dir: str, used: Callable[[], Iterable[str]], *, now_s: float, bytes_max: int = STAGED_BYTES_MAX
) -> list[Path]:
    """Return the staged files to remove, oldest first, so that the others fit into ``bytes_max``.

    ``used`` returns the sources of all jobs, and is called only when the limit is exceeded. Files
    in use, and files staged within the last day, are never removed. ``now_s`` is Unix time.
    """
    files: list[tuple[float, int, Path]] = []
    with contextlib.suppress(FileNotFoundError), os.scandir(Path(cluster_dir) / FOLDER) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            files.append((status.st_mtime, status.st_size, Path(entry.path)))
    excess = sum(size for _, size, _ in files) - bytes_max
    if excess <= 0:
        return []
    in_use = {os.path.basename(unquote(source)) for source in used()}
    removable = []
    for changed_s, size, path in sorted(files):
        if excess <= 0 or now_s - changed_s < RECENT_S:
            break
        if path.name not in in_use:
            removable.append(path)
            excess -= size
    return removable


def is_local(source: str) -> bool:
    """Return whether ``source`` is a path rather than a URL."""
    return _SCHEME.match(source) is None


def _stage_task(task: TaskSpec, base: Path, cluster_dir: str) -> TaskSpec:
    package = _stage_package(task.package, base, cluster_dir) if task.package else None
    data = task.data
    if data is not None:
        packages = tuple(_stage_package(one, base, cluster_dir) for one in data.packages)
        data = DataSpec(packages=packages, reload=data.reload)
    return msgspec.structs.replace(task, package=package, data=data)


def _stage_package(package: PackageSpec, base: Path, cluster_dir: str) -> PackageSpec:
    if not is_local(package.source):
        return package
    path = resolve_path(base, package.source)
    if not cluster_dir:
        raise GalaxyError(
            f'cannot bring package "{package.source}" to the cluster',
            details=["the cluster is on other hosts, and the package is a file on this one"],
            hint="put it on a web server, and give its http:// URL as source",
        )
    digest, copy = _copy_to_scratch(path, package.source, Path(cluster_dir) / FOLDER)
    if package.sha256 not in ("", digest):
        copy.unlink(missing_ok=True)
        raise SpecError(
            f'package "{package.source}" does not match its sha256',
            details=[f"expected {package.sha256}", f"found {digest}"],
        )
    suffix = _SUFFIX.search(path.name.lower())
    target = copy.with_name(digest + (suffix[0] if suffix else ""))
    copy.replace(target)
    source = f"file://{quote(str(target.absolute()))}"
    return msgspec.structs.replace(package, source=source, sha256=digest)


def _copy_to_scratch(path: Path, shown: str, folder: Path) -> tuple[str, Path]:
    """Copy ``path`` to a scratch file in ``folder``; return its SHA-256 and the path of the copy."""
    scratch = folder / f".{secrets.token_hex(8)}"
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            hint = f"tar -czf {path.name or 'package'}.tar.gz -C {path} ."
            raise SpecError(f'package "{shown}" is a folder, not an archive', hint=hint)
        source = path.open("rb")
    except OSError as error:
        raise SpecError(
            f'cannot read package "{shown}": {error.strerror}', details=[f"looked at {path.absolute()}"]
        ) from error
    try:
        with source:
            folder.mkdir(mode=0o755, exist_ok=True)
            with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as target:
                while chunk := source.read(CHUNK_BYTES):
                    digest.update(chunk)
                    target.write(chunk)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise GalaxyError(
            f'cannot bring package "{shown}" to the cluster: {error.strerror}',
            details=[f"writing to {folder}"],
        ) from error
    return digest.hexdigest(), scratch
