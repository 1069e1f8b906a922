"""JSON: parsed by the json module; when positions are needed, PyYAML finds them.

The json module does not report where a value was. JSON is nearly a subset of YAML, so PyYAML can
parse the same text into nodes with marks. ``_as_yaml`` removes the differences that matter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from galaxy.client.source.syntax import DEPTH_MAX, TOO_DEEP, Marks, SyntaxDiagnostic, depth_of
from galaxy.model.jobspec.diagnostics import Mark, Path
from galaxy.model.jobspec.scalars import fraction, whole_number

DIGITS_MAX: Final = 64
"""A longer number becomes text, as in YAML, which is then refused where a number is expected."""

_ESCAPE: Final = re.compile(r"\\u[0-9A-Fa-f]{4}")
_WHITESPACE: Final = re.compile(r"[\t\r]")
_NOT_IN_YAML: Final = re.compile("[^\\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd]")
"""Characters that YAML refuses or takes for line breaks. JSON allows them in strings only."""


class _Refused(Exception):
    """The json module accepts this, and we do not: a duplicate key or a constant like NaN."""


def parse_json(text: str) -> tuple[Any, Callable[[], Marks]]:
    """Return the value in ``text``, and a function that finds its positions; a tab is one column.

    Raises:
        SyntaxDiagnostic: it is not JSON, is too deep, or a key is given twice.
    """
    try:
        tree = json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_constant,
            parse_int=_whole_number,
            parse_float=_fraction,
        )
        if depth_of(tree) > DEPTH_MAX + 1:
            raise SyntaxDiagnostic(Mark(1, 1), TOO_DEEP)
    except json.JSONDecodeError as error:
        raise SyntaxDiagnostic(Mark(error.lineno, error.colno), error.msg) from error
    except RecursionError as error:
        raise SyntaxDiagnostic(Mark(1, 1), TOO_DEEP) from error
    except _Refused as error:
        raise _locate(str(error), text) from error
    return tree, partial(_find_marks, text, tree)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Refused(next(name for name in names if names.count(name) > 1))
    return fields


def _refuse_constant(name: str) -> Any:
    raise _Refused(name)


def _whole_number(digits: str) -> int | str:
    return whole_number(int(digits), digits) if len(digits) <= DIGITS_MAX else digits


def _fraction(digits: str) -> float | str:
    return fraction(float(digits), digits) if len(digits) <= DIGITS_MAX else digits


def _locate(name: str, text: str) -> SyntaxDiagnostic:
    """Return the error for the first duplicate key, or else the first constant, called ``name``."""
    nodes = list(_walk(_compose(text)))
    for node in nodes:
        if isinstance(node, MappingNode):
            marks = [_mark(key) for key, _ in node.value if key.value == name]
            if len(marks) > 1:
                return SyntaxDiagnostic(marks[1], f"`{name}` is given twice, first in line {marks[0].line}")
    constants = (
        node for node in nodes if isinstance(node, ScalarNode) and not node.style and node.value == name
    )
    constant = next(constants, None)
    if constant is not None:
        return SyntaxDiagnostic(_mark(constant), f"`{name}` is not a value of JSON")
    return SyntaxDiagnostic(Mark(1, 1), f"`{name}` is given twice")


def _find_marks(text: str, tree: Any) -> Marks:
    """Return the positions of everything in ``tree``, the value of ``text``; none if PyYAML refuses it."""
    marks: Marks = {(): Mark(1, 1)}
    node = _compose(text)
    if node is not None:
        _collect(node, tree, (), marks)
    return marks


def _collect(node: Node, tree: Any, path: Path, marks: Marks) -> None:
    """Walk nodes and tree side by side: they have the same shape, and only the tree has exact keys."""
    if isinstance(node, MappingNode):
        for (key, value), (name, item) in zip(node.value, tree.items(), strict=True):
            marks[(*path, name)] = _mark(key)
            _collect(value, item, (*path, name), marks)
    elif isinstance(node, SequenceNode):
        for index, (value, item) in enumerate(zip(node.value, tree, strict=True)):
            marks[(*path, index)] = _mark(value)
            _collect(value, item, (*path, index), marks)


def _walk(node: Node | None) -> Iterator[Node]:
    if node is None:
        return
    yield node
    if isinstance(node, MappingNode):
        for _, value in node.value:
            yield from _walk(value)
    elif isinstance(node, SequenceNode):
        for value in node.value:
            yield from _walk(value)


def _compose(text: str) -> Node | None:
    """Return the YAML nodes of JSON ``text``, or None where YAML's limits exclude it.

    For example, YAML limits keys to 1,024 characters on one line.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.compose(_as_yaml(text), Loader=loader)
    except (yaml.YAMLError, RecursionError):
        return None


def _as_yaml(text: str) -> str:
    """Replace, character by character, what YAML reads differently: positions stay as they are."""
    text = _WHITESPACE.sub(" ", text)
    text = _ESCAPE.sub(r"\\u0078", text)  # YAML refuses halves of surrogate pairs.
    return _NOT_IN_YAML.sub("?", text)


def _mark(node: Node) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)
