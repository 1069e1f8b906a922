"""The job file: what a user submits, in plain names, after units are read.

Sizes are bytes, CPU is millicores, times are seconds. ``galaxy.model.jobspec.parsing`` turns what a
person wrote (``64M``, ``0.25``, ``30s``, shorthands) into these, with every problem at once;
``galaxy.model.jobspec.rules`` holds the rules that go over more than one field.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from galaxy.model.base import Struct
from galaxy.model.stored.secret import EnvFrom

Seconds = Annotated[float, Meta(ge=0, le=86400)]


class JobType(StrEnum):
    """What a job is for; the order is the order of importance."""

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
        """Whether pods of this type end by themselves, for good."""
        return self is JobType.BATCH


class Medium(StrEnum):
    """What a volume lies on."""

    DISK = "disk"
    SSD = "ssd"
    TMPFS = "tmpfs"


class VolumeSpec(Struct, frozen=True, kw_only=True):
    """An empty directory of an enforced size, that lives as long as its container."""

    path: Annotated[str, Meta(pattern=r"^/", max_length=256, description="where the pod sees it")]
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
    """How a pod meets the network; ``host`` shares the host's, with allocated ports."""

    mode: Annotated[str, Meta(pattern="^(host|private)$")] = "host"
    recv_bps: Annotated[int, Meta(ge=0, le=1 << 50, description="bits a second; 0 is no limit")] = 0
    send_bps: Annotated[int, Meta(ge=0, le=1 << 50, description="bits a second; 0 is no limit")] = 0


class BlkioSpec(Struct, frozen=True, kw_only=True):
    """Weight of a task's disk traffic against its neighbours'."""

    weight: Annotated[int, Meta(ge=1, le=999)] = 500


class PortSpec(Struct, frozen=True, kw_only=True):
    """A port with a name; number 0 lets the agent choose (``port: dynamic`` in the file)."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")]
    port: Annotated[int, Meta(ge=0, le=65535, description="0 is dynamic")] = 0


class PackageSpec(Struct, frozen=True, kw_only=True):
    """An archive (tar, tar.gz, zip) that is unpacked into the pod before the program starts."""

    source: Annotated[str, Meta(min_length=1, max_length=2048, description="a URL or a path")]
    version: Annotated[str, Meta(min_length=1, max_length=128)]
    sha256: Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")] = ""
    path: Annotated[str, Meta(max_length=256, description="where it is unpacked; default the workspace")] = ""


class DataSpec(Struct, frozen=True, kw_only=True):
    """Data packages, and the command that makes a running program read new versions of them."""

    packages: Annotated[tuple[PackageSpec, ...], Meta(min_length=1, max_length=16)]
    reload: Annotated[str, Meta(max_length=4096)] = ""


class RestartSpec(Struct, frozen=True, kw_only=True):
    """What happens when a program ends by itself; delays double from ``delay`` to ``delay_max``.

    ``attempts`` restarts are tried before the task counts as failed, -1 is without end; a
    program that stays up for ``reset`` seconds has all its attempts back.
    """

    policy: Annotated[str, Meta(pattern="^(always|on-failure|never)$")] = "always"
    attempts: Annotated[int, Meta(ge=-1, le=10_000)] = -1
    delay: Seconds = 1.0
    delay_max: Seconds = 60.0
    reset: Seconds = 600.0


class HealthSpec(Struct, frozen=True, kw_only=True):
    """How a task's health is asked: ``tcp`` and ``http`` by port name, ``command`` by exit code 0."""

    type: Annotated[str, Meta(pattern="^(tcp|http|command)$")]
    port: Annotated[str, Meta(max_length=32, description="name of one of the task's ports")] = ""
    path: Annotated[str, Meta(max_length=1024)] = "/"
    command: Annotated[str, Meta(max_length=4096)] = ""
    interval: Annotated[float, Meta(ge=0.1, le=3600)] = 2.0
    timeout: Annotated[float, Meta(ge=0.1, le=600)] = 2.0
    failures: Annotated[int, Meta(ge=1, le=100, description="in a row until unhealthy")] = 3
    grace: Seconds = 0.0
    """Failures in this time after a start are not counted."""


class ServiceSpec(Struct, frozen=True, kw_only=True):
    """A name under which a port of this task is found."""

    name: Annotated[str, Meta(pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")]
    port: Annotated[str, Meta(max_length=32)]


class TaskSpec(Struct, frozen=True, kw_only=True):
    """One program of a pod. ``stop`` empty means SIGTERM; ``start`` is run by ``/bin/sh -c``."""

    name: Annotated[str, Meta(pattern=r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$")]
    cpu: CpuSpec
    memory: MemorySpec
    start: Annotated[str, Meta(min_length=1, max_length=4096)]
    stop: Annotated[str, Meta(max_length=4096)] = ""
    network: NetworkSpec = NetworkSpec()
    blkio: BlkioSpec = BlkioSpec()
    pids: Annotated[int, Meta(ge=8, le=32768, description="processes and threads at most")] = 512
    ports: tuple[PortSpec, ...] = ()
    package: PackageSpec | None = None
    data: DataSpec | None = None
    env: dict[str, str | EnvFrom] = {}
    restart: RestartSpec | None = None
    health: HealthSpec | None = None
    services: tuple[ServiceSpec, ...] = ()


class PodSpec(Struct, frozen=True, kw_only=True):
    """What one replica consists of."""

    tasks: Annotated[tuple[TaskSpec, ...], Meta(min_length=1, max_length=16)]
    workspace: VolumeSpec
    volumes: Annotated[tuple[VolumeSpec, ...], Meta(max_length=16)] = ()


class DeploySpec(Struct, frozen=True, kw_only=True):
    """How many replicas, where, and how quickly they may change."""

    replica: Annotated[int, Meta(ge=0, le=9999)] = 1
    step: Annotated[int, Meta(ge=1, le=9999, description="pods away at once in a rollout")] = 1
    interval: Annotated[float, Meta(ge=0, le=3600, description="seconds between batches")] = 0.0
    max_per_host: Annotated[int, Meta(ge=0, le=9999, description="0 is no limit")] = 0
    pools: tuple[str, ...] = ()
    tag: str = ""
    stop_timeout: Annotated[float, Meta(ge=0, le=120, description="SIGTERM to SIGKILL")] = 30.0
    drain: Annotated[
        float, Meta(ge=0, le=300, description="endpoint withdrawn to SIGTERM; services only")
    ] = 2.0


class JobSpec(Struct, frozen=True, kw_only=True):
    """A whole job file. ``pools`` empty means any pool."""

    name: Annotated[str, Meta(pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")]
    pod: PodSpec
    type: JobType = JobType.SERVICE
    deploy: DeploySpec = DeploySpec()
