"""YAML by its 1.2 core schema: PyYAML parses nodes with positions, and a few rules read the values."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from galaxy.client.source.syntax import DEPTH_MAX, TOO_DEEP, Marks, SyntaxDiagnostic
from galaxy.model.jobspec.diagnostics import Mark, Path
from galaxy.model.jobspec.scalars import fraction, whole_number

NODES_MAX: Final = 20_000
"""Values after aliases are expanded, so that a few lines cannot become billions of values."""

_INT: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
_FLOAT: Final = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]{1,3})?")
_CONSTANTS: Final = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


def parse_yaml(text: str) -> tuple[Any, Callable[[], Marks]]:
    """Return the one document in ``text``, and a function that returns its positions.

    Raises:
        SyntaxDiagnostic: it is not YAML, or uses what a job file does not need.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        context = f"{error.context}: " if error.context else ""
        raise SyntaxDiagnostic(_mark(mark), f"{context}{error.problem or 'not YAML'}") from error
    except yaml.YAMLError as error:
        raise SyntaxDiagnostic(Mark(1, 1), str(error).splitlines()[0]) from error
    except RecursionError as error:
        raise SyntaxDiagnostic(Mark(1, 1), TOO_DEEP) from error
    if node is None:
        raise SyntaxDiagnostic(Mark(1, 1), "is empty")
    reader = _Reader()
    tree = reader.value(node, ())
    return tree, lambda: reader.marks


def write_yaml(tree: Any) -> str:
    """Return ``tree`` as YAML that means the same to ``parse_yaml`` and to readers of YAML 1.1."""
    return str(yaml.dump(tree, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=100))


class _Loader(yaml.SafeLoader):
    """Refuses every tag: ``!!str 1`` and ``!!int "1"`` are not read as they say."""

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise SyntaxDiagnostic(_mark(event.start_mark), f"tag `{tag}` is not read; put text in quotes")
        node: Node | None = super().compose_node(parent, index)
        return node


class _Writer(yaml.SafeDumper):
    """Also quotes texts that are numbers in the core schema but not in YAML 1.1, like ``1e3``."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


_Writer.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(f"(?:{_FLOAT.pattern})$"), list("-+.0123456789")
)


class _Reader:
    """Turns nodes into a tree, and collects the positions."""

    def __init__(self) -> None:
        self.marks: Marks = {}
        self._count = 0

    def value(self, node: Node, path: Path) -> Any:
        self._count += 1
        self.marks.setdefault(path, _mark(node.start_mark))
        if self._count > NODES_MAX:
            raise SyntaxDiagnostic(_mark(node.start_mark), f"more than {NODES_MAX} values, aliases expanded")
        if len(path) > DEPTH_MAX:
            raise SyntaxDiagnostic(_mark(node.start_mark), TOO_DEEP)
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, ScalarNode)
        return _scalar(node)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, ScalarNode):
                raise SyntaxDiagnostic(_mark(key.start_mark), "a field's name must be text")
            name = key.value
            if name == "<<" and key.style is None:
                raise SyntaxDiagnostic(
                    _mark(key.start_mark), "merge keys (`<<`) are not read; write them out"
                )
            if name in tree:
                first = self.marks[(*path, name)].line
                raise SyntaxDiagnostic(
                    _mark(key.start_mark), f"`{name}` is given twice, first in line {first}"
                )
            self.marks[(*path, name)] = _mark(key.start_mark)
            tree[name] = self.value(item, (*path, name))
        return tree


def _scalar(node: ScalarNode) -> Any:
    """Return a scalar by the core schema; quoted text and block text stay text."""
    text: str = node.value
    if node.style is not None:
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text):
        return whole_number(int(text), text)
    return fraction(float(text), text) if _FLOAT.fullmatch(text) else text


def _mark(mark: Any) -> Mark:
    return Mark(mark.line + 1, mark.column + 1) if mark is not None else Mark(1, 1)
