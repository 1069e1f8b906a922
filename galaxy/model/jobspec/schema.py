"""JSON Schema of the job file for editors, generated from the types.

It covers the shorthands of ``shorthand`` but not the rules over several fields.
"""

from __future__ import annotations

import inspect
from typing import Any, Final, cast

import msgspec.inspect as shape

from galaxy.model.base import Struct
from galaxy.model.jobspec.shorthand import TASK_NAME, UNITS, WORKSPACE_BYTES, WORKSPACE_PATH, Unit
from galaxy.model.jobspec.spec import (
    COMMA_LISTS,
    ULIMITS,
    BlkioSpec,
    CpuSpec,
    DeploySpec,
    HealthSpec,
    JobSpec,
    MemorySpec,
    NetworkSpec,
    PodSpec,
    PortSpec,
    RestartSpec,
    ServiceSpec,
    TaskSpec,
    Ulimit,
)

_SIZE: Final = {"type": "string", "pattern": r"^\d+(\.\d+)?\s*([KMGTPEkmgtpe])?([iI]?[bB])?$"}
_CPU: Final = {"type": "string", "pattern": r"^(\d+\s*[mM]|\d+(\.\d+)?)$"}
_MILLI: Final = {"type": "string", "pattern": r"^\d{1,12}m?$"}
_TIME: Final = {"type": "string", "pattern": r"^(\d+(\.\d+)?|(\d+d)?(\d+h)?(\d+m)?(\d+(\.\d+)?s)?(\d+ms)?)$"}
_PORT: Final = {"type": "string", "pattern": r"^(dynamic|\d{1,18})$"}
_UNITS: Final[dict[Unit, dict[str, Any]]] = {
    Unit.BYTES: _SIZE, Unit.BITS: _SIZE, Unit.MILLICORES: _MILLI, Unit.SECONDS: _TIME, Unit.PORT: _PORT,
}  # fmt: skip

_SHORT_FORMS: Final[dict[type[Struct], tuple[str, ...]]] = {
    NetworkSpec: ("mode",), BlkioSpec: ("weight",), PortSpec: ("name",), ServiceSpec: ("name",),
    RestartSpec: ("policy",), HealthSpec: ("type",),
}  # fmt: skip
"""Structs that may be written as the value of one of their fields."""

_ENV_FROM: Final = tuple(
    {
        "type": "object",
        "description": description,
        "properties": {name: {"type": "string", "minLength": 1}},
        "required": [name],
        "additionalProperties": False,
    }
    for name, description in (
        ("file", "content of a file, read when the job is run or updated; shown nowhere"),
        ("secret", "value of a secret (`galaxy secret set`); shown nowhere"),
    )
)
"""Sources of a variable's value other than the file itself."""

