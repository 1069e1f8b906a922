"""Parse a job file's tree into a ``JobSpec``, or report every problem at once.

The parser walks the tree along the types of ``galaxy.model.jobspec.spec``. A bad value does not stop it:
a placeholder takes its place, so that rules over several fields still see the rest. Diagnostics
about the placeholder itself are left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple, cast

import msgspec.inspect as shape

from galaxy.model.base import Struct, matches
from galaxy.model.jobspec import rules
from galaxy.model.jobspec.diagnostics import Diagnostic, Path, spec_error
from galaxy.model.jobspec.scalars import as_text, written
from galaxy.model.jobspec.shorthand import SHORT_FORMS, SHORTHANDS, UNITS, Unit, parse_number, split_words
from galaxy.model.jobspec.spec import COMMA_LISTS, DeploySpec, JobSpec
from galaxy.model.redaction import without_credentials
from galaxy.model.stored.secret import EnvFrom
from galaxy.suggest import nearest
from galaxy.units import format_bytes, format_cpu, format_duration

UNSUPPORTED_FIELDS: Final[Mapping[str, str]] = {
    "volum_jobs": "sharing the volumes of other jobs",
    "volume_jobs": "sharing the volumes of other jobs",
    "schedule": "running on a schedule; until then, `galaxy job run --wait` from cron",
    "rootfs": "a custom root file system",
    "breakpoints": "pausing a rollout at breakpoints",
}
"""Fields that a later version implements. They are refused by name wherever they appear."""

SYNONYMS: Final[Mapping[str, str]] = {
    "replicas": "replica", "mem": "memory", "start_cmd": "start", "stop_cmd": "stop",
    "command": "start", "cmd": "start", "health_cmd": "health", "reload_cmd": "reload",
    "dest_path": "path", "source_path": "source", "exec_package": "package",
    "data_package": "data", "data_volums": "volumes", "workspace_volum": "workspace",
    "tcp": "network", "service_name": "name", "port_name": "port", "environment": "env",
    "url": "source", "checksum": "sha256", "hash": "sha256", "tags": "tag", "pool": "pools",
}  # fmt: skip
"""Other names of our fields, from Galaxy 3 and from other systems."""

NUMBER_MAX: Final = 1 << 62
"""Upper bound of every number in a job file; larger ones are refused in every field."""


class ParseResult(NamedTuple):
    """``spec`` is usable only when there are no ``diagnostics``."""

    spec: JobSpec
    diagnostics: tuple[Diagnostic, ...]


def load(tree: Any) -> JobSpec:
    """Return the job that ``tree`` (dicts, lists, text, numbers) describes. It comes from no file.

    Raises:
        SpecError: ``details`` lists every problem, by field.
    """
    result = parse(tree)
    if result.diagnostics:
        name = tree.get("name") if isinstance(tree, dict) else None
        raise spec_error(result.diagnostics, label=f'job "{name}"' if isinstance(name, str) else "the job")
    return result.spec


def parse(tree: Any) -> ParseResult:
    """Parse as much of ``tree`` as possible and collect all problems."""
    parser = _Parser()
    spec = cast(JobSpec, parser.value(tree, _job_shape(), (), Unit.COUNT))
    unparsed = {diagnostic.path for diagnostic in parser.diagnostics} | parser.replaced
    rule_diagnostics = [
        diagnostic for diagnostic in rules.diagnostics(spec) if not _concerns_unparsed(diagnostic, unparsed)
    ]
    return ParseResult(spec, (*parser.diagnostics, *rule_diagnostics))


def _concerns_unparsed(diagnostic: Diagnostic, unparsed: set[Path]) -> bool:
    """Return whether ``diagnostic`` concerns a field that could not be parsed."""
    if any(diagnostic.path[:end] in unparsed for end in range(len(diagnostic.path) + 1)):
        return True
    return any(path[: len(about)] == about[: len(path)] for about in diagnostic.about for path in unparsed)


@cache
def _job_shape() -> shape.Type:
    return shape.type_info(JobSpec)


@cache
def _field_paths() -> Mapping[str, tuple[str, ...]]:
    """Return, by field name, the paths at which that field is allowed."""
    paths: dict[str, list[str]] = {}

    def visit(kind: shape.Type, inside: str) -> None:
        kind = _plain(kind)
        if isinstance(kind, shape.VarTupleType):
            visit(kind.item_type, f"{inside}[]")
        if isinstance(kind, shape.StructType):
            for field in kind.fields:
                path = f"{inside}.{field.name}" if inside else field.name
                paths.setdefault(field.name, []).append(path)
                visit(field.type, path)

    visit(_job_shape(), "")
    return {name: tuple(found) for name, found in paths.items()}


def _plain(kind: shape.Type) -> shape.Type:
    """Return the type without metadata, and without the None of an optional field."""
    while isinstance(kind, shape.Metadata):
        kind = kind.type
    if isinstance(kind, shape.UnionType):
        return _plain(next(one for one in kind.types if not isinstance(one, shape.NoneType)))
    return kind


class _Parser:
    """One pass over one tree. ``replaced`` has the paths whose values are placeholders."""

    def __init__(self) -> None:
        self.diagnostics: list[Diagnostic] = []
        self.replaced: set[Path] = set()

    def value(self, value: Any, kind: shape.Type, path: Path, unit: Unit) -> Any:
        """Return ``value`` as ``kind``, or add a diagnostic and return a placeholder."""
        kind = _plain(kind)
        if isinstance(kind, shape.StructType):
            return self._struct(value, kind, path)
        if isinstance(kind, shape.VarTupleType):
            return self._list(value, kind, path)
        if isinstance(kind, shape.DictType):
            return self._map(value, kind, path)
        if isinstance(kind, shape.EnumType):
            return self._choice(value, kind, path)
        if isinstance(kind, shape.BoolType):
            if isinstance(value, bool):
                return value
            return self._reject(path, f"must be true or false, not {_shown(value)}", False)
        if isinstance(kind, shape.StrType):
            return self._text(value, kind, path)
        assert isinstance(kind, shape.IntType | shape.FloatType), kind
        return self._number(value, kind, path, unit)

    def _reject(self, path: Path, text: str, placeholder: Any) -> Any:
        self.diagnostics.append(Diagnostic(path, text))
        self.replaced.add(path)
        return placeholder

    def _struct(self, value: Any, kind: shape.StructType, path: Path) -> Struct:
        cls = cast("type[Struct]", kind.cls)
        given = value
        try:
            value = SHORTHANDS.get(cls, lambda same: same)(value)
        except (ValueError, OverflowError) as error:
            self._reject(path, _limited(str(error)), None)
            value = None
        if not isinstance(value, dict):
            if value is not None or given is None:
                self._reject(path, f"must {_struct_form(kind)}, not {_shown(given)}", None)
            return _placeholder(kind)
        known = {field.name: field for field in kind.fields}
        meant = set()
        for name in value:
            if name not in known:
                meant.add(_guess(name, tuple(known)))
                self.diagnostics.append(_unknown(name, tuple(known), path))
        fields: dict[str, Any] = {}
        for name, field in known.items():
            here = (*path, name)
            if name in value and not (value[name] is None and not field.required):
                written = (
                    split_words(value[name]) if cls is DeploySpec and name in COMMA_LISTS else value[name]
                )
                fields[name] = self.value(written, field.type, here, UNITS.get((cls, name), Unit.COUNT))
            elif field.required:
                fields[name] = _smallest_value(field.type)
                self.replaced.add(here)
                if name not in meant:
                    self.diagnostics.append(Diagnostic(here, "is missing"))
        return cls(**fields)

    def _list(self, value: Any, kind: shape.VarTupleType, path: Path) -> tuple[Any, ...]:
        if not isinstance(value, list):
            return cast("tuple[Any, ...]", self._reject(path, f"must be a list, not {_shown(value)}", ()))
        most = kind.max_length
        if most is not None and len(value) > most:
            self.diagnostics.append(Diagnostic(path, f"has {len(value)} entries; {most} are allowed"))
            value = value[:most]
        if kind.min_length and len(value) < kind.min_length:
            self._reject(path, f"needs at least {kind.min_length} entry", ())
        return tuple(
            self.value(item, kind.item_type, (*path, index), Unit.COUNT) for index, item in enumerate(value)
        )

    def _map(self, value: Any, kind: shape.DictType, path: Path) -> dict[str, Any]:
        if not isinstance(kind.value_type, shape.StructType):
            return dict(self._texts(value, path))
        if not isinstance(value, dict):
            self._reject(path, f"must be names with values, not {_shown(value)}", None)
            return {}
        parsed = {}
        for name, given in value.items():
            if isinstance(name, str):
                parsed[self._unicode(name, path)] = self.value(
                    given, kind.value_type, (*path, name), Unit.COUNT
                )
            else:
                self._reject((*path, str(name)), "is not a name: it must be text", None)
        return parsed

    def _texts(self, value: Any, path: Path) -> dict[str, str | EnvFrom]:
        if not isinstance(value, dict):
            self._reject(path, f"must be names with values, not {_shown(value)}", None)
            return {}
        texts: dict[str, str | EnvFrom] = {}
        for name, given in value.items():
            here = (*path, str(name))
            text = as_text(given)
            if not isinstance(name, str):
                self._reject(here, "is not the name of a variable: it must be text", None)
            elif text is not None:
                texts[name] = self._unicode(text, here)
            elif isinstance(given, dict):
                texts[name] = self._env_from(given, here)
            else:
                self._reject(here, f"must be text, not {_shown(given)}; {_quoting(given)}", None)
        return texts

    def _env_from(self, value: dict[Any, Any], path: Path) -> EnvFrom:
        """Parse ``{file: PATH}`` or ``{secret: NAME}``."""
        known = ("file", "secret")
        sources = {}
        for name, given in value.items():
            text = as_text(given)
            if name not in known:
                self._reject(path, "", None)
                self.diagnostics[-1] = _unknown(name, known, path)
            elif text is not None:
                sources[name] = self._unicode(text, (*path, name))
            else:
                message = f"must be text, not {_shown(given)}; {_quoting(given)}"
                self._reject((*path, name), message, None)
        return EnvFrom(file=sources.get("file", ""), secret=sources.get("secret", ""))

    def _choice(self, value: Any, kind: shape.EnumType, path: Path) -> Any:
        members = [member.value for member in kind.cls]
        if isinstance(value, str) and value in members:
            return kind.cls(value)
        return self._reject(path, _not_one_of(value, members), next(iter(kind.cls)))

    def _text(self, value: Any, kind: shape.StrType, path: Path) -> str:
        given = as_text(value)
        if given is None:
            self._reject(path, f"must be text, not {_shown(value)}; {_quoting(value)}", None)
            return ""
        text = self._unicode(given, path)
        if path in self.replaced:
            return text
        if kind.min_length and len(text) < kind.min_length:
            self._reject(path, "must not be empty", None)
        elif kind.max_length is not None and len(text) > kind.max_length:
            self._reject(path, f"has {len(text)} characters; {kind.max_length} are allowed", None)
        elif kind.pattern is not None and not matches(text, kind.pattern):
            self._reject(path, _mismatch(text, kind.pattern), None)
        return text

    def _unicode(self, value: str, path: Path) -> str:
        """Reject unpaired surrogates, which JSON can express but UTF-8 cannot."""
        if value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value):
            return value
        self._reject(path, "is not text: half of a surrogate pair", None)
        return ""

    def _number(self, value: Any, kind: shape.IntType | shape.FloatType, path: Path, unit: Unit) -> Any:
        try:
            number = parse_number(value, unit)
        except (ValueError, OverflowError) as error:
            return self._reject(path, _limited(str(error)), 0)
        if isinstance(number, int) and abs(number) >= NUMBER_MAX:
            return self._reject(path, "is out of range", 0)
        if not math.isfinite(number):
            return self._reject(path, f"must be finite, not {number}", 0)
        if kind.ge is not None and number < kind.ge:
            return self._reject(path, f"{_with_unit(number, unit)} is below the minimum of "
                                   f"{_with_unit(kind.ge, unit)}", number)  # fmt: skip
        if kind.le is not None and number > kind.le:
            return self._reject(path, f"{_with_unit(number, unit)} is above the maximum of "
                                   f"{_with_unit(kind.le, unit)}", number)  # fmt: skip
        return number


def _unknown(name: Any, known: Sequence[str], path: Path) -> Diagnostic:
    here = (*path, str(name))
    if name in UNSUPPORTED_FIELDS:
        return Diagnostic(here, f"not supported yet: {UNSUPPORTED_FIELDS[name]}", unsupported=True)
    guess = _guess(name, known)
    if guess:
        return Diagnostic(here, f"unknown field; did you mean `{guess}`?")
    elsewhere = _field_paths().get(str(name), ())
    if elsewhere:
        return Diagnostic(here, f"unknown field here; it belongs at `{elsewhere[0]}`")
    return Diagnostic(here, f"unknown field; known here: {', '.join(known)}")


def _guess(name: Any, known: Sequence[str]) -> str:
    synonym = SYNONYMS.get(str(name), "")
    return synonym if synonym in known else nearest(str(name), known)


def _not_one_of(value: Any, choices: Sequence[str]) -> str:
    guess = nearest(value, choices) if isinstance(value, str) else ""
    hint = f"; did you mean `{guess}`?" if guess else f"; one of {', '.join(choices)}"
    return f"{_shown(value)} is not known{hint}"


def _mismatch(value: str, pattern: str) -> str:
    """Explain which values ``pattern`` allows."""
    choices = re.fullmatch(r"\^\(([a-z|-]+)\)\$", pattern)
    if choices:
        return _not_one_of(value, choices[1].split("|"))
    if pattern == "^/":
        return f"{_shown(value)} must be an absolute path"
    if "0-9a-f" in pattern:
        return f"{_shown(value)} is not a SHA-256: 64 hex digits, lower case"
    longest = re.search(r"\{0,(\d+)\}", pattern)
    length = int(longest[1]) + (2 if pattern.endswith(")?$") else 1) if longest else 64
    allowed = "letters, digits, `-` and `_`" if "A-Z" in pattern else "lower-case letters, digits and `-`"
    return f"{_shown(value)} is not a name: {allowed}, a letter first, {length} characters at most"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "fields"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return f'"{_limited(value)}"'
    return "nothing" if value is None else _limited(written(value))


def _quoting(value: Any) -> str:
    """Explain how to write ``value`` as text; YAML and TOML parse 1.0 and true as other types."""
    if value is None:
        return 'write "" for empty text'
    return "write one value" if isinstance(value, dict | list) else "put it in quotes"


def _struct_form(kind: shape.StructType) -> str:
    """Explain how a part of the file that has fields is written: its shorthand, and its fields."""
    fields = ", ".join(field.name for field in kind.fields)
    short = SHORT_FORMS.get(cast("type[Struct]", kind.cls))
    return f"be {short}, or have fields ({fields})" if short else f"have fields of its own ({fields})"


def _limited(text: str) -> str:
    """Make text from the file one readable line of a diagnostic, without credentials of URLs."""
    flat = "".join(letter if letter.isprintable() else "?" for letter in without_credentials(text))
    return flat if len(flat) <= 120 else f"{flat[:117]}..."


def _with_unit(number: float, unit: Unit) -> str:
    if unit is Unit.BYTES:
        return format_bytes(int(number))
    if unit is Unit.MILLICORES:
        text = format_cpu(int(number))
        return text if text.endswith("m") else f"{text} cores"
    if unit is Unit.SECONDS:
        return format_duration(number)
    return f"{number:g}" if isinstance(number, float) else str(number)


def _smallest_value(kind: shape.Type) -> Any:
    """Return a placeholder for a missing value: the smallest value of its type."""
    kind = _plain(kind)
    if isinstance(kind, shape.StructType):
        return _placeholder(kind)
    if isinstance(kind, shape.EnumType):
        return next(iter(kind.cls))
    blanks: tuple[tuple[type[shape.Type], Any], ...] = (
        (shape.StrType, ""), (shape.VarTupleType, ()), (shape.BoolType, False),
        (shape.IntType, 0), (shape.FloatType, 0.0),
    )  # fmt: skip
    return next(blank for type_, blank in blanks if isinstance(kind, type_))


def _placeholder(kind: shape.StructType) -> Struct:
    fields = {field.name: _smallest_value(field.type) for field in kind.fields if field.required}
    return cast("type[Struct]", kind.cls)(**fields)
