"""Valid jobs are unchanged by writing and parsing; invalid values are named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galaxy.client.source.job_file import parse
from galaxy.client.source.yaml_format import write_yaml
from galaxy.model.base import decode, encode
from galaxy.model.jobspec import parsing, writing
from galaxy.model.jobspec.diagnostics import write_path
from galaxy.model.jobspec.schema import schema
from galaxy.model.jobspec.spec import JobSpec
from tests.unit.model.jobs import jobs

FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SCHEMA = jsonschema.Draft202012Validator(schema())


def written(spec: JobSpec) -> Any:
    """Return ``spec`` as a tree of plain numbers: bytes and millicores."""
    return json.loads(encode(spec))


@FEW
@given(jobs())
def test_valid_job_is_unchanged_in_every_format_and_satisfies_the_schema(spec: JobSpec) -> None:
    trees = (writing.to_tree(spec), written(spec))
    yaml = parse(write_yaml(trees[0]), name="x", format="yaml").tree
    tabbed = (parse(json.dumps(tree, indent="\t"), name="x", format="json").tree for tree in trees)
    for tree in (*trees, yaml, *tabbed):
        parsed = parsing.load(tree)
        assert parsed == spec
        assert decode(encode(parsed), JobSpec) == spec
    for tree in trees:
        SCHEMA.validate(tree)


def structures(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every struct in ``tree``; names of variables are not fields."""
    if isinstance(tree, dict):
        yield path
        for name, item in tree.items():
            if name != "env":
                yield from structures(item, (*path, name))
    if isinstance(tree, list):
        for index, item in enumerate(tree):
            yield from structures(item, (*path, index))


@FEW
@given(jobs(), st.data())
def test_unknown_field_is_named_at_every_place(spec: JobSpec, data: st.DataObject) -> None:
    tree = written(spec)
    path = data.draw(st.sampled_from(list(structures(tree))))
    place = tree
    for step in path:
        place = place[step]
    place["qqqq"] = 1
    diagnostics = parsing.parse(tree).diagnostics
    assert [write_path(diagnostic.path) for diagnostic in diagnostics] == [write_path((*path, "qqqq"))]
    assert not SCHEMA.is_valid(tree)


def leaves(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    if path and not isinstance(tree, dict | list):
        yield path
    for step, item in inner:
        yield from leaves(item, (*path, step))


@FEW
@given(jobs(), st.data())
def test_value_of_a_wrong_type_is_named_and_nothing_else_is(spec: JobSpec, data: st.DataObject) -> None:
    tree = written(spec)
    path = data.draw(st.sampled_from(list(leaves(tree))))
    place = tree
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = [{"of": "a wrong type"}]
    assert {write_path(diagnostic.path) for diagnostic in parsing.parse(tree).diagnostics} == {
        write_path(path)
    }


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "pod", "tasks", "cpu", "memory", "deploy", "x"]), inner)
    ),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(TREES)
def test_no_tree_makes_the_parser_raise(tree: Any) -> None:
    parsing.parse(tree)
