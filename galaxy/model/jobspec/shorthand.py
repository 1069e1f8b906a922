"""Shorthands of the job file: ``cpu: 250m``, ``port: dynamic``, ``pools: "a,b"``.

Each function expands a shorthand to the full form before the fields are checked, and returns anything
else unchanged. The JSON Schema uses the same table of units, so it cannot disagree with the parser.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final

from galaxy.model.base import Struct
from galaxy.model.jobspec.scalars import written
from galaxy.model.jobspec.spec import (
    BlkioSpec,
    CpuSpec,
    DeploySpec,
    HealthSpec,
    MemorySpec,
    NetworkSpec,
    PodSpec,
    PortSpec,
    RestartSpec,
    ServiceSpec,
    TaskSpec,
    Ulimit,
    VolumeSpec,
)
from galaxy.units import parse_bytes, parse_cpu, parse_duration

WORKSPACE_PATH: Final = "/home/galaxy"
WORKSPACE_BYTES: Final = 64 * 1024 * 1024
TASK_NAME: Final = "main"
"""Name of a pod's only task when it has none."""


class Unit(Enum):
    """What a number counts, which decides how it may be written."""

    BYTES = "size"
    BITS = "bit rate"
    MILLICORES = "amount of CPU"
    SECONDS = "duration"
    PORT = "port"
    COUNT = "count"


UNITS: Final[Mapping[tuple[type[Struct], str], Unit]] = {
    (VolumeSpec, "size"): Unit.BYTES,
    (MemorySpec, "size"): Unit.BYTES,
    (CpuSpec, "millicores"): Unit.MILLICORES,
    (NetworkSpec, "recv_bps"): Unit.BITS,
    (NetworkSpec, "send_bps"): Unit.BITS,
    (PortSpec, "port"): Unit.PORT,
    (DeploySpec, "interval"): Unit.SECONDS,
    (DeploySpec, "stop_timeout"): Unit.SECONDS,
    (DeploySpec, "drain"): Unit.SECONDS,
    (RestartSpec, "delay"): Unit.SECONDS,
    (RestartSpec, "delay_max"): Unit.SECONDS,
    (RestartSpec, "reset"): Unit.SECONDS,
    (HealthSpec, "interval"): Unit.SECONDS,
    (HealthSpec, "timeout"): Unit.SECONDS,
    (HealthSpec, "grace"): Unit.SECONDS,
}

_DIGITS: Final = re.compile(r"[0-9]{1,18}")


def parse_number(value: Any, unit: Unit) -> int | float:
    """Parse a number of ``unit``.

    Raises:
        ValueError: ``value`` is not one; the message says how to write it.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(_how(unit))
    if unit is Unit.SECONDS:
        return parse_duration(value)
    if isinstance(value, float):
        raise ValueError(f"{written(value)} is not a whole number")
    if isinstance(value, int):
        return int(value)
    if unit in (Unit.BYTES, Unit.BITS):
        return parse_bytes(value)
    if unit is Unit.MILLICORES:
        if not re.fullmatch(r"[0-9]{1,12}m?", value):
            raise ValueError(f"{value!r} is not a number of millicores; write it like 250 or 250m")
        return int(value.removesuffix("m"))
    if unit is Unit.PORT and value == "dynamic":
        return 0
    if unit is Unit.PORT and _DIGITS.fullmatch(value):
        return int(value)
    raise ValueError(_how(unit) + f", not {value!r}")


def _how(unit: Unit) -> str:
    return {
        Unit.BYTES: "must be a size like 512K, 64M or 2G",
        Unit.BITS: "must be a bit rate like 30M",
        Unit.MILLICORES: "must be an amount of CPU like 250m or 0.25",
        Unit.SECONDS: "must be a duration like 500ms, 30s or 5m",
        Unit.PORT: "must be `dynamic` or a port number",
        Unit.COUNT: "must be a whole number",
    }[unit]


def _cpu(value: Any) -> Any:
    """Expand ``250m``, ``0.25`` or ``2``: text is millicores or cores, numbers are cores."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return {"millicores": parse_cpu(value)}
    return value


def _memory(value: Any) -> Any:
    if isinstance(value, str | int) and not isinstance(value, bool):
        return {"size": parse_bytes(value)}
    return value


def _word(field: str) -> Callable[[Any], Any]:
    return lambda value: {field: value} if isinstance(value, str) else value


def _weight(value: Any) -> Any:
    return {"weight": value} if isinstance(value, int) and not isinstance(value, bool) else value


def _pod(value: Any) -> Any:
    """Fill in the workspace's defaults and the name of a pod's only task."""
    if not isinstance(value, dict):
        return value
    pod = dict(value)
    given = pod.get("workspace")
    space = {"size": given} if isinstance(given, str | int) and not isinstance(given, bool) else given
    if space is None:
        space = {}
    if isinstance(space, dict):
        pod["workspace"] = {"path": WORKSPACE_PATH, "size": WORKSPACE_BYTES} | space
    tasks = pod.get("tasks")
    if isinstance(tasks, list) and len(tasks) == 1 and isinstance(tasks[0], dict):
        pod["tasks"] = [{"name": TASK_NAME} | tasks[0]]
    return pod


def _task(value: Any) -> Any:
    """Let services and health checks without a port use the task's only port."""
    if not isinstance(value, dict):
        return value
    task = dict(value)
    port = _only_port(task.get("ports"))
    if not port:
        return task
    if isinstance(task.get("services"), list):
        task["services"] = [_with_port(_word("name")(service), port) for service in task["services"]]
    health = _word("type")(task.get("health"))
    if isinstance(health, dict) and health.get("type") in ("tcp", "http"):
        task["health"] = _with_port(health, port)
    return task


def _only_port(ports: Any) -> str:
    if not isinstance(ports, list) or len(ports) != 1:
        return ""
    name = ports[0].get("name") if isinstance(ports[0], dict) else ports[0]
    return name if isinstance(name, str) else ""


def _with_port(value: Any, port: str) -> Any:
    return {"port": port} | value if isinstance(value, dict) else value


def _ulimit(value: Any) -> Any:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return {"soft": value, "hard": value} if is_number else value


SHORTHANDS: Final[Mapping[type[Struct], Callable[[Any], Any]]] = {
    CpuSpec: _cpu,
    MemorySpec: _memory,
    NetworkSpec: _word("mode"),
    BlkioSpec: _weight,
    Ulimit: _ulimit,
    PortSpec: _word("name"),
    ServiceSpec: _word("name"),
    RestartSpec: _word("policy"),
    HealthSpec: _word("type"),
    PodSpec: _pod,
    TaskSpec: _task,
}
"""By struct: the function that expands a shorthand before parsing."""


SHORT_FORMS: Final[Mapping[type[Struct], str]] = {
    CpuSpec: "an amount of CPU like 250m",
    MemorySpec: "a size like 64M",
    NetworkSpec: "a mode",
    BlkioSpec: "a weight",
    Ulimit: "a whole number",
    PortSpec: "a name like http",
    ServiceSpec: "a name like web",
    RestartSpec: "a policy like on-failure",
    HealthSpec: "a type like tcp",
}
"""By struct: what its shorthand is called in messages."""


def split_words(value: Any) -> Any:
    """Split ``"a, b"`` into a list; Galaxy 3 wrote pools this way."""
    if isinstance(value, str):
        return [word.strip() for word in value.split(",") if word.strip()]
    return value
