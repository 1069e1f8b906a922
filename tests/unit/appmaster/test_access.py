"""Who may do what: signatures, grants, ownership, and the trail of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from galaxy.appmaster.logic import AppMasterConfig
from galaxy.model.api.answers import Answer
from galaxy.model.api.audit import ListAudit
from galaxy.model.api.body import Body
from galaxy.model.api.catalog import BODIES
from galaxy.model.api.jobs import (
    ListJobs,
    RecoverPod,
    RemoveJob,
    ShowJob,
    StartJob,
    StopJob,
    SubmitJob,
    UpdateJob,
)
from galaxy.model.api.request import Request
from galaxy.model.api.sessions import ExecIn, ReadLogs
from galaxy.model.api.signing import is_signed, proof_of, split_token, stored_key
from galaxy.model.api.users import AddUser, GrantUser, ListUsers, RemoveUser, SetToken, ShowUser
from galaxy.model.base import decode, encode, from_plain
from galaxy.model.messages.container import GroupStatuses
from galaxy.model.stored.user import Authority, Role
from tests.unit.appmaster.world import World, service, with_deploy, with_task

ROOT = "a-token-of-the-first-operator"
JOB = tuple(authority for authority in Authority if authority.endswith("_job"))


class Secured(World):
    """A cluster with an operator ``root``; ``as_`` asks, signed, in anybody's name."""

    def __init__(self, **config: Any) -> None:
        super().__init__(config=AppMasterConfig(first_operator=f"root:{stored_key(ROOT)}", **config))
        self.tokens = {"root": ROOT}
        self.asked = 0

    def sign(self, user: str, body: Body[Any], *, key: str = "", **changes: Any) -> Request:
        self.asked += 1
        request = Request(
            op=body.op, key=key or f"k{self.asked}", reply=f"r{self.asked}", deadline_s=self.now + 30,
            user=user, body=body, at_s=self.now, nonce=f"n{self.asked}",
        )  # fmt: skip
        request = msgspec.structs.replace(request, **changes)
        return msgspec.structs.replace(request, proof=proof_of(request, self.tokens.get(user, "no token")))

    def send(self, request: Request) -> list[Answer]:
        """Feed a request as it comes out of a queue, and return the answers to it."""
        copy = decode(encode(request), Request)
        self.feed(msgspec.structs.replace(copy, body=from_plain(copy.body or {}, BODIES[request.op])))
        answers = []
        while (answer := self.answer(request)) is not None:
            answers.append(answer)
        return answers

    def as_(self, user: str, body: Body[Any]) -> Answer:
        (answer,) = self.send(self.sign(user, body))
        return answer

    def make(self, user: str, pools: dict[str, tuple[Authority, ...]], role: Role = Role.USER) -> None:
        self.tokens[user] = f"the-token-of-{user}"
        stored = stored_key(self.tokens[user])
        assert not self.as_("root", AddUser(user=user, stored_key=stored, role=role)).problem
        for pool, authorities in pools.items():
            asked = GrantUser(user=user, pool=pool, action="add", authorities=authorities)
            assert not self.as_("root", asked).problem


@pytest.fixture
def world() -> Secured:
    world = Secured()
    world.make("ann", {"main": JOB})
    world.make("bob", {"main": JOB})
    return world


def job(name: str = "web", pool: str = "main") -> Any:
    return with_deploy(service(name), pools=(pool,))


def kind(answer: Answer) -> str:
    return answer.problem.kind if answer.problem else "ok"


def test_unsigned_request_in_a_cluster_without_users_is_allowed() -> None:
    world = World()
    assert world.submit(service())


def test_unsigned_request_is_refused_when_users_are_required_and_none_exists() -> None:
    world = World(config=AppMasterConfig(require_users=True))
    answer = world.request(ListJobs())
    assert answer.problem is not None and "not signed" in answer.problem.message


def test_unsigned_request_is_refused_with_a_hint(world: Secured) -> None:
    for body in (ListJobs(), SubmitJob(spec=job())):
        answer = world.request(body)
        assert answer.problem is not None
        assert answer.problem.kind == "refused"
        assert "GALAXY_TOKEN" in answer.problem.hint
    assert not world.master.state.jobs


