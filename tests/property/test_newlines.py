"""A name that ends in a newline is refused anywhere in a request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec.inspect as shape
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxy.errors import BadMessage
from galaxy.model.api.catalog import BODIES
from galaxy.model.base import WIRE_VERSION, encode
from galaxy.nexus.envelope import Payload
from galaxy.tasks.handlers import read_request
from tests.property.effort import examples
from tests.property.hostile_messages import hostile


def has_pattern(kind: shape.Type) -> bool:
    if isinstance(kind, shape.StrType):
        return kind.pattern is not None and "$" in kind.pattern
    inner = (getattr(kind, name, None) for name in ("type", "item_type", "key_type", "value_type"))
    every = [*inner, *getattr(kind, "types", ()), *(field.type for field in getattr(kind, "fields", ()))]
    return any(has_pattern(one) for one in every if isinstance(one, shape.Type))


def with_newlines(tree: Any, kind: shape.Type) -> Iterator[Any]:
    """Yield ``tree`` once for each text with a pattern in it, with a newline appended to that text."""
    if isinstance(kind, shape.Metadata):
        yield from with_newlines(tree, kind.type)
    elif isinstance(kind, shape.UnionType):
        for one in kind.types:
            yield from with_newlines(tree, one)
    elif isinstance(kind, shape.StrType) and isinstance(tree, str) and has_pattern(kind):
        yield f"{tree}\n"
    elif isinstance(kind, shape.VarTupleType) and isinstance(tree, list):
        for at, item in enumerate(tree):
            yield from ([*tree[:at], one, *tree[at + 1 :]] for one in with_newlines(item, kind.item_type))
    elif isinstance(kind, shape.DictType) and isinstance(tree, dict):
        for key, item in tree.items():
            yield from ({**tree, key: one} for one in with_newlines(item, kind.value_type))
            yield from ({**tree, one: item} for one in with_newlines(key, kind.key_type))
    elif isinstance(kind, shape.StructType) and isinstance(tree, dict):
        for field in kind.fields:
            if field.encode_name in tree:
                for one in with_newlines(tree[field.encode_name], field.type):
                    yield {**tree, field.encode_name: one}


OPS_WITH_NAMES = sorted(op for op, kind in BODIES.items() if has_pattern(shape.type_info(kind)))


def test_requests_about_jobs_users_and_secrets_have_names() -> None:
    assert {"galaxy.job.submit", "galaxy.job.update", "galaxy.user.add", "galaxy.secret.set"} < set(
        OPS_WITH_NAMES
    )


@pytest.mark.parametrize("op", OPS_WITH_NAMES)
@examples(15)
@given(data=st.data())
def test_request_with_a_newline_at_the_end_of_any_name_is_refused(op: str, data: st.DataObject) -> None:
    kind = BODIES[op]
    tree = json.loads(encode(data.draw(hostile(kind))))
    request = {"op": op, "key": "k", "reply": "r", "deadline_s": 1.0}
    read_request(op, WIRE_VERSION, Payload(encode({**request, "body": tree})))
    for one in with_newlines(tree, shape.type_info(kind)):
        with pytest.raises(BadMessage):
            read_request(op, WIRE_VERSION, Payload(encode({**request, "body": one})))
