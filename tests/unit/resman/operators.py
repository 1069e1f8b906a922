"""Users who ask ResMan in tests: signed requests, and what came back."""

from __future__ import annotations

import itertools
from typing import Any, TypeVar

import msgspec

from galaxy.model.api.answers import Answer
from galaxy.model.api.body import Body
from galaxy.model.api.request import Request
from galaxy.model.api.signing import proof_of, stored_key
from galaxy.model.base import Struct, decode, from_plain
from galaxy.model.messages.container import GroupOrders
from galaxy.model.messages.identity import IdentityOrder, UserKey
from galaxy.model.stored.user import Role
from tests.unit.resman.cluster import Cluster

R = TypeVar("R", bound=Struct)

ROOT = "a-token-of-an-operator"
OPERATOR = UserKey(user="root", stored_key=stored_key(ROOT), role=Role.OPERATOR)
ANN = "a-token-of-a-user"
USER = UserKey(user="ann", stored_key=stored_key(ANN), role=Role.USER)

serials = itertools.count(1)


def tell_users(cluster: Cluster, *users: UserKey, open: bool = False) -> None:
    """Hand over users' keys, as AppMaster does."""
    order = IdentityOrder(epoch=1, serial=next(serials), users=users, open=open)
    cluster.receive(GroupOrders(orders=(), identity=order))
    cluster.settle()


def request(cluster: Cluster, body: Body[Any], *, user: str = "", token: str = "", key: str = "") -> Request:
    number = next(serials)
    asked = Request(
        op=body.op, key=key or f"k{number}", reply=f"r{number}", deadline_s=cluster.now_s + 30, user=user,
        body=body, at_s=cluster.now_s, nonce=f"n{number}",
    )  # fmt: skip
    return msgspec.structs.replace(asked, proof=proof_of(asked, token)) if token else asked


def send(cluster: Cluster, asked: Request) -> list[Answer]:
    """Let a request arrive at ResMan; return its answers, none or one."""
    cluster.step(asked)
    answers = []
    while (data := cluster.nexus.await_reply(asked.reply, 0.0)) is not None:
        answers.append(decode(data, Answer))
    return answers


def ask(cluster: Cluster, body: Body[Any], **who: str) -> Answer:
    """Return the answer to ``body``, unsigned unless a ``user`` and a ``token`` are given."""
    (answer,) = send(cluster, request(cluster, body, **who))
    return answer


def as_root(cluster: Cluster, body: Body[R]) -> R:
    """Return the result of ``body``, asked by the operator; an error fails the test."""
    answer = ask(cluster, body, user="root", token=ROOT)
    assert answer.problem is None, answer.problem
    result: type[R] = body.result
    return from_plain(answer.result, result)


def refused(cluster: Cluster, body: Body[Any]) -> tuple[str, str]:
    """Return the kind and the whole text of the error of ``body``, asked by the operator."""
    answer = ask(cluster, body, user="root", token=ROOT)
    assert answer.problem is not None, answer.result
    problem = answer.problem
    return problem.kind, "\n".join((problem.message, *problem.details, problem.hint))


def kind(answer: Answer) -> str:
    return answer.problem.kind if answer.problem else "ok"
