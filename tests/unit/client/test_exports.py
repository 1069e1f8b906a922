"""What ``galaxy.client`` exports: everything that its methods return and raise, with docstrings."""

from __future__ import annotations

import inspect
import pydoc
import typing

import msgspec
import pytest

import galaxy.client
from galaxy import errors
from galaxy.client import sdk


@pytest.mark.parametrize("name", galaxy.client.__all__)
def test_exported_name_exists_and_has_a_docstring(name: str) -> None:
    assert inspect.getdoc(getattr(galaxy.client, name))


def test_every_struct_that_a_method_returns_is_exported() -> None:
    exported = {getattr(galaxy.client, name) for name in galaxy.client.__all__}
    for name, method in inspect.getmembers(sdk.Galaxy, inspect.isfunction):
        if name.startswith("_"):
            continue
        returned = typing.get_type_hints(method)["return"]
        for kind in (returned, *typing.get_args(returned)):
            if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                assert kind in exported, f"{name} returns {kind.__name__}"


def test_every_error_that_reaches_a_caller_is_exported() -> None:
    inside = {"HostError", "NotLeader", "BadMessage", "KeyConflict"}
    kinds = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__module__ == errors.__name__
    }
    assert kinds - inside <= set(galaxy.client.__all__)


def test_every_public_method_has_a_docstring_and_complete_types() -> None:
    for name, method in inspect.getmembers(sdk.Galaxy, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.getdoc(method), name
            assert "return" in typing.get_type_hints(method), name


def test_help_shows_the_example_the_errors_and_the_views() -> None:
    text = pydoc.plain(pydoc.render_doc(galaxy.client))
    assert "with Galaxy() as galaxy:" in text
    assert "class TimedOut" in text
    assert "class JobView" in text


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Galxy"):
        getattr(galaxy.client, "Galxy")  # noqa: B009 - mypy knows that there is no such name
