"""Declarations of operations match their functions, the SDK, the commands and the documents."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import typing
from pathlib import Path
from typing import Any

import click
import pytest

from galaxy.appmaster import stored_queries
from galaxy.appmaster.logic.api import requests as appmaster
from galaxy.cli.main import cli
from galaxy.client import Galaxy
from galaxy.model.api.body import Body
from galaxy.model.api.catalog import BODIES, bodies_of
from galaxy.model.api.cluster import ClusterStatus
from galaxy.model.messages.names import APPMASTER, RESMAN
from galaxy.operations.authz import ANY_USER
from galaxy.operations.declaration import Change, Operation, by_name, change, query
from galaxy.resman.logic.api import requests as resman

DECLARED: dict[str, Operation[Any]] = {
    **appmaster.OPERATIONS,
    **stored_queries.OPERATIONS,
    **resman.OPERATIONS,
}
SECURITY = Path(__file__).parents[3] / "docs" / "security.md"


def documented() -> dict[str, list[str]]:
    """Return the cells of each row of the table of operations in docs/security.md, by operation."""
    rows = [
        line.strip("| \n").split(" | ") for line in SECURITY.read_text().splitlines() if "| `galaxy." in line
    ]
    return {row[0].strip("`"): row[1:] for row in rows}


def sdk_methods() -> dict[str, set[str]]:
    """Return the public methods of ``Galaxy`` that send each body, by the name of its class."""
    methods: dict[str, set[str]] = {}
    for name, method in inspect.getmembers(Galaxy, inspect.isfunction):
        if not name.startswith("_"):
            for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(method)))):
                if isinstance(node, ast.Name):
                    methods.setdefault(node.id, set()).add(name)
    return methods


def command_of(path: str) -> click.Command:
    """Return the command that ``galaxy A B`` runs."""
    command: click.Command = cli
    context = click.Context(command)
    for name in path.strip("`").split()[1:]:
        assert isinstance(command, click.Group), path
        found = command.get_command(context, name)
        assert found is not None, f"there is no command {path}"
        command, context = found, click.Context(found, parent=context)
    return command


def test_every_operation_is_declared_by_the_leader_that_answers_it() -> None:
    assert set(appmaster.OPERATIONS) | set(stored_queries.OPERATIONS) == set(bodies_of(APPMASTER))
    assert set(resman.OPERATIONS) == set(bodies_of(RESMAN))
    assert len(DECLARED) == len(BODIES)


@pytest.mark.parametrize("op", sorted(DECLARED))
def test_function_of_an_operation_takes_its_body_and_returns_its_result(op: str) -> None:
    operation = DECLARED[op]
    hints = typing.get_type_hints(operation.run)
    body = list(inspect.signature(operation.run).parameters)[1]
    assert hints[body] is operation.body is BODIES[op]
    assert hints["return"] is operation.body.result


@pytest.mark.parametrize("op", sorted(BODIES))
def test_row_in_the_documents_matches_authority_sdk_method_and_command(op: str) -> None:
    kind, rule, method, command = documented()[op]
    operation = DECLARED[op]
    assert kind == ("change" if isinstance(operation, Change) else "query")
    assert rule == operation.authority.documented
    assert method.strip("`") in sdk_methods().get(operation.body.__name__, set())
    callback = inspect.unwrap(command_of(command).callback)  # type: ignore[arg-type]
    module = inspect.getsource(inspect.getmodule(callback))  # type: ignore[arg-type]
    assert re.search(rf"\.{method.strip('`')}\b", module), f"{command} does not call {method}"


def test_documents_have_no_row_of_an_operation_that_is_gone() -> None:
    assert set(documented()) == set(BODIES)


def test_operation_without_an_authority_rule_cannot_be_declared() -> None:
    with pytest.raises(TypeError, match="authority"):
        query(ClusterStatus)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="authority"):
        change(ClusterStatus, target=lambda body, _: "")  # type: ignore[call-arg]


def test_change_without_a_target_for_the_audit_trail_cannot_be_declared() -> None:
    with pytest.raises(TypeError, match="target"):
        change(ClusterStatus, authority=ANY_USER)  # type: ignore[call-arg]


def test_body_without_a_name_is_no_operation() -> None:
    with pytest.raises(ValueError, match="no operation"):
        query(Body, authority=ANY_USER)


def test_two_declarations_of_one_operation_are_refused() -> None:
    declare = query(ClusterStatus, authority=ANY_USER)
    with pytest.raises(ValueError, match="declared twice"):
        by_name([declare(lambda state, body, caller: None), declare(lambda state, body, caller: None)])
