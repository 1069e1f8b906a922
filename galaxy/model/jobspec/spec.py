"""The job file as structs, with units converted.

Sizes are bytes, CPU is millicores, times are seconds. ``galaxy.model.jobspec.parsing`` converts
what a person wrote (``64M``, ``0.25``, ``30s``, shorthands) and reports every problem at once.
``galaxy.model.jobspec.rules`` has the rules that concern more than one field.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from galaxy.model.base import Struct
from galaxy.model.stored.secret import EnvFrom

Words: TypeAlias = tuple[str, ...]
Seconds = Annotated[float, Meta(ge=0, le=86400)]


class JobType(StrEnum):
    """The purpose of a job, most important first."""

    MONITOR = "monitor"
    SERVICE = "service"
    BATCH = "batch"
    BEST_EFFORT = "best-effort"

    @property
    def priority(self) -> int:
        """0, 100, 200 or 300; lower is scheduled first (Galaxy 3)."""
        return 100 * list(JobType).index(self)

    @property
    def is_batch(self) -> bool:
        """Whether pods of this type end for good when their programs do."""
        return self is JobType.BATCH


class Medium(StrEnum):
    """The storage medium of a volume."""

    DISK = "disk"
    SSD = "ssd"
    TMPFS = "tmpfs"


class VolumeSpec(Struct, frozen=True, kw_only=True):
    """A directory of an enforced size. It starts empty and is deleted with its container."""

    path: Annotated[str, Meta(pattern=r"^/", max_length=256, description="path inside the pod")]
    size: Annotated[int, Meta(ge=1024 * 1024, le=1 << 50, description="bytes")]
    medium: Medium = Medium.DISK
    readonly: bool = False
    exclusive: bool = False


class CpuSpec(Struct, frozen=True, kw_only=True):
    """CPU of one task: a hard quota, or a share that may be exceeded when the host is idle."""

    millicores: Annotated[int, Meta(ge=10, le=1_000_000)]
    excess: bool = False


class MemorySpec(Struct, frozen=True, kw_only=True):
    """Memory of one task: a hard limit, or a soft one that may be exceeded (``excess``)."""

    size: Annotated[int, Meta(ge=4 * 1024 * 1024, le=1 << 50, description="bytes")]
    excess: bool = False


class NetworkSpec(Struct, frozen=True, kw_only=True):
    """A pod's network; ``host`` shares the host's network and allocates ports."""

    mode: Annotated[str, Meta(pattern="^(host|private)$")] = "host"
    recv_bps: Annotated[int, Meta(ge=0, le=1 << 50, description="bits per second; 0 means no limit")] = 0
    send_bps: Annotated[int, Meta(ge=0, le=1 << 50, description="bits per second; 0 means no limit")] = 0


class BlkioSpec(Struct, frozen=True, kw_only=True):
    """Weight of a task's disk traffic relative to other tasks."""

    weight: Annotated[int, Meta(ge=1, le=999)] = 500


class PortSpec(Struct, frozen=True, kw_only=True):
    """A named port. Number 0 lets the agent choose (``port: dynamic`` in the file)."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")]
    port: Annotated[int, Meta(ge=0, le=65535, description="0 is dynamic")] = 0


class PackageSpec(Struct, frozen=True, kw_only=True):
    """An archive (tar, tar.gz, zip) that is unpacked into the pod before the program starts."""

    source: Annotated[str, Meta(min_length=1, max_length=2048, description="a URL or a path")]
    version: Annotated[str, Meta(min_length=1, max_length=128)]
    sha256: Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")] = ""
    path: Annotated[str, Meta(max_length=256, description="where to unpack; empty: workspace")] = ""


class DataSpec(Struct, frozen=True, kw_only=True):
    """Data packages, and the command that makes a running program load new versions of them."""

    packages: Annotated[tuple[PackageSpec, ...], Meta(min_length=1, max_length=16)]
    reload: Annotated[str, Meta(max_length=4096)] = ""


class RestartSpec(Struct, frozen=True, kw_only=True):
    """What happens when a program ends without being stopped; delays double from ``delay`` to ``delay_max``.

    After ``attempts`` restarts the task counts as failed; -1 means unlimited. A program that stays up
    for ``reset`` seconds starts again with all attempts.
    """

    policy: Annotated[str, Meta(pattern="^(always|on-failure|never)$")] = "always"
    attempts: Annotated[int, Meta(ge=-1, le=10_000)] = -1
    delay: Seconds = 1.0
    delay_max: Seconds = 60.0
    reset: Seconds = 600.0


class HealthSpec(Struct, frozen=True, kw_only=True):
    """A task's health check: ``tcp`` or ``http`` on a named port, or a ``command`` that exits with 0."""

    type: Annotated[str, Meta(pattern="^(tcp|http|command)$")]
    port: Annotated[str, Meta(max_length=32, description="name of one of the task's ports")] = ""
    path: Annotated[str, Meta(max_length=1024)] = "/"
    command: Annotated[str, Meta(max_length=4096)] = ""
    interval: Annotated[float, Meta(ge=0.1, le=3600)] = 2.0
    timeout: Annotated[float, Meta(ge=0.1, le=600)] = 2.0
    failures: Annotated[int, Meta(ge=1, le=100, description="consecutive failures before unhealthy")] = 3
    grace: Seconds = 0.0
    """Seconds after a start in which failures are not counted."""


