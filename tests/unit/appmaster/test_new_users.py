"""Adding users: a new user owns nothing that was run in that name before, unless an operator says so."""

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
    """A cluster without users, where senders claim any name."""

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


def test_user_is_not_added_while_jobs_in_that_name_hold_containers_and_the_error_says_what_to_do(
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


def test_user_added_after_jobs_in_that_name_are_removed_owns_nothing_of_them(world: Secured) -> None:
    job = submit(world, service(replica=1))
    world.run(20)
    remove_as_before(world)
    world.as_("root", RemoveJob(job=job))
    assert kind(add(world)) == "conflict"
    world.run(60)
    assert kind(add(world)) == "ok"
    for body in (ShowJob(job=job), ReadLogs(target=job)):
        assert kind(world.as_("ann", body)) == "refused"


def test_new_user_owns_no_finished_job_and_no_history_in_that_name(world: Secured) -> None:
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


def test_new_user_gets_no_answer_that_was_given_in_that_name_before(world: Secured) -> None:
    asked = SetSecret(name="db", value=Secret(text="a value"))
    world.send(world.sign("ann", asked, key="the same key"))
    remove_as_before(world)
    assert kind(add(world)) == "ok"
    (answer,) = world.send(world.sign("ann", RemoveJob(job="web"), key="the same key"))
    assert kind(answer) == "not-found"


def test_first_operator_owns_the_jobs_in_that_name() -> None:
    world = Open()
    done = submit(world, batch(replica=1), "root")
    web = submit(world, service(replica=1), "root")
    world.run(20)
    assert kind(add(world, "root", role=Role.OPERATOR)) == "ok"
    listed = world.as_("root", ListJobs(all=True)).result.jobs
    assert {(line.job, line.user) for line in listed} == {(done, "root"), (web, "root")}


def test_user_added_with_jobs_owns_the_jobs_submitted_in_that_name_before() -> None:
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


def test_user_added_without_jobs_owns_none_that_was_submitted_in_that_name_before() -> None:
    world = Open()
    done = submit(world, batch(replica=1))
    world.run(20)
    add(world, "root", role=Role.OPERATOR)
    assert kind(add(world)) == "ok"
    assert kind(world.as_("ann", ShowJob(job=done))) == "refused"


def test_jobs_without_an_owner_do_not_keep_a_user_from_being_added() -> None:
    world = Open()
    job = submit(world, service(replica=1), "")
    world.run(20)
    add(world, "root", role=Role.OPERATOR)
    assert kind(add(world)) == "ok"
    assert kind(world.as_("ann", ExecIn(pod=f"{job}.0", argv=("id",)))) == "refused"
