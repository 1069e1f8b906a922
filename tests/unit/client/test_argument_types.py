"""Every method of the SDK names the argument that has the wrong type."""

from __future__ import annotations

import inspect
import math
import os
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from galaxy.client import ExecStream, Galaxy, GalaxyError, UsageError
from galaxy.client.argument_types import ArgumentError
from galaxy.client.transport import as_read
from galaxy.model.api.audit import ListAudit
from galaxy.model.api.drains import DrainAgents
from galaxy.model.api.jobs import StopJob, SubmitJob
from galaxy.model.api.request import Request
from galaxy.model.api.sessions import ReadLogs
from galaxy.model.api.signing import is_signed, proof_of, stored_key
from galaxy.model.api.users import AddUser, GrantUser
from galaxy.model.base import decode, encode
from galaxy.model.jobspec import parsing
from galaxy.model.jobspec.spec import DeploySpec
from galaxy.model.resources import Ceiling
from galaxy.model.stored.user import Role

GALAXY = Galaxy.__new__(Galaxy)
"""Not connected: what reaches the connection fails with an AttributeError."""
STREAM = ExecStream.__new__(ExecStream)


JOB = {"name": "web", "pod": {"tasks": [{"cpu": "100m", "memory": "64M", "start": "serve"}]}}


def methods(instance: object) -> list[Callable[..., Any]]:
    named = inspect.getmembers(type(instance), inspect.isfunction)
    return [getattr(instance, name) for name, _ in named if not name.startswith("_")]


METHODS = [*methods(GALAXY), *methods(STREAM)]
PARAMETERS = [
    pytest.param(method, name, id=f"{method.__name__}-{name}")
    for method in METHODS
    for name in inspect.signature(method).parameters
]


def good(annotation: str) -> Any:
    """Return a value that an argument with this annotation may have."""
    values = {
        "JobSpec": parsing.load(JOB),
        "bytes": b"x",
        "int": 1,
        "float": 1.0,
        "bool": True,
        "Ceiling": Ceiling(),
        "Sequence[str]": ["a"],
        "Mapping[str, Any]": {"cpu": 1},
    }
    return values.get(annotation, "text")


def call(method: Callable[..., Any], name: str, value: object) -> None:
    """Call with ``value`` as argument ``name``, and with good values for the other required ones."""
    given: dict[str, Any] = {name: value}
    for other, parameter in inspect.signature(method).parameters.items():
        if other != name and parameter.default is inspect.Parameter.empty:
            given[other] = good(str(parameter.annotation))
    method(**given)


def test_sdk_has_the_methods_that_this_checks() -> None:
    names = {method.__name__ for method in METHODS}
    assert {"submit", "logs", "exec", "cordon", "set_quota", "add_user", "communicate"} <= names
    assert len(METHODS) > 40


@pytest.mark.parametrize(("method", "name"), PARAMETERS)
def test_argument_that_is_an_object_is_refused_by_its_name(method: Callable[..., Any], name: str) -> None:
    with pytest.raises(ArgumentError, match=rf"`{name}` of {method.__name__}\(\) is .*, not object"):
        call(method, name, object())


