"""A message decodes to a struct that can be stored and read back, or it raises ``BadMessage``."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxy.errors import BadMessage
from galaxy.model.api.catalog import BODIES
from galaxy.model.api.request import Request
from galaxy.model.api.sessions import ExecSession, LogSession
from galaxy.model.base import WIRE_VERSION, Struct, decode, encode, to_plain
from galaxy.model.messages.agent import AgentReport
from galaxy.model.messages.container import ContainerOrders, GroupOrders, GroupStatuses
from galaxy.model.messages.pod import PodOrders
from galaxy.model.messages.worker import FromWorker, ToWorker
from galaxy.nexus.envelope import Payload, read
from galaxy.tasks.handlers import read_request
from tests.property.effort import examples
from tests.property.hostile_messages import NASTY, NUMBERS, hostile

KINDS: tuple[type[Struct], ...] = (
    GroupOrders, GroupStatuses, ContainerOrders, PodOrders, AgentReport, ExecSession, LogSession,
)  # fmt: skip
STRANGE = st.one_of(
    st.sampled_from(
        [float("nan"), float("inf"), float("-inf"), "\ud800", "x\udfff", None, True, [], {}, [[]], 1.5]
    ),
    st.sampled_from(NUMBERS),
    st.sampled_from(NASTY),
)


def payload(plain: Any) -> Payload:
    """Return the payload of ``plain``; Python's encoder also writes NaN and infinity, which JSON lacks."""
    return Payload(json.dumps(plain).encode())


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = (
        tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    )
    return [path, *(place for step, item in inner for place in places(item, (*path, step)))]


def put(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return ``tree`` with ``value`` at ``path``."""
    if not path:
        return value
    step, *rest = path
    if isinstance(tree, dict):
        return {**tree, step: put(tree[step], tuple(rest), value)}
    return [put(item, tuple(rest), value) if at == step else item for at, item in enumerate(tree)]


@st.composite
def corrupted(draw: st.DrawFn, kind: type[Struct]) -> Any:
    """Draw a struct as plain values, one to three of which are replaced by absurd values."""
    tree = json.loads(encode(draw(hostile(kind))))
    for _ in range(draw(st.integers(1, 3))):
        tree = put(tree, draw(st.sampled_from(places(tree))), draw(STRANGE))
    return tree


@examples(100)
@given(st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(st.just(kind), corrupted(kind))))
def test_message_with_absurd_values_is_refused_or_read_back_unchanged(
    drawn: tuple[type[Struct], Any],
) -> None:
    kind, tree = drawn
    try:
        struct = read(WIRE_VERSION, payload(tree), kind)
    except BadMessage:
        return
    assert decode(encode(struct), kind) == struct


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_number_that_json_does_not_have_is_refused(number: str) -> None:
    task = f'{{"name": "main", "state": "failed", "last_exit": {{"at_s": {number}}}}}'
    pod = f'{{"pod": "a.0", "incarnation": 1, "generation": 1, "state": "failed", "tasks": [{task}]}}'
    body = f'{{"agent": "h1", "boot": "b", "serial": 1, "pods": [{pod}]}}'
    with pytest.raises(BadMessage):
        read(WIRE_VERSION, Payload(body.encode()), AgentReport)
    with pytest.raises(BadMessage):
        read(WIRE_VERSION, payload(json.loads(body)), AgentReport)


def test_half_of_a_surrogate_pair_is_refused_in_every_spelling() -> None:
    report = {"agent": "\ud800", "boot": "b", "serial": 1}
    for text in (
        json.dumps(report).encode(),
        json.dumps(report, ensure_ascii=False).encode("utf-8", "surrogatepass"),
    ):
        with pytest.raises(BadMessage):
            read(WIRE_VERSION, Payload(text), AgentReport)


@examples(60)
@given(st.sampled_from(sorted(BODIES)).flatmap(lambda op: st.tuples(st.just(op), corrupted(BODIES[op]))))
def test_request_with_absurd_values_is_refused_or_read_back_unchanged(drawn: tuple[str, Any]) -> None:
    op, tree = drawn
    plain = {"op": op, "key": "k", "reply": "r", "deadline_s": 1.0, "body": tree}
    try:
        request = read_request(op, WIRE_VERSION, payload(plain))
    except BadMessage:
        return
    assert decode(encode(request.body), BODIES[op]) == request.body


@examples(300)
@given(
    st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")),
    st.data(),
)
def test_any_bytes_are_a_struct_or_a_bad_message(data: bytes, draw: st.DataObject) -> None:
    for kind in (*KINDS, Request, FromWorker, ToWorker):
        try:
            decode(data, kind)  # type: ignore[arg-type]
        except BadMessage as error:
            assert str(error)
    for version in (WIRE_VERSION, None, True, "2", 2.0, 1):
        try:
            read(version, Payload(data), AgentReport)
        except BadMessage:
            continue


@examples(60)
@given(st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(st.just(kind), hostile(kind))), st.data())
def test_message_cut_or_spliced_anywhere_is_refused_or_a_valid_struct(
    drawn: Any, data: st.DataObject
) -> None:
    kind, struct = drawn
    wire = encode(struct)
    at = data.draw(st.integers(0, len(wire)))
    inserted = data.draw(
        st.sampled_from([b"", b"\x00", b"\xff", b"{", b'"', b"[" * 3000, b",", b"1e999", wire])
    )
    cut = wire[:at] + inserted + wire[at + data.draw(st.integers(0, 3)) :]
    try:
        read_back = decode(cut, kind)
    except BadMessage:
        return
    assert decode(encode(read_back), kind) == read_back
    assert to_plain(read_back) is not None
