"""A job's spec with the values of its secrets in it, as AppWorkers get it and nobody else."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from galaxy.model.secret import EnvFrom, Secret
from galaxy.model.spec import JobSpec


def filled(spec: JobSpec, values: Mapping[str, Secret]) -> JobSpec:
    """Return ``spec`` with ``values`` in its environments, for AppWorkers' eyes only."""
    if not values:
        return spec
    tasks = tuple(
        msgspec.structs.replace(
            task,
            env={
                name: msgspec.structs.replace(source, value=values.get(f"{task.name}/{name}"))
                if isinstance(source, EnvFrom)
                else source
                for name, source in task.env.items()
            },
        )
        for task in spec.pod.tasks
    )
    return msgspec.structs.replace(spec, pod=msgspec.structs.replace(spec.pod, tasks=tasks))
