"""Fills the values of secrets into the spec of a job, only for orders to AppWorkers."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.messages.pod import with_values
from galaxy.model.stored.secret import Secret


def resolve_env(spec: JobSpec, values: Mapping[str, Secret]) -> JobSpec:
    """Return ``spec`` with ``values`` in its environments."""
    if not values:
        return spec
    pod = msgspec.structs.replace(spec.pod, tasks=with_values(spec.pod.tasks, values))
    return msgspec.structs.replace(spec, pod=pod)