@pytest.mark.parametrize(
    "change",
    [
        {"user": "bob"},
        {"op": "galaxy.job.remove"},
        {"key": "other"},
        {"reply": "mine"},
        {"deadline_s": 2e9},
        {"at_s": 1_000_001.0},
        {"nonce": "another"},
        {"body": StopJob(job="other")},
        {"proof": "00" * 32},
        {"proof": "zz"},
        {"proof": "é"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_signed_request_that_is_changed_anywhere_is_refused(world: Secured, change: dict[str, Any]) -> None:
    world.as_("ann", SubmitJob(spec=job()))
    request = world.sign("ann", StopJob(job="web"))
    (answer,) = world.send(msgspec.structs.replace(request, **change))
    assert answer.problem is not None
    assert answer.problem.kind == "refused"
    assert world.master.state.jobs[next(iter(world.master.state.jobs))].desired == "run"


def test_unknown_user_and_wrong_token_are_refused_with_the_same_message(world: Secured) -> None:
    unknown = world.as_("zoe", ListJobs())
    world.tokens["ann"] = "not-the-token-of-ann"
    wrong = world.as_("ann", ListJobs())
    assert unknown.problem and wrong.problem
    assert unknown.problem.message.replace("zoe", "ann") == wrong.problem.message


def test_stored_key_cannot_sign_a_request(world: Secured) -> None:
    stored = world.master.state.users["ann"].stored_key
    world.tokens["ann"] = stored
    assert kind(world.as_("ann", ListJobs())) == "refused"


def test_replay_is_neither_answered_nor_carried_out_again(world: Secured) -> None:
    world.as_("ann", SubmitJob(spec=job()))
    stop = world.sign("ann", StopJob(job="web"))
    read = world.sign("ann", ListJobs())
    assert [kind(answer) for answer in world.send(stop) + world.send(read)] == ["ok", "ok"]
    world.as_("ann", StartJob(job="web"))
    assert world.send(stop) == [] == world.send(read)
    world.run(200)
    assert [kind(answer) for answer in world.send(stop) + world.send(read)] == ["refused", "refused"]
    assert next(iter(world.master.state.jobs.values())).desired == "run"


def test_replay_to_the_next_leader_is_not_carried_out_again(world: Secured) -> None:
    world.as_("ann", SubmitJob(spec=job()))
    stop = world.sign("ann", StopJob(job="web"))
    world.send(stop)
    world.as_("ann", StartJob(job="web"))
    world.failover()
    world.send(stop)
    assert next(iter(world.master.state.jobs.values())).desired == "run"


def test_same_key_signed_again_is_answered_again_and_carried_out_once(world: Secured) -> None:
    first = world.send(world.sign("ann", SubmitJob(spec=job()), key="same"))
    again = world.send(world.sign("ann", SubmitJob(spec=job()), key="same"))
    assert first == again != []
    (other,) = world.send(world.sign("bob", SubmitJob(spec=job()), key="same"))
    assert kind(other) == "conflict"


@pytest.mark.parametrize("age_s", [-121, 121])
def test_a_request_signed_long_ago_or_in_the_future_is_refused(world: Secured, age_s: float) -> None:
    (answer,) = world.send(world.sign("ann", ListJobs(), at_s=world.now - age_s))
    assert kind(answer) == "refused"


def test_signed_read_is_not_answered_again_after_a_step_that_raised(world: Secured) -> None:
    request = world.sign("ann", ListJobs())
    assert len(world.send(request)) == 1
    world.feed(GroupStatuses(statuses=(None,)))  # type: ignore[arg-type]
    assert world.leader.poisonous == 1
    assert world.send(request) == []


def test_signed_read_in_a_step_that_raised_is_answered_once(world: Secured) -> None:
    request = world.sign("ann", ListJobs())
    world.feed(request, GroupStatuses(statuses=(None,)))  # type: ignore[arg-type]
    assert world.leader.poisonous == 1
    assert world.answer(request) is not None
    assert world.send(request) == []


def test_nonces_are_bounded_for_each_user_separately() -> None:
    world = Secured(nonces_max=5)
    world.make("ann", {})
    kinds = [kind(world.as_("ann", ListJobs())) for _ in range(7)]
    assert kinds == ["ok"] * 5 + ["unreachable"] * 2
    world.run(250)
    assert kind(world.as_("ann", ListJobs())) == "ok"


def test_change_whose_answer_cannot_be_kept_is_refused() -> None:
    world = Secured(answers_max=3)
    kinds = [kind(world.as_("root", StopJob(job="x"))) for _ in range(8)]
    assert kinds == ["not-found"] * 6 + ["unreachable"] * 2
    world.run(250)
    assert kind(world.as_("root", StopJob(job="x"))) == "not-found"
    assert len(world.master.state.requests.answers) <= 6


NEEDS = {
    "galaxy.job.submit": "submit_job",
    "galaxy.job.update": "update_job",
    "galaxy.job.stop": "update_job",
    "galaxy.job.start": "update_job",
    "galaxy.job.recover": "update_job",
    "galaxy.job.remove": "remove_job",
    "galaxy.pod.exec": "update_job",
}


def bodies(name: str) -> dict[str, Body[Any]]:
    return {
        "galaxy.job.submit": SubmitJob(spec=job("fresh")),
        "galaxy.job.update": UpdateJob(job=name, spec=with_task(job(name), start="serve 2")),
        "galaxy.job.stop": StopJob(job=name),
        "galaxy.job.start": StartJob(job=name),
        "galaxy.job.recover": RecoverPod(job=name),
        "galaxy.job.remove": RemoveJob(job=name),
        "galaxy.pod.exec": ExecIn(pod=name, argv=("id",)),
        "galaxy.job.logs": ReadLogs(target=name),
    }


@pytest.mark.parametrize("op", NEEDS)
def test_each_change_needs_its_own_authority_on_the_pool(op: str) -> None:
    world = Secured()
    world.make("ann", {"main": JOB})
    world.as_("ann", SubmitJob(spec=job()))
    world.run(20)
    needed = Authority(NEEDS[op])
    others = tuple(authority for authority in Authority if authority is not needed)
    world.as_("root", GrantUser(user="ann", pool="main", action="set", authorities=others))
    answer = world.as_("ann", bodies("web")[op])
    assert answer.problem is not None and answer.problem.kind == "refused"
    assert f"{needed} is not granted on pool main" in answer.problem.details[0]
    world.as_("root", GrantUser(user="ann", pool="main", action="set", authorities=(needed,)))
    assert kind(world.as_("ann", bodies("web")[op])) == "ok"


@pytest.mark.parametrize("op", [op for op in (*NEEDS, "galaxy.job.logs") if op != "galaxy.job.submit"])
def test_operation_on_another_users_job_is_refused_except_for_operators(world: Secured, op: str) -> None:
    world.as_("ann", SubmitJob(spec=job()))
    world.run(20)
    for name in ("web", next(iter(world.master.state.jobs))):
        answer = world.as_("bob", bodies("web")[op] if op == "galaxy.job.update" else bodies(name)[op])
        assert answer.problem is not None and answer.problem.kind == "refused"
        assert 'it belongs to "ann"' in answer.problem.details
    if op == "galaxy.job.logs":
        pod = next(iter(world.master.state.pods))
        assert kind(world.as_("bob", ReadLogs(target=pod))) == "refused"
    assert kind(world.as_("root", bodies("web")[op])) == "ok"


@pytest.mark.parametrize("op", ["galaxy.job.stop", "galaxy.job.remove", "galaxy.job.update"])
def test_removed_job_named_like_the_beginning_of_another_users_id_gives_no_access_to_it(
    world: Secured, op: str
) -> None:
    world.as_("bob", SubmitJob(spec=job()))
    world.run(20)
    (bobs,) = world.master.state.jobs
    beginning = bobs[: len("web-") + 1]
    world.as_("ann", SubmitJob(spec=job(beginning)))
    world.run(20)
    world.as_("ann", RemoveJob(job=beginning))
    world.run(20)
    assert list(world.master.state.jobs) == [bobs]
    before = world.master.state.jobs[bobs]
    spec = with_task(job(), start="steal")
    body = UpdateJob(job=beginning, spec=spec) if op == "galaxy.job.update" else StopJob(job=beginning)
    assert kind(world.as_("ann", body)) == "not-found"
    assert world.master.state.jobs[bobs].desired == before.desired
    assert world.master.state.jobs[bobs].revision == before.revision


def test_a_job_that_names_no_pool_needs_a_grant_on_every_pool(world: Secured) -> None:
    answer = world.as_("ann", SubmitJob(spec=service()))
    assert answer.problem is not None and "deploy.pools" in answer.problem.hint
    world.as_(
        "root", GrantUser(user="ann", pool="*", action="add", authorities=(Authority.SUBMIT_JOB,)),
    )  # fmt: skip
    assert kind(world.as_("ann", SubmitJob(spec=service()))) == "ok"


def test_an_update_cannot_reach_a_pool_without_a_grant(world: Secured) -> None:
    world.as_("ann", SubmitJob(spec=job()))
    answer = world.as_("ann", UpdateJob(job="web", spec=job(pool="gold")))
    assert kind(answer) == "refused"


def test_grants_are_added_removed_set_and_cleared(world: Secured) -> None:
    def grant(action: str, *authorities: str) -> Any:
        given = tuple(Authority(one) for one in authorities)
        asked = GrantUser(user="ann", pool="p", action=action, authorities=given)
        return dict(world.as_("root", asked).result.grants).get("p")

    assert grant("add", "submit_job", "list_job") == ("list_job", "submit_job")
    assert grant("add", "remove_job") == ("list_job", "remove_job", "submit_job")
    assert grant("remove", "submit_job") == ("list_job", "remove_job")
    assert grant("set", "update_job") == ("update_job",)
    assert grant("clear") is None


def test_users_see_their_own_jobs_and_those_of_pools_they_may_list(world: Secured) -> None:
    secret = with_task(job("ann-web"), env={"PASSWORD": "hunter2"})
    world.as_("ann", SubmitJob(spec=secret))
    names = [line.name for line in world.as_("bob", ListJobs()).result.jobs]
    assert names == ["ann-web"]
    seen = world.as_("bob", ShowJob(job="ann-web")).result
    assert seen.spec.pod.tasks[0].env == {"PASSWORD": "(hidden)"}
    own = world.as_("ann", ShowJob(job="ann-web")).result
    assert own.spec.pod.tasks[0].env == {"PASSWORD": "hunter2"}
    world.as_("root", GrantUser(user="bob", pool="main", action="clear"))
    assert world.as_("bob", ListJobs()).result.jobs == ()
    assert kind(world.as_("bob", ShowJob(job="ann-web"))) == "refused"
    assert len(world.as_("ann", ListJobs()).result.jobs) == 1


@pytest.mark.parametrize(
    ("pools", "sees"), [((), True), (("main",), True), (("main", "other"), True), (("other",), False)]
)
def test_user_with_list_job_sees_every_job_that_may_run_in_the_pool(
    world: Secured, pools: tuple[str, ...], sees: bool
) -> None:
    world.make("eve", {"main": (Authority.LIST_JOB,)})
    assert world.as_("root", SubmitJob(spec=with_deploy(service(), pools=pools))).problem is None
    found = world.as_("eve", ListJobs()).result
    assert ([job.name for job in found.jobs], found.hidden) == ((["web"], 0) if sees else ([], 1))
    assert (world.as_("eve", ShowJob(job="web")).problem is None) is sees


def test_user_without_list_job_is_told_how_many_jobs_are_not_shown(world: Secured) -> None:
    world.make("eve", {"main": (Authority.SUBMIT_JOB,)})
    assert world.as_("root", SubmitJob(spec=with_deploy(service(), pools=()))).problem is None
    found = world.as_("eve", ListJobs()).result
    assert (found.jobs, found.hidden) == ((), 1)


KEY = stored_key("some other token")


@pytest.mark.parametrize(
    "body",
    [
        AddUser(user="eve", stored_key=KEY, role=Role.OPERATOR),
        RemoveUser(user="bob"),
        SetToken(user="root", stored_key=KEY),
        GrantUser(user="ann", pool="*", action="set", authorities=tuple(Authority)),
        ShowUser(user="root"),
        ListUsers(),
        ListAudit(),
    ],
    ids=lambda body: body.op,
)
def test_users_are_managed_by_operators_only(world: Secured, body: Body[Any]) -> None:
    before = list(world.master.state.users.values())
    assert kind(world.as_("ann", body)) == "refused"
    assert list(world.master.state.users.values()) == before


def test_users_may_show_themselves_and_change_their_own_token(world: Secured) -> None:
    assert world.as_("ann", ShowUser(user="ann")).result.role is Role.USER
    body = SetToken(user="ann", stored_key=stored_key("another token of ann"))
    assert kind(world.as_("ann", body)) == "ok"
    assert kind(world.as_("ann", ListJobs())) == "refused"
    world.tokens["ann"] = "another token of ann"
    assert kind(world.as_("ann", ListJobs())) == "ok"


def test_last_operator_cannot_be_removed(world: Secured) -> None:
    assert kind(world.as_("root", RemoveUser(user="root"))) == "refused"
    world.make("second", {}, Role.OPERATOR)
    assert kind(world.as_("second", RemoveUser(user="root"))) == "ok"
    assert kind(world.as_("root", ListJobs())) == "refused"


def test_users_and_audit_survive_a_failover_and_the_first_operator_is_created_once(world: Secured) -> None:
    world.make("second", {}, Role.OPERATOR)
    world.as_("second", RemoveUser(user="root"))
    trail = world.as_("second", ListAudit()).result
    world.failover()
    assert "root" not in world.master.state.users
    assert world.as_("second", ListAudit()).result == trail


def test_audit_trail_records_every_change_and_every_refused_one(world: Secured) -> None:
    start = world.as_("root", ListAudit()).result.last
    start_s = world.now
    world.as_("ann", SubmitJob(spec=job()))
    world.as_("bob", RemoveJob(job="web"))
    world.as_("ann", ListJobs())
    world.as_("root", StopJob(job="nothing"))
    found = world.as_("root", ListAudit(after=start)).result
    assert [(one.user, one.op, one.target, one.result) for one in found.records] == [
        ("ann", "galaxy.job.submit", "web", "ok"),
        ("bob", "galaxy.job.remove", "web", "refused"),
        ("root", "galaxy.job.stop", "nothing", "not-found"),
    ]
    assert start_s < found.records[0].at_s < world.now
    assert found.last == found.records[-1].serial


def test_the_audit_trail_is_bounded_and_can_be_followed() -> None:
    world = Secured(audit_max=5)
    for number in range(9):
        world.as_("root", StopJob(job=f"j{number}"))
    state = world.master.state
    assert len(state.requests.audit) == 5
    newest = world.as_("root", ListAudit(limit=2)).result.records
    assert [one.target for one in newest] == ["j7", "j8"]
    after = world.as_("root", ListAudit(after=newest[0].serial)).result.records
    assert [one.target for one in after] == ["j8"]
    old = world.as_("root", ListAudit(after=1, limit=2)).result.records
    assert [one.target for one in old] == ["j4", "j5"]


def test_no_view_contains_a_token_or_a_key(world: Secured) -> None:
    answers = [
        world.as_("root", ListUsers()),
        world.as_("root", ShowUser(user="ann")),
        world.as_("root", ListAudit(limit=1000)),
    ]
    text = b"".join(encode(answer) for answer in answers).decode()
    assert "the-token-of-ann" not in text
    assert world.master.state.users["ann"].stored_key not in text


def test_token_is_split_into_user_and_secret() -> None:
    assert split_token("ann:" + "x" * 20 + "\n") == ("ann", "x" * 20)
    for wrong in ("", "ann", "ann:short", ":" + "x" * 30):
        with pytest.raises(Exception, match="not a token"):
            split_token(wrong)


def test_signature_is_valid_for_its_token_only() -> None:
    request = Request(op="o", key="k", reply="r", deadline_s=1.0, user="ann", body=StopJob(job="x"))
    signed = msgspec.structs.replace(request, proof=proof_of(request, "token"))
    assert is_signed(signed, stored_key("token"))
    assert not is_signed(signed, stored_key("tokem"))
    assert not is_signed(signed, "not hex")
