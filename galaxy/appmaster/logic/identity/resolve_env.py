"""A job's spec with the values of its secrets in it, as AppWorkers get it and nobody else."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.messages.pod import with_values
from galaxy.model.stored.secret import Secret


def filled(spec: JobSpec, values: Mapping[str, Secret]) -> JobSpec:
    """Return ``spec`` with ``values`` in its environments, for AppWorkers' eyes only."""
    if not values:
        return spec
    pod = msgspec.structs.replace(spec.pod, tasks=with_values(spec.pod.tasks, values))
    return msgspec.structs.replace(spec, pod=pod)
