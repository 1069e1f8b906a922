"""Parts of different versions ignore unknown fields of each other, but refuse those of requests."""

from __future__ import annotations

import pytest

from galaxy.errors import BadMessage
from galaxy.model.api.jobs import SubmitJob, UpdateJob
from galaxy.model.api.strict import refuse_newlines, refuse_unknown
from galaxy.model.base import WIRE_READABLE, WIRE_VERSION, check_wire, decode
from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.messages.container import ContainerOrders

JOB = {
    "name": "web",
    "pod": {
        "tasks": [{"name": "main", "cpu": {"millicores": 1}, "memory": {"size": 1}, "start": "x"}],
        "workspace": {"path": "/home/work", "size": 1},
    },
}

SPEC = """{"name": "web", "pod": {"tasks": [{"name": "main", "cpu": {"millicores": 10},
"memory": {"size": 16777216}, "start": "x"}], "workspace": {"path": "/home/work", "size": 1048576}}}"""


def test_unknown_field_between_parts_is_ignored() -> None:
    text = b'{"agent":"h1","epoch":3,"until_s":0,"novelty":{"since":2},"create":[]}'
    assert decode(text, ContainerOrders) == ContainerOrders(agent="h1", epoch=3, until_s=0.0)


def test_written_version_is_readable() -> None:
    check_wire(WIRE_VERSION)


@pytest.mark.parametrize("version", [0, WIRE_READABLE[-1] + 1, True, "1", None, 1.0, [1]])
def test_unreadable_version_is_refused(version: object) -> None:
    with pytest.raises(BadMessage, match="too far apart"):
        check_wire(version)


def test_request_with_known_fields_passes() -> None:
    refuse_unknown({"spec": JOB}, SubmitJob)
    refuse_unknown({"job": "web", "spec": JOB | {"deploy": {"replica": 2}}}, UpdateJob)


@pytest.mark.parametrize(
    ("extra", "path"),
    [
        ({"deploy": {"replcia": 1}}, "spec.deploy.replcia"),
        ({"nmae": "x"}, "spec.nmae"),
        ({"pod": JOB["pod"] | {"tasks": [JOB["pod"]["tasks"][0] | {"cpus": 1}]}}, "spec.pod.tasks.0.cpus"),
    ],
)
def test_request_with_an_unknown_field_is_refused_with_its_path(extra: dict, path: str) -> None:
    with pytest.raises(BadMessage, match=f"`{path}`"):
        refuse_unknown({"spec": JOB | extra}, SubmitJob)


def test_names_that_users_choose_are_not_fields() -> None:
    task = JOB["pod"]["tasks"][0] | {"env": {"ANY": "thing"}}
    refuse_unknown({"spec": JOB | {"pod": JOB["pod"] | {"tasks": [task]}}}, SubmitJob)


def test_request_with_a_newline_after_a_name_is_refused_with_its_path() -> None:
    task = JOB["pod"]["tasks"][0] | {"name": "main\n", "start": "x\n"}
    spec = JOB | {"name": "web\n", "pod": JOB["pod"] | {"tasks": [task]}}
    with pytest.raises(BadMessage, match=r"the end of `spec.name`, `spec.pod.tasks.0.name`$"):
        refuse_newlines({"spec": spec}, SubmitJob)
    refuse_newlines({"spec": JOB}, SubmitJob)


def test_stored_job_with_a_newline_after_its_name_is_read() -> None:
    text = SPEC.replace('"web"', '"web\\n"')
    assert decode(text, JobSpec).name == "web\n"
