"""The spec of a job with its secrets' values filled in, for orders to AppWorkers only."""

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
