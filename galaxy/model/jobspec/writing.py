"""Write a ``JobSpec`` as a job file: readable units, defaults left out.

``galaxy.model.jobspec.parsing.parse`` of the result returns the same job.
"""

from __future__ import annotations

from typing import Any

from galaxy.model.base import Struct, to_plain
from galaxy.model.jobspec.shorthand import UNITS, Unit
from galaxy.model.jobspec.spec import CpuSpec, JobSpec, MemorySpec


def to_tree(spec: JobSpec) -> dict[str, Any]:
    """Return ``spec`` as the tree of a job file, with shorthands where they lose nothing."""
    tree = _struct(spec)
    pod = tree.pop("pod")
    return {"name": tree.pop("name"), "type": spec.type.value, **tree, "pod": pod}


def write_bytes(count: int) -> str | int:
    """Format a size in the largest unit that divides it: ``64M``, ``1G``, ``1000``."""
    for power, unit in ((5, "P"), (4, "T"), (3, "G"), (2, "M"), (1, "K")):
        if count and count % 1024**power == 0:
            return f"{count // 1024**power}{unit}"
    return count


def write_seconds(seconds: float) -> str | float:
    """Format a duration with its unit, or as a number where the unit form would round it."""
    if seconds == int(seconds):
        return f"{int(seconds)}s"
    return seconds if "e" in repr(seconds) else f"{seconds!r}s"


def _struct(struct: Struct) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    kept = to_plain(struct)
    for field in kept:
        value = getattr(struct, field)
        tree[field] = _value(value, kept[field], UNITS.get((type(struct), field), Unit.COUNT))
    return tree


def _value(value: Any, plain: Any, unit: Unit) -> Any:
    if isinstance(value, CpuSpec) and not value.excess:
        return f"{value.millicores}m"
    if isinstance(value, MemorySpec) and not value.excess:
        return write_bytes(value.size)
    if isinstance(value, Struct):
        return _struct(value)
    if isinstance(value, tuple):
        return [_value(item, item, unit) for item in value]
    if unit is Unit.BYTES:
        return write_bytes(value)
    if unit is Unit.SECONDS:
        return write_seconds(value)
    if unit is Unit.PORT:
        return value or "dynamic"
    return plain
