"""Secrets: sealed to a revision when it is accepted, in the orders to AppWorkers, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest

from galaxy.model.api.answers import Answer
from galaxy.model.api.jobs import RemoveJob, ShowJob, SubmitJob, UpdateJob
from galaxy.model.api.secrets import ListSecrets, RemoveSecret, SetSecret
from galaxy.model.api.users import RemoveUser
from galaxy.model.base import encode
from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.messages.names import POD_DEPLOY
from galaxy.model.messages.pod import PodOrder
from galaxy.model.stored.secret import SECRET_BYTES_MAX, SECRETS_MAX, EnvFrom, Secret
from tests.unit.appmaster.test_access import JOB, Secured, kind
from tests.unit.appmaster.world import World, service, with_deploy, with_task

SENTINEL = "correct-horse-battery-staple"
NAMED = EnvFrom(secret="db")
FILED = EnvFrom(file="./token")


@pytest.fixture
def world() -> World:
    return World()


def using(*sources: EnvFrom, **changes: Any) -> JobSpec:
    env = {f"V{n}": source for n, source in enumerate(sources)} | {"PLAIN": "p"}
    return with_task(service(replica=2), env=env, **changes)


def keep(world: World, text: str = SENTINEL, name: str = "db") -> Any:
    return world.ask(SetSecret(name=name, value=Secret(text=text)))


def orders(world: World) -> list[PodOrder]:
    bodies = [send.body for send in world.sends if send.task == POD_DEPLOY]
    return [order for body in bodies for order in body.orders]


def values(order: PodOrder) -> list[str]:
    env = order.tasks[0].env.values()
    return [one.value.text for one in env if isinstance(one, EnvFrom) and one.value]


def test_secret_prints_as_nothing() -> None:
    order = EnvFrom(secret="db", value=Secret(text=SENTINEL))
    for text in (repr(order), str(order), f"{order.value}", f"{order.value!r}", str(order.value)):
        assert SENTINEL not in text
    assert not order.value.__rich_repr__()


def test_values_go_to_appworkers_and_into_no_other_message_view_or_record(world: World) -> None:
    keep(world)
    submitted = SubmitJob(spec=using(NAMED, FILED), files={"./token": Secret(text=SENTINEL + "-2")})
    web = world.ask(submitted).job
    world.settle(web)
    assert {tuple(values(order)) for order in orders(world)} == {(SENTINEL, SENTINEL + "-2")}
    told = [send.body for send in world.sends if send.task != POD_DEPLOY]
    views = [world.show(web), world.ask(ListSecrets())]
    seen = b"".join(encode(one) for one in (*told, *views))
    assert SENTINEL.encode() not in seen
    holding = {
        name for name, rows in world.store.items() for row in rows.values() if SENTINEL.encode() in row
    }
    assert holding == {"secrets", "revision_secrets"}
    assert SENTINEL not in repr(orders(world)) + repr(list(world.master.state.revision_secrets.values()))


def test_repeated_order_carries_the_same_value_after_the_secret_changed(world: World) -> None:
    keep(world, "old")
    web = world.submit(using(NAMED))
    world.settle(web)
    keep(world, "new")
    world.failover()
    world.sends.clear()
    for host in world.hosts.values():
        host.power_off(3.0)  # The containers are lost and created again.
    world.run(20)
    assert {tuple(values(order)) for order in orders(world)} == {("old",)}


def test_new_value_takes_effect_by_an_update_with_the_same_file(world: World) -> None:
    keep(world, "old")
    web = world.submit(using(NAMED))
    world.settle(web)
    assert world.update(web, using(NAMED)).warnings == ("nothing changed",)
    assert keep(world, "new").jobs == ("web",)
    assert world.update(web, using(NAMED)).revision == 2
    assert world.state(web) == "updating"
    world.settle(web)
    assert values(orders(world)[-1]) == ["new"]
    assert all(pod.revision == 2 for pod in world.show(web).pods)


def test_values_of_a_revision_are_dropped_with_the_revision(world: World) -> None:
    keep(world)
    web = world.submit(using(NAMED))
    world.settle(web)
    for n in range(15):
        world.update(web, using(NAMED, start=f"serve {n}"))
    world.settle(web)
    world.update(web, using(NAMED, start="serve again"))
    state = world.master.state
    assert set(state.revision_secrets) == set(state.revisions)
    assert len(state.revision_secrets) <= 12
    world.do("remove", web)
    world.run(30)
    assert not state.revision_secrets


@pytest.mark.parametrize(
    ("spec", "files", "problem"),
    [
        (using(NAMED), {}, '`pod.tasks[0].env.V0`: there is no secret "db" of user "ann"'),
        (using(FILED), {}, "`pod.tasks[0].env.V0`: the content of file"),
        (using(FILED), {"./token": Secret(text="a\0b")}, "has a zero byte"),
        (using(EnvFrom()), {}, "needs one of `file` and `secret`"),
        (using(EnvFrom(file="a", secret="b")), {}, "not both"),
        (using(EnvFrom(secret="db", value=Secret(text="x"))), {}, "cannot be given in a job file"),
        (using(EnvFrom(secret="no name")), {}, "is not the name of a secret"),
        (
            using(*(EnvFrom(file=str(n)) for n in range(4))),
            {str(n): Secret(text="x" * 60_000) for n in range(4)},
            "184 KiB are allowed",
        ),
    ],
)
def test_job_without_its_secrets_is_refused_by_field(
    world: World, spec: JobSpec, files: dict[str, Secret], problem: str
) -> None:
    answer = world.request(SubmitJob(spec=spec, files=files))
    assert answer.problem is not None
    assert problem in " ".join(answer.problem.details)
    assert not world.master.state.jobs and not world.master.state.revision_secrets


def test_secret_beyond_a_limit_is_refused_and_the_limit_named(world: World) -> None:
    for n in range(SECRETS_MAX):
        keep(world, name=f"s{n}")
    more = world.request(SetSecret(name="more", value=Secret(text="x")))
    assert more.problem is not None and f"{SECRETS_MAX} are allowed" in more.problem.details
    assert keep(world, "another", "s1").serial == 2
    for text, why in (("é" * SECRET_BYTES_MAX, "too long"), ("", "is empty"), ("\0", "zero byte")):
        answer = world.request(SetSecret(name="s1", value=Secret(text=text)))
        assert answer.problem is not None and why in answer.problem.message


def test_secret_that_a_job_uses_is_not_removed(world: World) -> None:
    keep(world)
    web = world.submit(using(NAMED))
    answer = world.request(RemoveSecret(name="db"))
    assert answer.problem is not None and answer.problem.kind == "conflict"
    assert answer.problem.details == ("web",)
    world.update(web, using())
    world.ask(RemoveSecret(name="db"))
    assert world.request(RemoveSecret(name="db")).problem.kind == "not-found"


def test_each_user_has_separate_secrets_and_cannot_reach_another_users() -> None:
    world = Secured()
    for user in ("ann", "bob"):
        world.make(user, {"main": JOB})
    value = Secret(text=SENTINEL)
    assert kind(world.as_("ann", SetSecret(name="db", value=value))) == "ok"
    spec = with_deploy(using(NAMED), pools=("main",))
    assert kind(world.as_("bob", SubmitJob(spec=spec))) == "spec"
    for body in (
        SetSecret(name="db", value=value, user="ann"),
        RemoveSecret(name="db", user="ann"),
        ListSecrets(user="ann"),
        ListSecrets(all=True),
    ):
        assert kind(world.as_("bob", body)) == "refused"
    assert not world.as_("bob", ListSecrets()).result.secrets
    (seen,) = world.as_("root", ListSecrets(all=True)).result.secrets
    assert (seen.name, seen.user, seen.by) == ("db", "ann", "ann")
    assert kind(world.as_("ann", SubmitJob(spec=spec))) == "ok"
    other = with_deploy(using(NAMED, start="serve 2"), pools=("main",))
    assert kind(world.as_("root", UpdateJob(job="web", spec=other))) == "ok"
    trail = [(row.user, row.op, row.target, row.result) for row in world.master.state.requests.audit.values()]
    assert ("ann", "galaxy.secret.set", "db of ann", "ok") in trail
    assert ("bob", "galaxy.secret.remove", "db of ann", "refused") in trail
    assert SENTINEL not in "".join(encode(row).decode() for row in world.master.state.requests.audit.values())
    assert kind(world.as_("root", RemoveJob(job="web"))) == "ok"
    world.run(30)
    assert kind(world.as_("root", RemoveUser(user="ann"))) == "ok"
    assert not world.master.state.secrets
    assert not world.master.state.revision_secrets


def test_user_who_may_see_another_users_job_sees_no_environment() -> None:
    world = Secured()
    for user in ("ann", "bob"):
        world.make(user, {"main": JOB})
    world.as_("ann", SetSecret(name="db", value=Secret(text=SENTINEL)))
    spec = with_deploy(using(NAMED), pools=("main",))
    world.as_("ann", SubmitJob(spec=spec))
    view: Answer = world.as_("bob", ShowJob(job="web"))
    assert set(view.result.spec.pod.tasks[0].env.values()) == {"(hidden)"}


def test_secret_is_refused_for_an_unknown_user_and_accepted_for_an_owner_of_jobs() -> None:
    world = Secured()
    body = SetSecret(name="db", user="anne", value=Secret(text="v"))
    assert kind(world.as_("root", body)) == "not-found"
    (root,) = world.master.state.users.values()
    world.master.state.users.drop("root")
    world.submit(service())  # By "ann", in a cluster that has no users yet.
    world.master.state.users.put("root", root)
    body = SetSecret(name="db", user="ann", value=Secret(text="v"))
    assert kind(world.as_("root", body)) == "ok"
