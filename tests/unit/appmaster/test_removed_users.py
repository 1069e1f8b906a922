"""Removing users: not while their jobs hold containers; a later user of that name owns nothing of theirs."""

from __future__ import annotations

from typing import Any

import pytest

from galaxy.model.api.jobs import ListJobs, RecoverPod, RemoveJob, ShowJob, SubmitJob
from galaxy.model.api.quotas import ListQuotas, SetQuota
from galaxy.model.api.secrets import ListSecrets, SetSecret
from galaxy.model.api.sessions import ExecIn, ReadLogs
from galaxy.model.api.signing import stored_key
from galaxy.model.api.users import AddUser, GrantUser, RemoveUser, ShowUser
from galaxy.model.base import Struct
from galaxy.model.resources import Ceiling
from galaxy.model.stored.job import JobState
from galaxy.model.stored.secret import EnvFrom, Secret
from galaxy.model.stored.user import Role
from tests.unit.appmaster.test_access import JOB, Secured, kind
from tests.unit.appmaster.world import VERBS, batch, service, with_deploy, with_task

VALUE = "a-secret-of-the-first-ann"


@pytest.fixture
def world() -> Secured:
    world = Secured()
    world.make("ann", {"main": JOB})
    return world


def submit(world: Secured, spec: Any) -> str:
    return world.as_("ann", SubmitJob(spec=with_deploy(spec, pools=("main",)))).result.job


def remove(world: Secured) -> Any:
    return world.as_("root", RemoveUser(user="ann"))


def again(world: Secured, *, grants: tuple[Any, ...] = ()) -> None:
    """Make another ann, with a token of her own; the first one's is remembered as that of ``first``."""
    world.tokens["first"] = world.tokens["ann"]
    world.tokens["ann"] = "the token of the second ann"
    asked = AddUser(user="ann", stored_key=stored_key(world.tokens["ann"]))
    assert kind(world.as_("root", asked)) == "ok"
    if grants:
        world.as_("root", GrantUser(user="ann", pool="*", action="add", authorities=grants))


def leave(world: Secured) -> tuple[str, str]:
    """Let the first ann leave a job that was removed and one that has finished, with secrets; remove her."""
    world.as_("ann", SetSecret(name="db", value=Secret(text=VALUE)))
    secret = {"env": {"DB": EnvFrom(secret="db")}}
    gone = submit(world, with_task(service("web", replica=1), **secret))
    done = submit(world, with_task(batch(replica=1), **secret))
    world.run_until(lambda: world.master.state.jobs[done].state is JobState.FINISHED, 60)
    world.as_("ann", RemoveJob(job=gone))
    world.run(60)
    assert kind(remove(world)) == "ok"
    return gone, done


def test_user_whose_jobs_hold_containers_is_not_removed_and_the_error_says_what_to_do(world: Secured) -> None:
    for number in range(7):
        submit(world, service(f"web{number}", replica=2))
    world.run(20)
    answer = remove(world)
    assert kind(answer) == "conflict"
    assert answer.problem.message == 'cannot remove user "ann": 7 jobs of this user hold or want containers'
    assert answer.problem.details[0] == "web0 is running, 2 containers"
    assert answer.problem.details[5:] == ("and 2 more; 14 containers in all",)
    assert "galaxy job remove web0" in answer.problem.hint
    assert kind(world.as_("ann", ListJobs())) == "ok"


@pytest.mark.parametrize("verb", ["stop", "remove"])
def test_user_is_not_removed_before_the_users_containers_are_gone(world: Secured, verb: str) -> None:
    submit(world, service(replica=1))
    world.run(20)
    world.as_("ann", VERBS[verb](job="web"))
    assert kind(remove(world)) == "conflict"
    world.run(60)
    assert kind(remove(world)) == ("conflict" if verb == "stop" else "ok")


