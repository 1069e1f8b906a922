"""Checks the types of arguments of the SDK's methods, so that a mistake is named where it is made.

Without it, ``submit(None)`` fails somewhere inside, or a leader refuses a message that nobody recognises.
"""

from __future__ import annotations

import functools
import inspect
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, TypeVar

from galaxy.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)

_NAMES: Final[dict[Any, str]] = {
    str: "a text", bytes: "bytes", bool: "True or False", int: "a whole number", float: "a number",
    type(None): "None", os.PathLike: "a path", Mapping: "a dict", dict: "a dict", Sequence: "a list",
    Iterable: "a list", tuple: "a list", list: "a list",
}  # fmt: skip


class ArgumentError(UsageError, TypeError):
    """An argument of the wrong type. It is a ``TypeError`` too, as Python's own functions raise."""


def checks_arguments(cls: C) -> C:
    """Decorate a class as ``check_methods`` does, and return it."""
    check_methods(cls)
    return cls


def check_methods(cls: type) -> None:
    """Have the constructor and every public method that ``cls`` defines check the types of its arguments."""
    for name, member in list(vars(cls).items()):
        if inspect.isfunction(member) and (name == "__init__" or not name.startswith("_")):
            setattr(cls, name, _checked(member, cls.__name__ if name == "__init__" else name))


def _checked(function: F, name: str) -> F:
    hints: dict[str, Any] = {}
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*given: Any, **named: Any) -> Any:
        if not hints:
            hints.update(typing.get_type_hints(function))
        try:
            bound = signature.bind(*given, **named)
        except TypeError:
            return function(*given, **named)  # Python's own error names the argument and the method.
        for argument, value in bound.arguments.items():
            hint = hints.get(argument, Any)
            if argument != "self" and not _fits(value, hint):
                raise ArgumentError(
                    f"`{argument}` of {name}() is {_described(hint)}, not {_shown(value)}",
                )
        return function(*given, **named)

    return typing.cast(F, checked)


def _fits(value: object, hint: Any) -> bool:
    """Return whether ``value`` may be an argument with this annotation."""
    if hint is Any or isinstance(hint, TypeVar):
        return True
    origin = typing.get_origin(hint) or hint
    parts = typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is Callable:
        return callable(value)
    if not isinstance(origin, type):
        return True
    if not isinstance(value, origin):
        return False
    if issubclass(origin, Mapping) and isinstance(value, Mapping):
        strict = bool(parts) and parts[1] is not Any  # Else what reads it has better words for it.
        return not strict or all(
            _fits(key, parts[0]) and _fits(each, parts[1]) for key, each in value.items()
        )
    if issubclass(origin, Iterable) and parts and isinstance(value, tuple | list | set | frozenset):
        return all(_fits(each, parts[0]) for each in value)
    return not (isinstance(value, bytes) and origin is not bytes)  # Bytes are a sequence, but no list.


def _described(hint: Any) -> str:
    """Return what an annotation allows, in words."""
    origin, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        names = list(dict.fromkeys(_described(part) for part in parts))
        return " or ".join(names)
    if origin is Callable:
        return "a function"
    name = _NAMES.get(origin) or getattr(origin, "__name__", str(origin))
    if name == "a list" and parts:
        return f"a list, each {_described(parts[0])}"
    if isinstance(origin, type) and issubclass(origin, Enum):
        return " or ".join(repr(member.value) for member in origin)
    return str(name)


def _shown(value: object) -> str:
    """Return a short description of a value; texts may be secrets, so only their type is named."""
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        kinds = dict.fromkeys(type(each).__name__ for each in value)
        return (
            f"{type(value).__name__} of {', '.join(kinds)}" if kinds else f"an empty {type(value).__name__}"
        )
    return type(value).__name__
