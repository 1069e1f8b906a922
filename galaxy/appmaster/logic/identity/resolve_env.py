"""Secrets in the environments of a job: their names, and their values, only for orders to AppWorkers."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.messages.pod import with_values
from galaxy.model.stored.secret import EnvFrom, Secret


def resolve_env(spec: JobSpec, values: Mapping[str, Secret]) -> JobSpec:
    """Return ``spec`` with ``values`` in its environments."""
    if not values:
        return spec
    pod = msgspec.structs.replace(spec.pod, tasks=with_values(spec.pod.tasks, values))
    return msgspec.structs.replace(spec, pod=pod)


def secrets_of(spec: JobSpec) -> tuple[str, ...]:
    """Return the name of each secret that the environment of a job refers to, once."""
    sources = (source for task in spec.pod.tasks for source in task.env.values())
    return tuple(
        dict.fromkeys(source.secret for source in sources if isinstance(source, EnvFrom) and source.secret)
    )
