"""Packages that are files of whoever runs a job: copied to where the agents of a local cluster look."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from galaxy.errors import GalaxyError, SpecError
from galaxy.model.spec import DataSpec, JobSpec, PackageSpec, TaskSpec

FOLDER: Final = "packages"
CHUNK_BYTES: Final = 1024 * 1024
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SUFFIX: Final = re.compile(r"(\.tar\.[a-z0-9]+|\.[a-z0-9]{1,8})?$")


def stage(spec: JobSpec, *, base: Path, cluster_dir: str) -> JobSpec:
    """Return ``spec`` with every package path turned into a URL that agents can fetch.

    Relative paths start at ``base``, the job file's folder. The copy is named after its content,
    so equal packages are one file, and its SHA-256 goes into the spec.

    Raises:
        SpecError: a package is not there, is no file, or is not what its sha256 says.
        GalaxyError: the cluster is on another host, or its folder cannot be written.
    """
    tasks = tuple(_task(task, base, cluster_dir) for task in spec.pod.tasks)
    if tasks == spec.pod.tasks:
        return spec
    pod = msgspec.structs.replace(spec.pod, tasks=tasks)
    return msgspec.structs.replace(spec, pod=pod)


def is_local(source: str) -> bool:
    """Tell whether ``source`` is a path rather than a URL."""
    return _SCHEME.match(source) is None


def _task(task: TaskSpec, base: Path, cluster_dir: str) -> TaskSpec:
    package = _package(task.package, base, cluster_dir) if task.package else None
    data = task.data
    if data is not None:
        packages = tuple(_package(one, base, cluster_dir) for one in data.packages)
        data = DataSpec(packages=packages, reload=data.reload)
    return msgspec.structs.replace(task, package=package, data=data)


def _package(package: PackageSpec, base: Path, cluster_dir: str) -> PackageSpec:
    if not is_local(package.source):
        return package
    path = base / Path(package.source).expanduser()
    if not cluster_dir:
        raise GalaxyError(
            f'cannot bring package "{package.source}" to the cluster',
            details=["the cluster is on other hosts, and the package is a file on this one"],
            hint="put it on a web server, and give its http:// URL as source",
        )
    digest, copy = _copy(path, package.source, Path(cluster_dir) / FOLDER)
    if package.sha256 not in ("", digest):
        copy.unlink(missing_ok=True)
        raise SpecError(
            f'package "{package.source}" is not what its sha256 says',
            details=[f"asked {package.sha256}", f"found {digest}"],
        )
    suffix = _SUFFIX.search(path.name.lower())
    target = copy.with_name(digest + (suffix[0] if suffix else ""))
    copy.replace(target)
    source = f"file://{quote(str(target.absolute()))}"
    return msgspec.structs.replace(package, source=source, sha256=digest)


def _copy(path: Path, shown: str, folder: Path) -> tuple[str, Path]:
    """Copy ``path`` to a scratch file in ``folder``; return its SHA-256 and the copy."""
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
