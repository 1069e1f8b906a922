"""Hypothesis strategies for messages with hostile values that the strict codec accepts.

Names come mostly from a small set, so that generated messages name the same few agents, groups and
containers and interact in the tables.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec.inspect as shape
from hypothesis import strategies as st

from galaxy.model.base import Struct, decode, encode

AGENTS = ("h1", "h2", "h3")
JOBS = ("web-abc123", "crunch-0f0f0f", "web")
PODS = ("web-abc123.0", "web-abc123.1", "web-abc123.7", "crunch-0f0f0f.0")
WORDS = ("main", "http", "ssd", "web", "")

NASTY = (
    "", ".", "..", "/", "../../etc/passwd", "a" * 300, "\x00", "\n", "\x1f", "web\x00",
    "'; DROP TABLE rows; --", "%s%n", "{0}", "\u202e", "\ufeff", "é\u0301", "😀" * 50, "-", "--help", "*",
    "web-abc123.-1", "web-abc123.00", "web-abc123.٣", "web-abc123." + "9" * 5000, "web-abc123.0#1@h1",
    "web-abc123.0_1", ".0", "x.", "h1 ",
)  # fmt: skip
"""Texts that careless code misreads: paths, control characters, format strings, huge numbers."""

NUMBERS = (
    -1, 0, 1, 2, 3, 80, 1024, 20000, 65535, 65536, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63),
    -(2**64), 10**40, -(10**40), 10**400,
)  # fmt: skip
FLOATS = (-0.0, 0.0, 1e-300, 0.1, 1.0, 30.0, -1.0, 1e9, 1e18, 1.7e308, -1.7e308, 5e-324)

_USUAL: dict[str, tuple[str, ...]] = {
    "agent": AGENTS, "host": AGENTS, "boot": ("boot-1", "boot-2"), "pod": PODS, "container": PODS,
    "target": (*PODS, *JOBS), "group": JOBS, "job": JOBS, "service": WORDS, "task": WORDS, "name": WORDS,
    "pools": ("main", "far"), "pool": ("main", "far"), "tags": ("ssd",), "tag": ("", "ssd"),
}  # fmt: skip
_COUNTERS = frozenset({"epoch", "serial", "incarnation", "generation", "revision", "run", "deploy"})


def texts(field: str = "") -> st.SearchStrategy[str]:
    """Return texts for a field: mostly plausible values, sometimes hostile ones."""
    usual = st.sampled_from(_USUAL.get(field, WORDS))
    return st.one_of(
        usual, usual, usual, st.sampled_from(NASTY), st.text(max_size=8).map(_without_surrogates)
    )


def numbers(field: str = "") -> st.SearchStrategy[int]:
    usual = st.integers(0, 4) if field in _COUNTERS else st.sampled_from(NUMBERS[:10])
    return st.one_of(usual, usual, st.sampled_from(NUMBERS), st.integers())


def floats() -> st.SearchStrategy[float]:
    return st.sampled_from(FLOATS) | st.floats(allow_nan=False, allow_infinity=False)


@cache
def hostile(kind: type[Struct]) -> st.SearchStrategy[Any]:
    """Return structs of ``kind``, encoded and decoded as on the wire."""
    return _values(shape.type_info(kind), "", 0).map(lambda value: decode(encode(value), kind))


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _values(kind: shape.Type, field: str, depth: int) -> st.SearchStrategy[Any]:
    while isinstance(kind, shape.Metadata):
        kind = kind.type
    match kind:
        case shape.StructType():
            return _struct(kind, depth)
        case shape.UnionType():
            return st.one_of(*(_values(one, field, depth) for one in kind.types))
        case shape.NoneType():
            return st.none()
        case shape.EnumType():
            return st.sampled_from(list(kind.cls))
        case shape.BoolType():
            return st.booleans()
        case shape.StrType():
            return _texts_within(kind, field)
        case shape.IntType():
            return numbers(field).map(lambda value: _clamped(value, kind))
        case shape.FloatType():
            return floats().map(lambda value: _clamped(value, kind))
        case shape.VarTupleType():
            low, high = kind.min_length or 0, min(kind.max_length or 3, 3)
            return st.lists(_values(kind.item_type, field, depth + 1), min_size=low, max_size=high).map(tuple)
        case shape.TupleType():
            return st.tuples(*(_values(one, field, depth + 1) for one in kind.item_types))
        case shape.FrozenSetType() | shape.SetType():
            return st.frozensets(_values(kind.item_type, field, depth + 1), max_size=3)
        case shape.DictType():
            keys = _values(kind.key_type, "", depth + 1)
            return st.dictionaries(keys, _values(kind.value_type, "port", depth + 1), max_size=2)
        case shape.AnyType():
            return st.none()
    raise AssertionError(kind)


def _struct(kind: shape.StructType, depth: int) -> st.SearchStrategy[Any]:
    fields: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for field in kind.fields:
        values = _values(field.type, field.name, depth + 1)
        (fields if field.required else optional)[field.name] = values
    given = st.fixed_dictionaries(fields, optional=optional)
    return given.map(lambda values: kind.cls(**values))


def _texts_within(kind: shape.StrType, field: str) -> st.SearchStrategy[str]:
    if kind.pattern is not None:
        return st.from_regex(kind.pattern.replace("$", r"\Z"), fullmatch=False).filter(
            lambda text: kind.max_length is None or len(text) <= kind.max_length
        )
    return texts(field).map(
        lambda text: (text[: kind.max_length] or "x") if kind.min_length else text[: kind.max_length]
    )


def _clamped(value: Any, kind: shape.IntType | shape.FloatType) -> Any:
    if kind.ge is not None and value < kind.ge:
        value = kind.ge
    if kind.le is not None and value > kind.le:
        value = kind.le
    return float(value) if isinstance(kind, shape.FloatType) else value