class ServiceSpec(Struct, frozen=True, kw_only=True):
    """A name under which clients discover a port of this task."""

    name: Annotated[str, Meta(pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")]
    port: Annotated[str, Meta(max_length=32)]


UNLIMITED: Final = -1
ULIMITS: Final = (
    "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nofile", "nproc", "rss",
    "sigpending", "stack",
)  # fmt: skip
"""Resource limits that a task may set for itself (getrlimit(2)), in the kernel's units."""

UlimitValue = Annotated[int, Meta(ge=UNLIMITED, le=(1 << 53) - 1, description="-1: unlimited")]


class Ulimit(Struct, frozen=True, kw_only=True):
    """A resource limit: the soft value is in force, and a program may raise it up to the hard one."""

    soft: UlimitValue
    hard: UlimitValue


class TaskSpec(Struct, frozen=True, kw_only=True):
    """One program of a pod. ``/bin/sh -c`` runs ``start``; an empty ``stop`` means SIGTERM."""

    name: Annotated[str, Meta(pattern=r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$")]
    cpu: CpuSpec
    memory: MemorySpec
    start: Annotated[str, Meta(min_length=1, max_length=4096)]
    stop: Annotated[str, Meta(max_length=4096)] = ""
    network: NetworkSpec = NetworkSpec()
    blkio: BlkioSpec = BlkioSpec()
    pids: Annotated[int, Meta(ge=8, le=32768, description="most processes and threads")] = 512
    ulimits: dict[str, Ulimit] = {}
    ports: tuple[PortSpec, ...] = ()
    package: PackageSpec | None = None
    data: DataSpec | None = None
    env: dict[str, str | EnvFrom] = {}
    restart: RestartSpec | None = None
    health: HealthSpec | None = None
    services: tuple[ServiceSpec, ...] = ()


class PodSpec(Struct, frozen=True, kw_only=True):
    """The tasks and volumes of one replica."""

    tasks: Annotated[tuple[TaskSpec, ...], Meta(min_length=1, max_length=16)]
    workspace: VolumeSpec
    volumes: Annotated[tuple[VolumeSpec, ...], Meta(max_length=16)] = ()


class DeploySpec(Struct, frozen=True, kw_only=True):
    """Number of replicas, placement, and pace of changes. Empty ``pools`` means any pool."""

    replica: Annotated[int, Meta(ge=0, le=9999)] = 1
    step: Annotated[int, Meta(ge=1, le=9999, description="most pods down at once in a rollout")] = 1
    interval: Annotated[float, Meta(ge=0, le=3600, description="seconds between batches")] = 0.0
    max_per_host: Annotated[int, Meta(ge=0, le=9999, description="0 means no limit")] = 0
    pools: tuple[str, ...] = ()
    tag: str = ""
    require: Annotated[
        Words, Meta(max_length=16, description="tags, or label=value|value; all are needed")
    ] = ()
    forbid: Annotated[
        Words, Meta(max_length=16, description="tags, or label=value|value; none is allowed")
    ] = ()
    prefer: Annotated[
        Words, Meta(max_length=16, description="tags, or label=value|value; hosts with most go first")
    ] = ()
    spread: Annotated[
        str, Meta(max_length=64, description="a label over whose values pods are spread evenly")
    ] = ""
    affinity: Annotated[
        Words, Meta(max_length=16, description="jobs of which the host has a pod, of each")
    ] = ()
    anti_affinity: Annotated[Words, Meta(max_length=16, description="jobs of which the host has no pod")] = ()
    stop_timeout: Annotated[float, Meta(ge=0, le=120, description="seconds from SIGTERM to SIGKILL")] = 30.0
    drain: Annotated[
        float, Meta(ge=0, le=300, description="seconds from withdrawing endpoints to SIGTERM; services only")
    ] = 2.0


COMMA_LISTS: Final = ("pools", "require", "forbid", "prefer", "affinity", "anti_affinity")
"""Fields of ``DeploySpec`` that may be written as words with commas between them."""


class JobSpec(Struct, frozen=True, kw_only=True):
    """A complete job file."""

    name: Annotated[str, Meta(pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")]
    pod: PodSpec
    type: JobType = JobType.SERVICE
    deploy: DeploySpec = DeploySpec()
