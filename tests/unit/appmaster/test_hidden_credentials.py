"""Credentials are in no view, event, log or audit record; others see no environment and no commands."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest

from galaxy.appmaster.logic.api.requests import OPERATIONS
from galaxy.model.api.audit import ListAudit
from galaxy.model.api.jobs import Discover, ListJobs, RemoveJob, ShowJob, SubmitJob, UpdateJob
from galaxy.model.api.packages import ListPackages
from galaxy.model.api.quotas import ListQuotas
from galaxy.model.api.secrets import ListSecrets
from galaxy.model.api.top import ShowTop
from galaxy.model.base import encode
from galaxy.model.jobspec.spec import (
    DataSpec,
    HealthSpec,
    JobSpec,
    PackageSpec,
    TaskSpec,
)
from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import TaskState
from galaxy.operations.declaration import Query
from galaxy.tasks.log import OneLine
from tests.unit.appmaster.test_access import JOB, Secured
from tests.unit.appmaster.world import service, with_deploy, with_task

POOL = "main"
LOGIN, TOKEN, SIGNATURE = "l0gin-s3cret", "t0ken-s3cret", "sign4ture-s3cret"
IN_URLS = (LOGIN, TOKEN, SIGNATURE)
ENV, COMMAND, QUERY = "env-s3cret", "command-s3cret", "query-s3cret"
ALL = (*IN_URLS, ENV, COMMAND, QUERY)


def url(name: str) -> str:
    return f"https://ann:{LOGIN}@repo.example/{name}?token={TOKEN}&X-Amz-Signature={SIGNATURE}"


def secretive(start: str = "serve") -> JobSpec:
    """Return a job with a secret in every field that may carry one."""
    health = HealthSpec(type="http", port="http", path=f"/health?key={QUERY}")
    spec = with_task(
        service("web", replica=1),
        start=f"{start} --password {COMMAND}",
        stop=f"stop --password {COMMAND}",
        package=PackageSpec(source=url("x.tgz"), version=f"http://ann:{LOGIN}@v"),
        data=DataSpec(
            packages=(PackageSpec(source=url("d.tgz"), version="1", path="data"),),
            reload=f"reload --password {COMMAND}",
        ),
        env={"PASSWORD": ENV, "DATABASE": f"postgres://ann:{LOGIN}@db/x"},
        health=health,
    )
    return with_deploy(spec, pools=(POOL,))


@pytest.fixture
def world() -> Secured:
    world = Secured()
    world.make("ann", {POOL: JOB})
    world.make("bob", {POOL: JOB})
    answer = world.as_("ann", SubmitJob(spec=secretive()))
    assert answer.problem is None, answer.problem
    world.run(10)
    return world


def found_in(value: Any, secrets: tuple[str, ...]) -> set[str]:
    text = encode(value).decode()
    return {secret for secret in secrets if secret in text}


BODIES: dict[str, Any] = {
    "galaxy.job.list": ListJobs(all=True),
    "galaxy.job.show": ShowJob(job="web"),
    "galaxy.service.discover": Discover(service="web", all=True),
    "galaxy.audit.list": ListAudit(),
    "galaxy.secret.list": ListSecrets(),
    "galaxy.quota.list": ListQuotas(),
    "galaxy.package.list": ListPackages(),
    "galaxy.usage.top": ShowTop(),
}
WITHOUT_JOBS = ("galaxy.user.list", "galaxy.user.show")


def test_every_query_is_looked_at() -> None:
    queries = {name for name, operation in OPERATIONS.items() if isinstance(operation, Query)}
    assert queries == {*BODIES, *WITHOUT_JOBS}


@pytest.mark.parametrize("removed", [False, True], ids=["live", "removed"])
@pytest.mark.parametrize("op", BODIES)
def test_no_query_shows_another_user_a_secret(world: Secured, op: str, removed: bool) -> None:
    if removed:
        assert world.as_("ann", RemoveJob(job="web")).problem is None
        world.run_until(lambda: not world.master.state.jobs, 60)
    assert found_in(world.as_("bob", BODIES[op]), ALL) == set()


@pytest.mark.parametrize("op", BODIES)
@pytest.mark.parametrize("user", ["ann", "root"])
def test_no_query_shows_anybody_credentials_of_urls(world: Secured, user: str, op: str) -> None:
    assert found_in(world.as_(user, BODIES[op]), IN_URLS) == set()


def test_what_is_hidden_still_says_that_it_is_there(world: Secured) -> None:
    task: TaskSpec = world.as_("bob", ShowJob(job="web")).result.spec.pod.tasks[0]
    assert task.package is not None and task.data is not None and task.health is not None
    assert task.package.source == "https://***@repo.example/x.tgz?token=***&X-Amz-Signature=***"
    assert (task.start, task.stop, task.data.reload) == ("(hidden)", "(hidden)", "(hidden)")
    assert task.health.path == "/health?key=***"
    assert task.env == {"PASSWORD": "(hidden)", "DATABASE": "(hidden)"}
    own: TaskSpec = world.as_("ann", ShowJob(job="web")).result.spec.pod.tasks[0]
    assert own.env == {"PASSWORD": ENV, "DATABASE": "postgres://***@db/x"}
    assert COMMAND in own.start


def test_only_the_owner_gets_the_spec_as_it_was_submitted(world: Secured) -> None:
    body = ShowJob(job="web", submitted=True)
    assert world.as_("ann", body).result.spec == secretive()
    for user in ("bob", "root"):
        answer = world.as_(user, body)
        assert answer.problem is not None and answer.problem.kind == "refused"
        assert found_in(answer, ALL) == set()


def test_update_with_a_hidden_spec_in_between_changes_only_what_was_changed(world: Secured) -> None:
    """The stored spec keeps what is hidden, so that agents can fetch, and an equal spec stays equal."""
    answer = world.as_("ann", UpdateJob(job="web", spec=secretive()))
    assert answer.result.warnings == ("nothing changed",)


def test_error_of_an_agent_about_a_package_is_shown_without_credentials(world: Secured) -> None:
    job = next(iter(world.master.state.jobs))
    pod = world.master.state.pods[f"{job}.0"]
    report = world.last_report(pod.agent)
    (observed,) = report.pods
    message = f'cannot fetch {url("x.tgz")}: 403, url="{url("x.tgz")}"'
    failed = msgspec.structs.replace(
        observed.tasks[0],
        state=TaskState.BACKOFF,
        healthy=None,
        reason=Reason(code="deploy-failed", message=message),
    )
    observed = msgspec.structs.replace(observed, healthy=False, state="backoff", tasks=(failed,))
    world.feed(msgspec.structs.replace(report, serial=report.serial + 1000, pods=(observed,)))
    for user in ("ann", "bob", "root"):
        view = world.as_(user, ShowJob(job="web")).result
        assert "403" in view.pods[0].tasks[0].reason.message
        assert found_in(view, IN_URLS) == set()
    assert found_in(world.master.state.timelines[job], IN_URLS) == set()


def test_problem_that_quotes_a_url_is_answered_and_audited_without_credentials(world: Secured) -> None:
    spec = with_task(
        secretive(), package=PackageSpec(source=f"gopher://ann:{LOGIN}@x/y?{TOKEN}", version="1")
    )
    answer = world.as_("ann", UpdateJob(job=f"https://ann:{LOGIN}@repo", spec=spec))
    assert answer.problem is not None
    assert found_in(answer, IN_URLS) == set()
    assert found_in(world.as_("root", ListAudit()), IN_URLS) == set()


def test_log_line_has_no_credentials() -> None:
    record = logging.LogRecord("galaxy.x", logging.WARNING, "f", 1, "event=a url=%s", (url("x.tgz"),), None)
    line = OneLine().format(record)
    assert "repo.example/x.tgz" in line
    assert not any(secret in line for secret in IN_URLS)


def test_traceback_in_a_log_has_no_credentials() -> None:
    try:
        raise OSError(f"cannot fetch {url('x.tgz')}")
    except OSError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("celery", logging.ERROR, "f", 1, "event=a", (), info)
    assert not any(secret in OneLine().format(record) for secret in IN_URLS)