_DEFAULTED: Final = {(PodSpec, "workspace"), (TaskSpec, "name"), (ServiceSpec, "port")}
"""Fields that the parser fills in when they are omitted."""


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a job file."""
    builder = _SchemaBuilder()
    root = builder.struct(cast(shape.StructType, shape.type_info(JobSpec)))
    definitions = dict(sorted(builder.definitions.items()))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A job of Galaxy",
        **root,
        "$defs": definitions,
    }


class _SchemaBuilder:
    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}

    def struct(self, kind: shape.StructType) -> dict[str, Any]:
        cls = cast("type[Struct]", kind.cls)
        properties = {field.name: self.field(cls, field) for field in kind.fields}
        required = [f.name for f in kind.fields if f.required and (cls, f.name) not in _DEFAULTED]
        schema_part: dict[str, Any] = {
            "type": "object",
            "description": (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ").replace("``", "`"),
            "properties": properties,
            "additionalProperties": False,
        }
        return schema_part | ({"required": required} if required else {})

    def field(self, cls: type[Struct], field: shape.Field) -> dict[str, Any]:
        if (cls, field.name) == (PodSpec, "workspace"):
            schema_part = self._workspace(field.type)
        else:
            schema_part = self.value(field.type, UNITS.get((cls, field.name), Unit.COUNT))
        if cls is DeploySpec and field.name in COMMA_LISTS:
            schema_part = {
                "anyOf": [schema_part, {"type": "string", "description": "names, separated by commas"}]
            }
        if (cls, field.name) == (TaskSpec, "env"):
            schema_part["additionalProperties"] = {"anyOf": [{"type": ["string", "integer"]}, *_ENV_FROM]}
        if (cls, field.name) == (TaskSpec, "ulimits"):
            schema_part["propertyNames"] = {"enum": list(ULIMITS)}
        if (cls, field.name) == (TaskSpec, "name"):
            schema_part["description"] = f"`{TASK_NAME}` when a pod's only task has none"
        default = field.default
        if isinstance(default, bool | int | float | str) and default != "":
            schema_part["default"] = str(default) if isinstance(default, str) else default
        return schema_part

    def _workspace(self, kind: shape.Type) -> dict[str, Any]:
        full_form = self.struct(cast(shape.StructType, kind))
        full_form.pop("required")
        full_form["properties"]["path"]["default"] = WORKSPACE_PATH
        full_form["properties"]["size"]["default"] = WORKSPACE_BYTES
        self.definitions["WorkspaceSpec"] = {"anyOf": [full_form, _SIZE, {"type": "integer"}]}
        return {"$ref": "#/$defs/WorkspaceSpec"}

    def value(self, kind: shape.Type, unit: Unit) -> dict[str, Any]:
        if isinstance(kind, shape.Metadata):
            return self.value(kind.type, unit) | (kind.extra_json_schema or {})
        if isinstance(kind, shape.UnionType):
            inner = next(one for one in kind.types if not isinstance(one, shape.NoneType))
            return {"anyOf": [self.value(inner, unit), {"type": "null"}]}
        if isinstance(kind, shape.StructType):
            return self._reference(kind)
        if isinstance(kind, shape.VarTupleType):
            schema_part = {"type": "array", "items": self.value(kind.item_type, Unit.COUNT)}
            return schema_part | _limits(minItems=kind.min_length, maxItems=kind.max_length)
        if isinstance(kind, shape.DictType):
            is_struct = isinstance(kind.value_type, shape.StructType)
            values = {"additionalProperties": self.value(kind.value_type, Unit.COUNT)} if is_struct else {}
            return {"type": "object"} | values
        if isinstance(kind, shape.EnumType):
            return {"enum": [str(member.value) for member in kind.cls]}
        if isinstance(kind, shape.BoolType):
            return {"type": "boolean"}
        if isinstance(kind, shape.StrType):
            limits = _limits(minLength=kind.min_length, maxLength=kind.max_length, pattern=kind.pattern)
            # A whole number in its canonical form is text as well; no pattern allows one.
            return {"type": "string" if kind.pattern else ["string", "integer"]} | limits
        assert isinstance(kind, shape.IntType | shape.FloatType), kind
        number = {"type": "integer" if isinstance(kind, shape.IntType) else "number"}
        number |= _limits(minimum=kind.ge, maximum=kind.le)
        return {"anyOf": [number, dict(_UNITS[unit])]} if unit in _UNITS else number

    def _reference(self, kind: shape.StructType) -> dict[str, Any]:
        cls = cast("type[Struct]", kind.cls)
        name = cls.__name__
        if name not in self.definitions:
            self.definitions[name] = {}
            schema_part = self.struct(kind)
            short_forms = [schema_part["properties"][field] for field in _SHORT_FORMS.get(cls, ())]
            if cls is CpuSpec:
                short_forms = [{"type": "number", "exclusiveMinimum": 0, "description": "cores"}, _CPU]
            if cls is Ulimit:
                short_forms = [schema_part["properties"]["soft"]]
            if cls is MemorySpec:
                short_forms = [schema_part["properties"]["size"]]
            self.definitions[name] = {"anyOf": [schema_part, *short_forms]} if short_forms else schema_part
        return {"$ref": f"#/$defs/{name}"}


def _limits(**limits: Any) -> dict[str, Any]:
    return {name: limit for name, limit in limits.items() if limit is not None}
