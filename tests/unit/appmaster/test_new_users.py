"""A user who is made: he owns nothing that others left in his name, and what an operator says is his."""

from __future__ import annotations

from typing import Any

import pytest

from galaxy.appmaster.logic.identity import quotas, secrets
from galaxy.model.api.answers import Answer
from galaxy.model.api.jobs import ListJobs, RemoveJob, ShowJob, SubmitJob
from galaxy.model.api.secrets import SetSecret
from galaxy.model.api.sessions import ExecIn, ReadLogs
from galaxy.model.api.signing import stored_key
from galaxy.model.api.users import AddUser
from galaxy.model.stored.job import JobState
from galaxy.model.stored.secret import Secret
from galaxy.model.stored.user import Role
from tests.unit.appmaster.test_access import JOB, Secured, kind
from tests.unit.appmaster.world import World, batch, service, with_deploy


class Open(Secured):
    """A cluster without users: everybody calls himself what he likes."""

    def __init__(self) -> None:
        World.__init__(self)
        self.tokens = {}
        self.asked = 0


@pytest.fixture
def world() -> Secured:
    world = Secured()
    world.make("ann", {"main": JOB})
    return world


def submit(world: Secured, spec: Any, user: str = "ann") -> str:
    asked = SubmitJob(spec=with_deploy(spec, pools=("main",)))
    return world.as_(user, asked).result.job


def remove_as_before(world: Secured) -> None:
    """Remove ann as the release before this one did: her jobs run on, and bear her name."""
    state = world.master.state
    state.users.drop("ann")
    quotas.lift_all(state, "ann")
    secrets.drop_all(state, "ann")
    world.run(5)
    world.failover()


def add(world: Secured, user: str = "ann", *, by: str = "root", **options: Any) -> Answer:
    token = f"another token of {user}"
    answer = world.as_(by, AddUser(user=user, stored_key=stored_key(token), **options))
    if not answer.problem:
        world.tokens[user] = token
    return answer


def test_user_is_not_made_while_jobs_in_his_name_hold_containers_and_the_error_says_what_to_do(
    world: Secured,
) -> None:
    for number in range(7):
        submit(world, service(f"web{number}", replica=2))
    world.run(20)
    remove_as_before(world)
    answer = add(world)
    assert kind(answer) == "conflict"
    assert answer.problem is not None
    assert answer.problem.message == 'cannot add user "ann": 7 jobs in that name hold or want containers'
    assert answer.problem.details[0] == "web0 is running, 2 containers"
    assert answer.problem.details[5:] == ("and 2 more; 14 containers in all",)
    assert "galaxy job remove web0" in answer.problem.hint
    assert "galaxy user add ann --with-jobs" in answer.problem.hint
    assert "ann" not in world.master.state.users


def test_user_is_made_when_the_jobs_in_his_name_are_removed_and_owns_nothing_of_them(world: Secured) -> None:
    job = submit(world, service(replica=1))
    world.run(20)
    remove_as_before(world)
    world.as_("root", RemoveJob(job=job))
    assert kind(add(world)) == "conflict"
    world.run(60)
    assert kind(add(world)) == "ok"
    for body in (ShowJob(job=job), ReadLogs(target=job)):
        assert kind(world.as_("ann", body)) == "refused"


def test_user_owns_no_finished_job_and_no_history_that_somebody_left_in_his_name(world: Secured) -> None:
    gone = submit(world, service(replica=1))
    done = submit(world, batch(replica=1))
    world.run_until(lambda: world.master.state.jobs[done].state is JobState.FINISHED, 60)
    world.as_("ann", RemoveJob(job=gone))
    world.run(60)
    remove_as_before(world)
    assert kind(add(world)) == "ok"
    for _ in range(2):
        assert world.as_("ann", ListJobs(all=True)).result.jobs == ()
        for job in (gone, done):
            assert kind(world.as_("ann", ShowJob(job=job))) == "refused"
            assert kind(world.as_("ann", ReadLogs(target=job))) == "refused"
        world.run(60)
    listed = world.as_("root", ListJobs(all=True)).result.jobs
    assert {(line.job, line.user) for line in listed} == {(gone, ""), (done, "")}


def test_user_is_not_told_what_was_answered_in_his_name_before(world: Secured) -> None:
    asked = SetSecret(name="db", value=Secret(text="a value"))
    world.send(world.sign("ann", asked, key="the same key"))
    remove_as_before(world)
    assert kind(add(world)) == "ok"
    (answer,) = world.send(world.sign("ann", RemoveJob(job="web"), key="the same key"))
    assert kind(answer) == "not-found"


def test_first_operator_is_made_beside_jobs_in_his_name_and_they_stay_his() -> None:
    world = Open()
    done = submit(world, batch(replica=1), "root")
    web = submit(world, service(replica=1), "root")
    world.run(20)
    assert kind(add(world, "root", role=Role.OPERATOR)) == "ok"
    listed = world.as_("root", ListJobs(all=True)).result.jobs
    assert {(line.job, line.user) for line in listed} == {(done, "root"), (web, "root")}


def test_who_submitted_jobs_before_there_were_users_keeps_them_when_an_operator_says_they_are_his() -> None:
    world = Open()
    done = submit(world, batch(replica=1))
    web = submit(world, service(replica=1))
    world.run(20)
    add(world, "root", role=Role.OPERATOR)
    assert kind(add(world)) == "conflict"
    assert kind(add(world, with_jobs=True)) == "ok"
    world.failover()
    world.run(20)
    for job in (done, web):
        assert kind(world.as_("ann", ShowJob(job=job))) == "ok"
    assert kind(world.as_("ann", ReadLogs(target=done))) == "ok"


def test_jobs_that_others_submitted_in_a_users_name_before_there_were_users_are_not_his() -> None:
    world = Open()
    done = submit(world, batch(replica=1))
    world.run(20)
    add(world, "root", role=Role.OPERATOR)
    assert kind(add(world)) == "ok"
    assert kind(world.as_("ann", ShowJob(job=done))) == "refused"


def test_jobs_of_nobody_are_no_hindrance_and_stay_nobodys() -> None:
    world = Open()
    job = submit(world, service(replica=1), "")
    world.run(20)
    add(world, "root", role=Role.OPERATOR)
    assert kind(add(world)) == "ok"
    assert kind(world.as_("ann", ExecIn(pod=f"{job}.0", argv=("id",)))) == "refused"
