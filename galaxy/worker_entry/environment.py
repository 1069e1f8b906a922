"""The environment and the resource limits of a task's program, of its commands and of exec commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from galaxy.model.jobspec.spec import TaskSpec
from galaxy.model.messages.pod import PodOrder
from galaxy.model.messages.worker import WorkerConfig
from galaxy.model.stored.secret import EnvFrom

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PREFIX: Final = "GALAXY_"
"""Variables with this prefix are set by Galaxy only; those of a job are dropped."""


def environment(
    config: WorkerConfig, order: PodOrder, spec: TaskSpec, more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment of task ``spec``; ``more`` (of an exec) overrides the job's own variables.

    It holds every port of the pod, so that the tasks of a pod find each other.
    """
    env = {"PATH": PATH, "HOME": config.workspace, **_texts(spec.env), **(more or {})}
    env = {name: value for name, value in env.items() if _is_valid(name, value)}
    env |= {port_variable(name): str(port) for name, port in config.ports.items()}
    env |= {
        "GALAXY_JOB_ID": order.job,
        "GALAXY_POD_ID": order.pod,
        "GALAXY_POD_INDEX": str(order.index),
        "GALAXY_TASK_ID": task_id(order.pod, spec.name),
        "GALAXY_WORKSPACE": config.workspace,
        "GALAXY_HOST": config.host,
    }
    return env


def limits_of(spec: TaskSpec) -> dict[str, tuple[int, int]]:
    """Return the soft and hard limits that a task sets for itself."""
    return {name: (limit.soft, limit.hard) for name, limit in spec.ulimits.items()}


def task_id(pod: str, task: str) -> str:
    """Return the value of GALAXY_TASK_ID; without cgroups a task's processes are found by it."""
    return f"{pod}/{task}"


def port_variable(name: str) -> str:
    """Return ``GALAXY_PORT_<NAME>``: upper case, "-" as "_"."""
    return f"{PREFIX}PORT_{name.upper().replace('-', '_')}"


def _texts(env: Mapping[str, str | EnvFrom]) -> dict[str, str]:
    """Return ``env`` with the values of its secrets; AppMaster sends no order that lacks one."""
    texts = {}
    for name, value in env.items():
        if isinstance(value, str):
            texts[name] = value
        elif value.value is not None:
            texts[name] = value.value.text
    return texts


def _is_valid(name: str, value: str) -> bool:
    return bool(name) and "=" not in name and "\0" not in name + value and not name.startswith(PREFIX)
