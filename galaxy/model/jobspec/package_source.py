"""Sources of packages: paths, URLs, and ``galaxy://ID/NAME`` for a package that the cluster stores."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

from galaxy.model.jobspec.diagnostics import Path
from galaxy.model.jobspec.spec import JobSpec, PackageSpec

STORED: Final = "galaxy"
"""URL scheme of packages that the cluster stores."""
NAME_MAX: Final = 128
"""Longest file name of a stored package, in characters."""
_STORED: Final = re.compile(r"galaxy://([0-9a-f]{32})(/[^/]*)?", re.IGNORECASE)
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def scheme_of(source: str) -> str:
    """Return the scheme of a URL in lower case, or "" for a path."""
    match = _SCHEME.match(source)
    return match[1].lower() if match else ""


def stored_source(package: str, name: str) -> str:
    """Return the source of stored package ``package``; ``name`` is for people only."""
    return f"{STORED}://{package}/{quote(name, safe='')}"


def stored_package(source: str) -> str:
    """Return the id of the stored package that ``source`` names, or "" when it names none."""
    match = _STORED.fullmatch(source)
    return match[1].lower() if match else ""


def packages_of(spec: JobSpec) -> Iterator[tuple[Path, PackageSpec]]:
    """Yield the place in the job file and the spec of each package of a job."""
    for index, task in enumerate(spec.pod.tasks):
        base: Path = ("pod", "tasks", index)
        if task.package is not None:
            yield (*base, "package"), task.package
        for number, package in enumerate(task.data.packages if task.data else ()):
            yield (*base, "data", "packages", number), package


def stored_packages_of(spec: JobSpec) -> tuple[str, ...]:
    """Return the id of each stored package of a job, once."""
    found = (stored_package(package.source) for _, package in packages_of(spec))
    return tuple(dict.fromkeys(key for key in found if key))
