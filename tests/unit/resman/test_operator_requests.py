"""Requests of operators to ResMan: which it answers, with AppMaster and without it."""

from __future__ import annotations

import msgspec
import pytest

from galaxy.model.api.answers import Answer
from galaxy.model.api.safemode import SafeModeView, ShowSafeMode
from galaxy.model.api.signing import stored_key
from galaxy.model.base import from_plain
from galaxy.model.messages.identity import UserKey
from galaxy.model.messages.names import RESMAN
from galaxy.model.stored.user import Role
from tests.unit.resman.cluster import Cluster, info
from tests.unit.resman.operators import OPERATOR, ROOT, ask, kind, request, send, tell_users


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(info("h1"), info("h2"))


def shown(answer: Answer) -> SafeModeView:
    return from_plain(answer.result, SafeModeView)


def test_resman_that_was_never_told_operators_answers_nobody(cluster: Cluster) -> None:
    answer = ask(cluster, ShowSafeMode(), user="root", token=ROOT)
    assert answer.problem is not None
    assert (answer.problem.kind, answer.problem.hint) == (
        "unreachable",
        "galaxy status, and the log of the appmaster process",
    )


def test_operator_is_answered_while_no_appmaster_runs(cluster: Cluster) -> None:
    tell_users(cluster, OPERATOR)
    assert shown(ask(cluster, ShowSafeMode(), user="root", token=ROOT)) == SafeModeView(active=False)
    cluster.cut_off("h1", "h2")
    cluster.run(12.0)
    cluster.failover(RESMAN)
    cluster.settle()
    view = shown(ask(cluster, ShowSafeMode(), user="root", token=ROOT))
    leader = cluster.nexus.leader(RESMAN)
    assert leader is not None
    assert (view.active, view.code, view.since_s) == (True, "start", leader.since_s)
    assert "waiting for 2 known agents" in view.message


@pytest.mark.parametrize(
    ("user", "token"),
    [("root", ""), ("root", "another token"), ("ann", ROOT)],
    ids=["unsigned", "wrong", "unknown"],
)
def test_anybody_but_an_operator_is_refused(cluster: Cluster, user: str, token: str) -> None:
    tell_users(cluster, OPERATOR)
    assert kind(ask(cluster, ShowSafeMode(), user=user, token=token)) == "refused"


def test_cluster_without_users_is_open_to_everybody(cluster: Cluster) -> None:
    tell_users(cluster, open=True)
    assert kind(ask(cluster, ShowSafeMode(), user="ann")) == "ok"


def test_operator_who_was_removed_is_refused(cluster: Cluster) -> None:
    tell_users(cluster, OPERATOR)
    assert kind(ask(cluster, ShowSafeMode(), user="root", token=ROOT)) == "ok"
    tell_users(cluster, UserKey(user="second", stored_key=stored_key("another token"), role=Role.OPERATOR))
    assert kind(ask(cluster, ShowSafeMode(), user="root", token=ROOT)) == "refused"


def test_copy_of_a_request_gets_no_answer(cluster: Cluster) -> None:
    tell_users(cluster, OPERATOR)
    asked = request(cluster, ShowSafeMode(), user="root", token=ROOT)
    assert [kind(answer) for answer in send(cluster, asked) + send(cluster, asked)] == ["ok"]


def test_request_that_was_signed_long_ago_is_refused(cluster: Cluster) -> None:
    tell_users(cluster, OPERATOR)
    asked = request(cluster, ShowSafeMode(), user="root", token=ROOT)
    cluster.run(121.0)
    (answer,) = send(cluster, asked)
    assert kind(answer) == "refused"


def test_operation_of_appmaster_is_wrong_usage_here(cluster: Cluster) -> None:
    tell_users(cluster, OPERATOR)
    asked = msgspec.structs.replace(request(cluster, ShowSafeMode()), op="galaxy.user.list")
    (answer,) = send(cluster, asked)
    assert kind(answer) == "usage"
