"""An idempotency key belongs to one request: its repetition gets the first answer, another one a conflict."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from galaxy.appmaster.logic import AppMasterConfig
from galaxy.model.api.answers import Answer
from galaxy.model.api.body import Body
from galaxy.model.api.jobs import RecoverPod, RemoveJob, StartJob, StopJob, SubmitJob, UpdateJob
from galaxy.model.api.quotas import SetQuota
from galaxy.model.api.secrets import RemoveSecret, SetSecret
from galaxy.model.api.sessions import ReadLogs
from galaxy.model.resources import Ceiling
from galaxy.model.stored.secret import EnvFrom, Secret
from tests.unit.appmaster.world import World, batch, service, with_task

WEB, DB = service("web", replica=1), service("db", replica=1)


def conflict(answer: Answer) -> str:
    """Return the whole text of the conflict that ``answer`` is."""
    assert answer.problem is not None, "the other request was answered with the first one's result"
    assert answer.problem.kind == "conflict"
    return "\n".join((answer.problem.message, *answer.problem.details, answer.problem.hint))


def test_key_of_another_job_is_a_conflict_that_names_both() -> None:
    world = World()
    world.submit(WEB, key="K")
    text = conflict(world.request(SubmitJob(spec=DB), key="K"))
    assert "K" in text
    assert 'job.submit of "web"' in text
    assert 'job.submit of "db"' in text
    assert world.request(SubmitJob(spec=DB)).problem is None, "db was not submitted by the refused request"


def test_repetition_gets_the_first_answer_also_when_it_cannot_be_made_again() -> None:
    world = World()
    job = world.submit(WEB, key="K")
    assert world.submit(WEB, key="K") == job
    world.failover()
    assert world.submit(WEB, key="K") == job


WITH_FILE = with_task(service("web2"), env={"TOKEN": EnvFrom(file="token")})
CHANGES: dict[str, tuple[Body[Any], Body[Any]]] = {
    "submit": (SubmitJob(spec=batch("b1")), SubmitJob(spec=batch("b1", replica=2))),
    "secret file": (
        SubmitJob(spec=WITH_FILE, files={"token": Secret(text="one")}),
        SubmitJob(spec=WITH_FILE, files={"token": Secret(text="two")}),
    ),
    "update": (
        UpdateJob(job="web", spec=service("web", start="serve 2", replica=1)),
        UpdateJob(job="web", spec=service("web", start="serve 3", replica=1)),
    ),
    "stop": (StopJob(job="web"), StopJob(job="db")),
    "start": (StartJob(job="web"), StartJob(job="db")),
    "stop, then start": (StopJob(job="web"), StartJob(job="web")),
    "remove": (RemoveJob(job="web"), RemoveJob(job="db")),
    "recover": (RecoverPod(job="web"), RecoverPod(job="db")),
    "secret": (SetSecret(name="a", value=Secret(text="1")), SetSecret(name="a", value=Secret(text="2"))),
    "remove secret": (RemoveSecret(name="a"), RemoveSecret(name="b")),
    "quota": (
        SetQuota(user="ann", ceiling=Ceiling(containers=5)),
        SetQuota(user="ann", ceiling=Ceiling(containers=6)),
    ),
    "logs": (ReadLogs(target="web"), ReadLogs(target="web", task="main")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_bound_to_its_key(name: str) -> None:
    first, other = CHANGES[name]
    world = World()
    world.submit(WEB)
    world.submit(DB)
    world.settle("web")
    before = world.request(first, key="K")
    assert "K" in conflict(world.request(other, key="K"))
    again = world.request(first, key="K")
    assert msgspec.structs.replace(again, key="") == msgspec.structs.replace(before, key="")


def test_key_stays_bound_to_a_job_after_its_answer_was_dropped() -> None:
    world = World(config=AppMasterConfig(answers_max=1, answers_s=1.0))
    job = world.submit(WEB, key="K")
    world.run(2.0)
    world.ask(SetSecret(name="a", value=Secret(text="1")))
    world.run(2.0)
    world.ask(SetSecret(name="b", value=Secret(text="1")))
    assert "K" not in world.master.tables["answers"]
    assert world.submit(WEB, key="K") == job
    assert '"web"' in conflict(world.request(SubmitJob(spec=DB), key="K"))
    changed = service("web", start="serve 2", replica=1)
    assert '"web"' in conflict(world.request(SubmitJob(spec=changed), key="K"))


def test_same_target_with_other_content_is_told_apart_in_words() -> None:
    world = World()
    world.submit(WEB, key="K")
    text = conflict(world.request(SubmitJob(spec=service("web", start="serve 2", replica=1)), key="K"))
    assert "other content" in text
