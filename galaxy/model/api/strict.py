"""Strict validation of requests: an unknown field may ask for something that we would ignore."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import msgspec.inspect as shape

from galaxy.errors import BadMessage
from galaxy.model.base import Struct, matches

SHOWN_MAX = 5


def refuse_unknown(value: Any, kind: type[Struct]) -> None:
    """Make sure that ``value``, the dicts and lists that a ``kind`` was read from, has only its fields.

    Raises:
        BadMessage: names the fields by their paths.
    """
    unknown = [
        f"{path}{name}"
        for path, part, of in _parts(value, _shape(kind), "")
        if isinstance(of, shape.StructType) and isinstance(part, dict)
        for name in part.keys() - _fields(of).keys() - {of.tag_field}
    ]
    if unknown:
        raise BadMessage(
            f"{kind.__name__} has no {_few(unknown)}",
            hint="a newer client needs a newer AppMaster: upgrade that first",
        )


def refuse_newlines(value: Any, kind: type[Struct]) -> None:
    """Make sure that no name in ``value``, read as a ``kind``, ends in a newline, which msgspec accepts.

    Only input validation calls this; stored names that earlier releases accepted can still be read.

    Raises:
        BadMessage: names the fields by their paths.
    """
    loose = [
        path.removesuffix(".")
        for path, part, of in _parts(value, _shape(kind), "")
        if isinstance(of, shape.StrType) and isinstance(part, str)
        if of.pattern is not None and part.endswith("\n") and not matches(part, of.pattern)
    ]
    if loose:
        raise BadMessage(f"{kind.__name__} has a newline at the end of {_few(loose)}")


@cache
def _shape(kind: type[Struct]) -> shape.Type:
    return shape.type_info(kind)


def _few(paths: Iterable[str]) -> str:
    each = sorted(set(paths))
    more = f" and {len(each) - SHOWN_MAX} more" if len(each) > SHOWN_MAX else ""
    return ", ".join(f"`{path[:120]}`" for path in each[:SHOWN_MAX]) + more


def _fields(kind: shape.StructType) -> dict[str, shape.Type]:
    return {field.encode_name: field.type for field in kind.fields}


def _parts(value: Any, kind: shape.Type, path: str) -> Iterator[tuple[str, Any, shape.Type]]:
    """Yield every part of ``value`` with its path, which ends in a dot, and its type."""
    while isinstance(kind, shape.Metadata):
        kind = kind.type
    yield path, value, kind
    if isinstance(kind, shape.UnionType):
        for one in kind.types:
            yield from _parts(value, one, path)
    elif isinstance(kind, shape.StructType) and isinstance(value, dict):
        fields = _fields(kind)
        for name in value.keys() & fields.keys():
            yield from _parts(value[name], fields[name], f"{path}{name}.")
    elif isinstance(kind, shape.VarTupleType | shape.ListType) and isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _parts(inner, kind.item_type, f"{path}{index}.")
    elif isinstance(kind, shape.DictType) and isinstance(value, dict):
        for name, inner in value.items():
            yield from _parts(name, kind.key_type, f"{path}{name}.")
            yield from _parts(inner, kind.value_type, f"{path}{name}.")
