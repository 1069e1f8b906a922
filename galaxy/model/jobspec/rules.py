"""Rules of a job file that concern more than one field, and fields that are not supported yet.

The client checks the parsed file, and AppMaster checks every request, because a request need not come
from our client. A static port needs no privilege: 1025 to 65535 (Galaxy 3: 1025 to 9999).
Port names are unique within a pod, because each is passed to all its tasks as ``GALAXY_PORT_<NAME>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from galaxy.ids import NAME
from galaxy.model.base import encode
from galaxy.model.jobspec import task_rules
from galaxy.model.jobspec.diagnostics import Diagnostic, Path
from galaxy.model.jobspec.package_source import STORED, packages_of, scheme_of, stored_package
from galaxy.model.jobspec.spec import (
    JobSpec,
    JobType,
    Medium,
    PackageSpec,
    PodSpec,
    TaskSpec,
    VolumeSpec,
)
from galaxy.model.messages.worker import PACKET_BYTES_MAX
from galaxy.model.system_paths import SYSTEM_DIRS, is_at_or_below
from galaxy.units import format_bytes

STATIC_PORT_MIN: Final = 1025
PORTS_MAX: Final = 64
SERVICES_MAX: Final = 64
POOLS_MAX: Final = 32
ORDER_BYTES_MAX: Final = PACKET_BYTES_MAX - 8 * 1024
"""Largest encoded size of all tasks of a pod, as sent to an AppWorker, in bytes."""

REMOTE: Final = ("http", "https", "ftp", "s3", "hdfs")
"""URL schemes of packages that an agent fetches from elsewhere."""
SCHEMES: Final = (*REMOTE, "file", STORED)
"""URL schemes of packages."""

_PATH: Final = re.compile(r"(/[A-Za-z0-9._+@=,-]+)+")
_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_VALUE: Final = r"[A-Za-z0-9_./:+-]{1,63}"
_MARK: Final = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,62}}(={_VALUE}(\|{_VALUE})*)?")


def check(spec: JobSpec) -> list[str]:
    """Return the problems of a job that arrives at AppMaster, one line each.

    Beyond ``diagnostics``, it checks that agents can fetch every package.
    """
    found = [*diagnostics(spec), *_unreachable_packages(spec)]
    return [str(diagnostic) for diagnostic in found]


def diagnostics(spec: JobSpec) -> list[Diagnostic]:
    """Return a diagnostic for every violated rule."""
    return [
        *_not_supported(spec),
        *_deploy(spec),
        *_volumes(spec.pod),
        *_names(spec.pod),
        *_ports(spec.pod),
        *_services(spec.pod),
        *_packages(spec),
        *(
            diagnostic
            for path, task in _tasks(spec.pod)
            for diagnostic in task_rules.diagnostics(task, path, spec.type)
        ),
        *oversize(spec.pod),
    ]


def likely_mistakes(spec: JobSpec) -> list[str]:
    """Return what is allowed but probably a mistake, one line each."""
    lines = []
    if spec.deploy.replica > 1 and spec.deploy.step >= spec.deploy.replica and spec.type is not JobType.BATCH:
        lines.append(f"`deploy.step`: an update stops all {spec.deploy.replica} pods at once")
    for path, task in _tasks(spec.pod):
        where = Diagnostic(
            (*path, "health"), "a service without a health check is published as soon as it starts"
        )
        if task.services and task.health is None:
            lines.append(str(where))
        if task.package and not task.package.sha256 and scheme_of(task.package.source) in REMOTE:
            lines.append(str(Diagnostic((*path, "package"), "no sha256: the fetched file is not checked")))
    return lines


def _tasks(pod: PodSpec) -> Iterator[tuple[Path, TaskSpec]]:
    for index, task in enumerate(pod.tasks):
        yield ("pod", "tasks", index), task


def _not_supported(spec: JobSpec) -> Iterator[Diagnostic]:
    def not_yet(path: Path, what: str) -> Diagnostic:
        return Diagnostic(path, f"not supported yet: {what}", unsupported=True)

    if spec.type is JobType.BEST_EFFORT:
        yield not_yet(("type",), "best-effort jobs; use `batch`")
    for path, volume in _all_volumes(spec.pod):
        if volume.medium is Medium.SSD:
            yield not_yet((*path, "medium"), "volumes on ssd; use `disk` or `tmpfs`")
        if volume.exclusive:
            yield not_yet((*path, "exclusive"), "volumes with a device of their own")
    for path, task in _tasks(spec.pod):
        if task.network.mode == "private":
            yield not_yet((*path, "network", "mode"), "a network of a pod's own; use `host`")
        if task.network.recv_bps:
            yield not_yet((*path, "network", "recv_bps"), "limits of network traffic")
        if task.network.send_bps:
            yield not_yet((*path, "network", "send_bps"), "limits of network traffic")


def _deploy(spec: JobSpec) -> Iterator[Diagnostic]:
    pools = spec.deploy.pools
    if len(pools) > POOLS_MAX:
        yield Diagnostic(("deploy", "pools"), f"has {len(pools)} entries; {POOLS_MAX} are allowed")
    for index, pool in enumerate(pools[:POOLS_MAX]):
        if not _LABEL.fullmatch(pool):
            yield Diagnostic(("deploy", "pools", index), f'"{pool}" is not the name of a pool')
        elif pool in pools[:index]:
            yield Diagnostic(("deploy", "pools", index), f'pool "{pool}" is named twice')
    if spec.deploy.tag and not _LABEL.fullmatch(spec.deploy.tag):
        yield Diagnostic(("deploy", "tag"), f'"{spec.deploy.tag}" is not a tag')
    yield from _constraints(spec)


def _constraints(spec: JobSpec) -> Iterator[Diagnostic]:
    deploy = spec.deploy
    for field in ("require", "forbid", "prefer"):
        marks = getattr(deploy, field)
        for index, mark in enumerate(marks):
            path = ("deploy", field, index)
            if not _MARK.fullmatch(mark):
                yield Diagnostic(path, f'"{mark}" is neither a tag nor label=value, label=value|value')
            elif mark in marks[:index]:
                yield Diagnostic(path, f'"{mark}" is named twice')
            elif field != "require" and mark in deploy.require:
                yield Diagnostic(path, f'"{mark}" is required already', about=(("deploy", "require"),))
    if deploy.spread and not _LABEL.fullmatch(deploy.spread):
        yield Diagnostic(("deploy", "spread"), f'"{deploy.spread}" is not the name of a label')
    for field in ("affinity", "anti_affinity"):
        names = getattr(deploy, field)
        for index, name in enumerate(names):
            path = ("deploy", field, index)
            if not NAME.fullmatch(name):
                yield Diagnostic(path, f'"{name}" is not the name of a job')
            elif name == spec.name:
                own = "use `max_per_host: 1`" if field == "anti_affinity" else "leave it out"
                yield Diagnostic(path, f'"{name}" is this job itself; {own}')
            elif name in names[:index]:
                yield Diagnostic(path, f'"{name}" is named twice')
            elif field == "anti_affinity" and name in deploy.affinity:
                yield Diagnostic(path, f'"{name}" is in `affinity` too', about=(("deploy", "affinity"),))


def _all_volumes(pod: PodSpec) -> Iterator[tuple[Path, VolumeSpec]]:
    yield ("pod", "workspace"), pod.workspace
    for index, volume in enumerate(pod.volumes):
        yield ("pod", "volumes", index), volume


def _volumes(pod: PodSpec) -> Iterator[Diagnostic]:
    """Volumes must not overlap; only the workspace may contain other volumes."""
    seen: dict[str, Path] = {}
    if pod.workspace.readonly:
        yield Diagnostic(
            ("pod", "workspace", "readonly"), "programs start in the workspace; it must be writable"
        )
    for where, volume in _all_volumes(pod):
        path, text = (*where, "path"), volume.path
        if not text:
            continue
        system = next((top for top in SYSTEM_DIRS if is_at_or_below(text, top)), "")
        if not _PATH.fullmatch(text) or ".." in text.split("/") or "." in text.split("/"):
            yield Diagnostic(path, f'"{text}" is not a plain absolute path')
        elif system:
            yield Diagnostic(path, f'"{text}" is taken by the container\'s own {system}')
        elif text in seen:
            yield Diagnostic(path, f'"{text}" is taken by {_at(seen[text])}')
        else:
            for other, place in seen.items():
                workspace = place == ("pod", "workspace")
                if (is_at_or_below(text, other) and not workspace) or is_at_or_below(other, text):
                    yield Diagnostic(path, f'"{text}" and "{other}" of {_at(place)} overlap')
            seen[text] = where


def _names(pod: PodSpec) -> Iterator[Diagnostic]:
    first: dict[str, int] = {}
    for index, task in enumerate(pod.tasks):
        if task.name and first.setdefault(task.name, index) != index:
            yield Diagnostic(("pod", "tasks", index, "name"), f'"{task.name}" is the name of another task')


def _ports(pod: PodSpec) -> Iterator[Diagnostic]:
    names: dict[str, Path] = {}
    numbers: dict[int, Path] = {}
    for base, task in _tasks(pod):
        for index, port in enumerate(task.ports):
            here = (*base, "ports", index)
            variable = port.name.upper().replace("-", "_")
            if variable and names.setdefault(variable, here) != here:
                yield Diagnostic(
                    (*here, "name"),
                    f'"{port.name}" is taken by {_at(names[variable])}: both would be GALAXY_PORT_{variable}',
                )
            if port.port == 0:
                continue
            if port.port < STATIC_PORT_MIN:
                yield Diagnostic(
                    (*here, "port"), f"{port.port} is privileged; use `dynamic` or {STATIC_PORT_MIN}..65535"
                )
            elif numbers.setdefault(port.port, here) != here:
                yield Diagnostic((*here, "port"), f"{port.port} is taken by {_at(numbers[port.port])}")
    count = sum(len(task.ports) for task in pod.tasks)
    if count > PORTS_MAX:
        yield Diagnostic(("pod", "tasks"), f"have {count} ports together; {PORTS_MAX} are allowed")


def _services(pod: PodSpec) -> Iterator[Diagnostic]:
    names: dict[str, Path] = {}
    for base, task in _tasks(pod):
        for index, service in enumerate(task.services):
            here = (*base, "services", index)
            if service.name and names.setdefault(service.name, here) != here:
                yield Diagnostic((*here, "name"), f'"{service.name}" is taken by {_at(names[service.name])}')
            yield from task_rules.known_port(task, service.port, (*here, "port"), base)
    count = sum(len(task.services) for task in pod.tasks)
    if count > SERVICES_MAX:
        yield Diagnostic(("pod", "tasks"), f"have {count} services together; {SERVICES_MAX} are allowed")


def _packages(spec: JobSpec) -> Iterator[Diagnostic]:
    """Each package needs a directory of its own in a writable volume."""
    pod = spec.pod
    places: dict[str, tuple[Path, PackageSpec]] = {}
    writable = [volume.path for _, volume in _all_volumes(pod) if volume.path and not volume.readonly]
    for where, package in packages_of(spec):
        yield from _source(package, where)
        path = package.path or pod.workspace.path
        absolute = path if path.startswith("/") else f"{pod.workspace.path}/{path}"
        if ".." in path.split("/") or "//" in path or task_rules.CONTROL.search(path):
            yield Diagnostic((*where, "path"), f'"{path}" is not a plain path')
            continue
        absolute = absolute.rstrip("/")
        if not any(is_at_or_below(absolute, volume) for volume in writable):
            yield Diagnostic(
                (*where, "path"),
                f'"{path}" lies in no writable volume; these are {", ".join(writable) or "none"}',
                about=(("pod", "workspace"), ("pod", "volumes")),
            )
        taken = places.setdefault(absolute, (where, package))
        same = (taken[1].source, taken[1].version) == (package.source, package.version)
        if taken[0] != where and not same:
            yield Diagnostic((*where, "path"), f'"{absolute}" is where {_at(taken[0])} is unpacked')


def _source(package: PackageSpec, where: Path) -> Iterator[Diagnostic]:
    scheme = scheme_of(package.source)
    if scheme and scheme not in SCHEMES:
        yield Diagnostic(
            (*where, "source"), f'"{scheme}" is not known; packages come by {", ".join(SCHEMES)}'
        )
    elif scheme == STORED and not stored_package(package.source):
        text = f'"{package.source}" names no stored package: galaxy://ID/NAME, as `galaxy package list` shows'
        yield Diagnostic((*where, "source"), text)


def _unreachable_packages(spec: JobSpec) -> Iterator[Diagnostic]:
    for where, package in packages_of(spec):
        if not scheme_of(package.source):
            yield Diagnostic(
                (*where, "source"),
                f'"{package.source}" is a path on the client; agents fetch by {", ".join(SCHEMES)}',
            )


def oversize(pod: PodSpec) -> Iterator[Diagnostic]:
    """Yield diagnostics of programs' arguments, and of encoded tasks that exceed ``ORDER_BYTES_MAX``."""
    for path, task in _tasks(pod):
        yield from task_rules.oversize_arguments(task, path)
    size = len(encode(pod.tasks))
    if size > ORDER_BYTES_MAX:
        limit = format_bytes(ORDER_BYTES_MAX)
        yield Diagnostic(
            ("pod", "tasks"), f"are {format_bytes(size)} together when encoded; {limit} are allowed"
        )


def _at(path: Iterable[str | int]) -> str:
    return str(Diagnostic(tuple(path), "")).removesuffix(": ")
