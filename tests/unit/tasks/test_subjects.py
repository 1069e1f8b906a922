"""Flower shows the names of jobs, pods and users in a message, and no other value."""

from __future__ import annotations

from typing import Any

import pytest

from galaxy.model.base import encode
from galaxy.model.messages import names
from galaxy.model.messages.container import ContainerOrders, DestroyContainer
from galaxy.tasks.subjects import subjects_of


def request(**body: Any) -> bytes:
    return encode({"op": "x", "key": "k", "reply": "r", "deadline_s": 1.0, "user": "ann", "body": body})


@pytest.mark.parametrize(
    ("task", "body", "shown"),
    [
        ("galaxy.job.submit", request(spec={"name": "web", "env": {"TOKEN": "s3cret"}}, files={}), "('web')"),
        ("galaxy.job.update", request(job="web", spec={"name": "web"}), "('web', 'web')"),
        ("galaxy.pod.exec", request(pod="web.0", argv=["echo", "s3cret"]), "('web.0')"),
        ("galaxy.secret.set", request(name="token", value="s3cret", user="ann"), "('ann')"),
        ("galaxy.user.token", request(user="ann", stored_key="s3cret"), "('ann')"),
        ("galaxy.cluster.status", request(), "()"),
        ("galaxy.job.show", request(job="s3cret text"), "()"),
        ("galaxy.job.show", request(job="x" * 200), "()"),
        ("galaxy.job.show", request(job={"s3cret": 1}), "()"),
        ("galaxy.job.show", encode({"body": None}), "()"),
        ("galaxy.job.show", b"[" * 100_000, "()"),
        ("galaxy.job.show", b"\xff", "()"),
        ("no.such.task", request(job="web"), "()"),
        (names.POD_DEPLOY, encode({"orders": [{"pod": "web.0", "env": {"A": "s3cret"}}]}), "('web.0')"),
        (names.GROUP_APPLY, encode({"orders": [{"group": "web-1"}]}), "('web-1')"),
        (names.GROUP_STATUS, encode({"statuses": [{"group": "web-1"}]}), "('web-1')"),
        (names.EXEC_SESSION, encode({"session": "s3cret", "pod": "web.0"}), "('web.0')"),
    ],
)
def test_names_are_shown_and_values_are_not(task: str, body: bytes, shown: str) -> None:
    assert subjects_of(task, body) == shown


def test_long_list_is_cut_and_counted() -> None:
    destroy = tuple(DestroyContainer(container=f"web.{n}", incarnation=1) for n in range(100))
    orders = ContainerOrders(agent="h1", epoch=1, until_s=1.0, destroy=destroy)
    assert subjects_of(names.CONTAINER_APPLY, encode(orders)) == (
        "('web.0', 'web.1', 'web.2', 'web.3', 'web.4', 95 more)"
    )