def test_user_whose_job_waits_for_a_place_is_not_removed(world: Secured) -> None:
    world.have_trouble(trouble="the disk is read-only")
    submit(world, service(replica=1))
    assert remove(world).problem.details == ("web is pending, 0 containers",)


@pytest.mark.parametrize("failover", [False, True])
def test_later_user_of_that_name_reaches_nothing_that_a_removed_user_left(
    world: Secured, failover: bool
) -> None:
    gone, done = leave(world)
    again(world, grants=tuple(one for one in JOB if one != "list_job"))
    if failover:
        world.failover()
    assert world.as_("ann", ListJobs(all=True)).result.jobs == ()
    asks: list[tuple[str, Struct]] = []
    for job in (gone, done):
        asks += [
            ShowJob(job=job),
            ReadLogs(target=job),
            ExecIn(pod=f"{job}.0", argv=("id",)),
            RecoverPod(job=job),
            RemoveJob(job=job),
        ]
    for body in asks:
        assert kind(world.as_("ann", body)) == "refused", body
    world.run(60)
    for body in asks:
        assert kind(world.as_("ann", body)) == "refused", body


def test_later_user_of_that_name_has_no_secrets_quotas_or_grants_of_a_removed_one(
    world: Secured,
) -> None:
    limited = SetQuota(user="ann", ceiling=Ceiling(containers=3))
    world.as_("root", limited)
    leave(world)
    again(world)
    assert world.as_("ann", ListSecrets()).result.secrets == ()
    assert world.as_("ann", ListQuotas()).result.quotas == ()
    assert world.as_("ann", ShowUser(user="ann")).result.grants == {}
    world.run(60)
    assert VALUE not in str(world.store)


def test_token_of_a_removed_user_is_invalid_for_a_later_user_of_the_same_name(world: Secured) -> None:
    leave(world)
    again(world)
    late = world.sign("ann", ListJobs())
    assert kind(world.send(late)[0]) == "ok"
    world.tokens["ann"] = world.tokens["first"]
    assert kind(world.as_("ann", ListJobs())) == "refused"


def test_later_user_of_the_same_name_gets_no_answer_of_a_removed_user(world: Secured) -> None:
    asked = SetSecret(name="db", value=Secret(text=VALUE))
    world.send(world.sign("ann", asked, key="the same key"))
    remove(world)
    again(world)
    (answer,) = world.send(world.sign("ann", RemoveJob(job="web"), key="the same key"))
    assert kind(answer) == "not-found"


def test_answer_to_an_operator_who_removed_themselves_is_not_given_to_a_later_user(world: Secured) -> None:
    world.make("ops", {}, role=Role.OPERATOR)
    asked = world.sign("ops", RemoveUser(user="ops"), key="the same key")
    assert [kind(answer) for answer in world.send(asked)] == ["ok"]
    state = world.master.state
    assert "ops" not in {row.user for row in state.requests.answers.values()}
    assert ("ops", "galaxy.user.remove", "ok") in {
        (row.user, row.op, row.result) for row in state.requests.audit.values()
    }
    world.make("ops", {}, role=Role.OPERATOR)
    (answer,) = world.send(world.sign("ops", RemoveUser(user="ops"), key="the same key"))
    assert kind(answer) == "conflict"
    assert "ops" in state.users


def test_operators_still_see_what_a_removed_user_left(world: Secured) -> None:
    gone, done = leave(world)
    world.run(60)
    listed = world.as_("root", ListJobs(all=True)).result.jobs
    assert {(line.job, line.user) for line in listed} == {(gone, ""), (done, "")}
    assert kind(world.as_("root", ReadLogs(target=done))) == "ok"


def test_user_with_list_job_sees_no_environment_of_a_removed_users_job(world: Secured) -> None:
    gone, _ = leave(world)
    again(world, grants=("list_job",))
    view = world.as_("ann", ShowJob(job=gone)).result
    assert set(view.spec.pod.tasks[0].env.values()) == {"(hidden)"}
