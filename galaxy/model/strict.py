"""What a client sends is read strictly: an unknown field may be a wish that we would not fulfil."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec.inspect as shape

from galaxy.errors import BadMessage
from galaxy.model.base import Noun

SHOWN_MAX = 5


def refuse_unknown(value: Any, kind: type[Noun]) -> None:
    """Make sure that ``value``, plain dicts and lists that were read as a ``kind``, has only its fields.

    Raises:
        BadMessage: names the fields by their paths.
    """
    unknown = sorted(set(_unknown(value, _shape(kind), "")))
    if unknown:
        more = f" and {len(unknown) - SHOWN_MAX} more" if len(unknown) > SHOWN_MAX else ""
        named = ", ".join(f"`{path[:120]}`" for path in unknown[:SHOWN_MAX])
        raise BadMessage(
            f"{kind.__name__} has no {named}{more}",
            hint="a newer client needs a newer AppMaster: upgrade that first",
        )


@cache
def _shape(kind: type[Noun]) -> shape.Type:
    return shape.type_info(kind)


def _unknown(value: Any, kind: shape.Type, path: str) -> Iterator[str]:
    while isinstance(kind, shape.Metadata):
        kind = kind.type
    if isinstance(kind, shape.UnionType):
        for one in kind.types:
            yield from _unknown(value, one, path)
    elif isinstance(kind, shape.StructType) and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in kind.fields}
        known = fields.keys() | ({kind.tag_field} if kind.tag_field else set())
        for name, inner in value.items():
            if name not in known:
                yield f"{path}{name}"
            elif name in fields:
                yield from _unknown(inner, fields[name], f"{path}{name}.")
    elif isinstance(kind, shape.VarTupleType | shape.ListType) and isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _unknown(inner, kind.item_type, f"{path}{index}.")
    elif isinstance(kind, shape.DictType) and isinstance(value, dict):
        for name, inner in value.items():
            yield from _unknown(inner, kind.value_type, f"{path}{name}.")