@pytest.mark.parametrize(("method", "name"), PARAMETERS)
def test_argument_that_is_none_is_refused_by_its_name_where_none_means_nothing(
    method: Callable[..., Any], name: str
) -> None:
    if "None" in str(inspect.signature(method).parameters[name].annotation):
        return
    with pytest.raises(ArgumentError, match=rf"`{name}` of {method.__name__}\(\) is .*, not None"):
        call(method, name, None)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GALAXY.submit(None), "`job` of submit() is JobSpec or a dict or a text or a path, not None"),
        (lambda: GALAXY.submit(b"job.yaml"), "not bytes"),
        (lambda: GALAXY.submit(["job.yaml"]), "not list of str"),
        (lambda: GALAXY.stop(7), "`job` of stop() is a text, not 7"),
        (lambda: GALAXY.stop(["web"]), "not list of str"),
        (lambda: GALAXY.stop("web", key=7), "`key` of stop()"),
        (lambda: GALAXY.logs("web", tail="5"), "`tail` of logs() is a whole number, not str"),
        (lambda: GALAXY.logs("web", tail=True), "not True"),
        (lambda: GALAXY.logs("web", follow="no"), "`follow` of logs() is True or False, not str"),
        (lambda: GALAXY.logs("web", since_s="1h"), "`since_s` of logs() is a number, not str"),
        (lambda: GALAXY.exec("web", ["id"], input="text"), "`input` of exec() is bytes, not str"),
        (lambda: GALAXY.exec("web", ["sleep", 5]), "`argv` of exec()"),
        (lambda: GALAXY.exec("web", b"id"), "not bytes"),
        (lambda: GALAXY.wait("web", timeout_s="5"), "`timeout_s` of wait() is a number or None, not str"),
        (lambda: GALAXY.wait("web", progress=3), "a function"),
        (lambda: GALAXY.grant("ann", "main", "add", [1]), "a list, each a text, not list of int"),
        (lambda: GALAXY.set_secret("a", 5), "`value` of set_secret() is a text or bytes or Secret, not 5"),
        (lambda: GALAXY.set_quota("ann", {"memory": 1}), "`ceiling` of set_quota() is Ceiling, not dict"),
        (lambda: GALAXY.label_agents(["h1"], {"rack": 1}), "`labels` of label_agents()"),
        (lambda: GALAXY.cordon(None), "`hosts` of cordon()"),
        (lambda: STREAM.write("text"), "`data` of write() is bytes, not str"),
        (lambda: STREAM.resize(24, "80"), "`columns` of resize()"),
        (lambda: Galaxy(url=7), "`url` of Galaxy()"),
        (lambda: Galaxy(timeout_s=None), "`timeout_s` of Galaxy() is a number, not None"),
        (lambda: Galaxy(timeout_s="5"), "`timeout_s` of Galaxy()"),
        (lambda: Galaxy(timeout_s=0), "above 0, not 0"),
        (lambda: Galaxy(timeout_s=float("nan")), "above 0, not nan"),
    ],
)  # fmt: skip
def test_mistake_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert message in str(caught.value)


def test_secret_of_a_wrong_type_is_not_quoted() -> None:
    with pytest.raises(UsageError) as caught:
        GALAXY.set_secret("a", ["hidden"])  # type: ignore[arg-type]
    assert "hidden" not in str(caught.value)


def test_error_is_both_galaxys_and_pythons() -> None:
    assert issubclass(ArgumentError, GalaxyError)
    assert issubclass(ArgumentError, TypeError)


def test_missing_and_unknown_arguments_are_pythons_own_errors() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'job'"):
        GALAXY.stop()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'jobs'"):
        GALAXY.stop(jobs="web")  # type: ignore[call-arg]


@pytest.mark.parametrize("job", ["web", "", "\ud800", "a" * 10_000, Path("x")])
def test_good_types_pass(job: Any) -> None:
    """The value goes on to the connection, which this ``Galaxy`` does not have."""
    if isinstance(job, str):
        with pytest.raises(AttributeError):
            GALAXY.stop(job)
    with pytest.raises(GalaxyError, match=r"cannot read|no such|not found|long"):
        GALAXY.submit(job)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (ReadLogs(target="web", tail=-5), "`tail` of galaxy.job.logs: Expected `int` >= -1"),
        (ReadLogs(target="web", since_s=math.nan), "`since_s`"),
        (
            GrantUser(user="ann", pool="main", action="zap"),
            "`action` of galaxy.user.grant: is one of add, remove, set, clear",
        ),
        (ListAudit(limit=0), "`limit`"),
        (ListAudit(user="a" * 10_000), "`user`"),
        (StopJob(job="\ud800"), "not text in UTF-8"),
        (AddUser(user="ann\n", stored_key="0" * 64, role=Role.USER), "newline at the end of `user`"),
    ],
)
def test_value_that_no_leader_would_read_is_refused_by_its_field(body: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        as_read(body)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        DrainAgents(agents=("h1",), deadline_s=3600),
        ReadLogs(target="web", since_s=5),
        ListAudit(since_s=1),
        SubmitJob(spec=structs.replace(parsing.load(JOB), deploy=DeploySpec(interval=2))),
    ],
)
def test_signature_of_a_body_with_whole_numbers_for_floats_is_right_where_it_is_read(body: Any) -> None:
    token = "ann:" + "0" * 32
    request = Request(op=body.op, key="k", reply="r", deadline_s=1.0, user="ann", body=as_read(body))
    request = structs.replace(request, proof=proof_of(request, token))
    received = decode(encode(request), Request)
    received = structs.replace(received, body=decode(encode(body), type(body)))
    assert is_signed(received, stored_key(token))


def test_help_shows_the_signatures_and_docstrings_of_the_methods() -> None:
    assert str(inspect.signature(GALAXY.stop)) == "(job: 'str', *, key: 'str' = '') -> 'Accepted'"
    assert GALAXY.stop.__doc__ is not None
    assert "containers stay" in GALAXY.stop.__doc__
    assert typing.get_type_hints(Galaxy.submit)["base"] == str | os.PathLike[str]
