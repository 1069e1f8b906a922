"""YAML, by its core schema and with positions: nodes from PyYAML, values by our own few rules."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from galaxy.client.source.job_file import DEPTH_MAX, SyntaxDiagnostic
from galaxy.model.jobspec.diagnostics import Mark, Path

NODES_MAX: Final = 20_000
"""Values after aliases are written out, so that a few lines cannot become billions."""

_INT: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
_FLOAT: Final = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]{1,3})?")
_WORDS: Final = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


def parse_yaml(text: str) -> tuple[Any, dict[Path, Mark]]:
    """Return the one document in ``text`` and where everything in it is.

    Raises:
        SyntaxFlaw: it is not YAML, or uses what a job file does not need.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        context = f"{error.context}: " if error.context else ""
        raise SyntaxDiagnostic(_mark(mark), f"{context}{error.problem or 'not YAML'}") from error
    except yaml.YAMLError as error:
        raise SyntaxDiagnostic(Mark(1, 1), str(error).splitlines()[0]) from error
    except RecursionError as error:
        raise SyntaxDiagnostic(Mark(1, 1), f"more than {DEPTH_MAX} levels within each other") from error
    if node is None:
        raise SyntaxDiagnostic(Mark(1, 1), "is empty")
    reader = _Reader()
    return reader.value(node, ()), reader.marks


def _mark(mark: Any) -> Mark:
    return Mark(mark.line + 1, mark.column + 1) if mark is not None else Mark(1, 1)


def write_yaml(tree: Any) -> str:
    """Return ``tree`` as YAML that ``parse_yaml`` and any other reader of YAML read alike."""
    return str(yaml.dump(tree, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=100))


class _Writer(yaml.SafeDumper):
    """Quotes what the core schema takes for a number too, which YAML 1.1 does not: ``1e3``."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


_Writer.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(f"(?:{_FLOAT.pattern})$"), list("-+.0123456789")
)


class _Reader:
    def __init__(self) -> None:
        self.marks: dict[Path, Mark] = {}
        self._count = 0

    def value(self, node: Node, path: Path) -> Any:
        self._count += 1
        self.marks.setdefault(path, _mark(node.start_mark))
        if self._count > NODES_MAX:
            raise SyntaxDiagnostic(
                _mark(node.start_mark), f"more than {NODES_MAX} values, aliases written out"
            )
        if len(path) > DEPTH_MAX:
            raise SyntaxDiagnostic(_mark(node.start_mark), f"more than {DEPTH_MAX} levels within each other")
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            _known_tag(node, "seq")
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, ScalarNode)
        return _scalar(node)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        _known_tag(node, "map")
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


def _known_tag(node: Node, kind: str) -> None:
    if node.tag != f"tag:yaml.org,2002:{kind}":
        raise SyntaxDiagnostic(_mark(node.start_mark), f"tag `{node.tag}` is not read")


def _scalar(node: ScalarNode) -> Any:
    """Return a scalar by the core schema; quoted or in a block it is text whatever it looks like."""
    text: str = node.value
    tag = node.tag.removeprefix("tag:yaml.org,2002:")
    if tag not in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value"):
        raise SyntaxDiagnostic(_mark(node.start_mark), f"tag `{node.tag}` is not read")
    if node.style is not None:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
