"""AppMaster that gets requests and reports with absurd values never raises, and answers every request."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import assume, given
from hypothesis import strategies as st

from galaxy.appmaster.logic import AppMaster
from galaxy.appmaster.logic.api.requests import OPERATIONS
from galaxy.model.api.answers import Answer
from galaxy.model.api.catalog import BODIES
from galaxy.model.api.jobs import Accepted, SubmitJob, UpdateJob
from galaxy.model.api.quotas import SetQuota
from galaxy.model.api.request import Request
from galaxy.model.base import decode, encode
from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.messages.agent import AgentReport, HeartbeatsRead
from galaxy.model.messages.container import ContainerState, GroupStatus, GroupStatuses, SlotStatus
from galaxy.model.messages.pod import ObservedPod, PodState
from galaxy.model.resources import Ceiling
from galaxy.model.step import Step
from galaxy.model.stored.secret import EnvFrom, Secret
from tests.property.effort import examples
from tests.property.hostile_messages import AGENTS, floats, hostile, texts
from tests.property.tables import Disk, snapshot
from tests.unit.appmaster.world import batch, service, with_task
from tests.unit.model.jobs import jobs

START_S = 1_000_000.0
OPS = tuple(OPERATIONS)
SPECS = st.one_of(
    st.builds(
        service, name=st.sampled_from(("web", "far")), replica=st.integers(0, 5), step=st.integers(1, 3)
    ),
    st.builds(batch, replica=st.integers(0, 5)),
    st.builds(lambda start: with_task(service(), start=start), st.sampled_from(("serve", "serve 2"))),
    jobs().map(
        lambda spec: msgspec.structs.replace(spec, deploy=msgspec.structs.replace(spec.deploy, replica=2))
    ),
)


def requests(ops: tuple[str, ...] = OPS) -> st.SearchStrategy[Request]:
    return st.sampled_from(ops).flatmap(
        lambda op: st.builds(
            Request,
            op=st.just(op),
            key=st.sampled_from(("k1", "k2", "k3")) | texts(),
            reply=texts(),
            deadline_s=st.just(START_S + 10_000) | floats(),
            user=texts(),
            body=hostile(BODIES[op]),
        )
    )


def files(spec: JobSpec) -> dict[str, Secret]:
    """Return the content of every file that a job names. Its secrets may or may not exist."""
    sources = (source for task in spec.pod.tasks for source in task.env.values())
    return {one.file: Secret(text="x") for one in sources if isinstance(one, EnvFrom) and one.file}


def quotas() -> st.SearchStrategy[Request]:
    return st.builds(
        lambda key, user, ceiling: _request("galaxy.quota.set", key, SetQuota(user=user, ceiling=ceiling)),
        st.sampled_from(("q1", "q2")), st.just("web"), hostile(Ceiling),
    )  # fmt: skip


def submits() -> st.SearchStrategy[Request]:
    return st.builds(
        lambda key, spec: _request("galaxy.job.submit", key, SubmitJob(spec=spec, files=files(spec))),
        st.sampled_from(("k1", "k2", "k3", "k4")),
        SPECS,
    )


def updates() -> st.SearchStrategy[Request]:
    return st.builds(
        lambda key, spec: _request(
            "galaxy.job.update", key, UpdateJob(job=spec.name, spec=spec, files=files(spec))
        ),
        st.sampled_from(("u1", "u2", "u3")),
        SPECS,
    )


def _request(op: str, key: str, body: Any) -> Request:
    return Request(op=op, key=key, reply="r", deadline_s=START_S + 10_000, user="web", body=body)


class Leader:
    """An AppMaster, stepped and committed as its driver does."""

    def __init__(self) -> None:
        self.appmaster = AppMaster()
        self.disk = Disk(self.appmaster.tables)
        self.now_s = START_S
        self.epoch = 0
        self.lead()

    def lead(self) -> None:
        self.epoch += 1
        self.appmaster.lead(self.epoch, self.now_s)

    def step(self, events: list[Any]) -> Step:
        step = self.appmaster.step(self.now_s, events)
        for send in step.sends:
            decode(encode(send.body), type(send.body))
        for reply in step.replies:
            decode(encode(reply.answer), Answer)
        self.disk.commit(self.appmaster.tables)
        self.check()
        return step

    def check(self) -> None:
        """Assert that every row that another row refers to exists."""
        state = self.appmaster.state
        for pod in state.pods.values():
            assert pod.job in state.jobs
            assert f"{pod.job}@{pod.target}" in state.revisions
        for endpoint in state.endpoints.values():
            assert endpoint.pod in state.pods
        for job in state.jobs.values():
            assert f"{job.job}@{job.revision}" in state.revisions
        assert set(state.revision_secrets) <= set(state.revisions)
        names = [job.name for job in state.jobs.values() if job.desired != "remove"]
        assert len(names) == len(set(names)), "two live jobs of one name"

    def succeed(self) -> None:
        """Replace the leader by a new one that loads the committed tables."""
        old = snapshot(self.appmaster.tables)
        self.appmaster = AppMaster()
        self.disk.load(self.appmaster.tables)
        assert snapshot(self.appmaster.tables) == old
        self.lead()


@st.composite
def reports(draw: st.DrawFn) -> Any:
    """Draw a report of slots or pods with absurd or plausible values, for ``_addressed``."""
    picks = draw(st.lists(st.integers(0, 20), min_size=1, max_size=4))
    if draw(st.booleans()):
        slots = [draw(hostile(SlotStatus)) for _ in picks]
        plausible = draw(st.booleans())
        if plausible:
            slots = [
                msgspec.structs.replace(
                    slot, agent=draw(st.sampled_from(AGENTS)), incarnation=draw(st.integers(0, 3)),
                    state=draw(st.sampled_from([ContainerState.READY, *ContainerState])),
                )
                for slot in slots
            ]  # fmt: skip
        return ("slots", picks, slots, draw(st.integers(0, 9)), draw(st.booleans()), draw(st.booleans()))
    observed = [draw(hostile(ObservedPod)) for _ in picks]
    if draw(st.booleans()):
        observed = [
            msgspec.structs.replace(
                one, incarnation=draw(st.integers(0, 3)), generation=draw(st.integers(0, 4)),
                state=draw(st.sampled_from([PodState.RUNNING, *PodState])),
            )
            for one in observed
        ]  # fmt: skip
    return (
        "pods",
        picks,
        observed,
        draw(st.sampled_from(AGENTS)),
        draw(st.integers(0, 9)),
        draw(st.booleans()),
    )


def _addressed(leader: Leader, drawn_report: Any) -> Any:
    """Return a drawn report as one about pods that exist, chosen by the drawn numbers."""
    pods = sorted(leader.appmaster.state.pods) or ["web-abc123.0"]
    kind, picks, drawn, *rest = drawn_report
    named = [pods[pick % len(pods)] for pick in picks]
    if kind == "slots":
        serial, full, known = rest
        slots = tuple(
            msgspec.structs.replace(slot, container=pod) for slot, pod in zip(drawn, named, strict=True)
        )
        group = named[0].rpartition(".")[0]
        status = GroupStatus(group=group, epoch=1, serial=serial, slots=slots, full=full, known=known)
        return GroupStatuses(statuses=(status,))
    agent, serial, full = rest
    observed = tuple(msgspec.structs.replace(one, pod=pod) for one, pod in zip(drawn, named, strict=True))
    return AgentReport(agent=agent, boot="boot-1", serial=serial, full=full, pods=observed)


EVENTS = st.one_of(
    submits(), updates(), requests(), quotas(), reports(), reports(), reports(),
    hostile(GroupStatuses), hostile(AgentReport), hostile(HeartbeatsRead),
)  # fmt: skip
BATCHES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 3.0, 40.0, 4000.0]), st.lists(EVENTS, min_size=1, max_size=4)),
    max_size=7,
)


def play(leader: Leader, batches: list[Any]) -> None:
    for seconds, events in batches:
        leader.now_s += seconds
        leader.step([_addressed(leader, event) if isinstance(event, tuple) else event for event in events])


@examples(150)
@given(submits(), BATCHES)
def test_no_messages_make_appmaster_raise_or_its_tables_inconsistent(
    first: Request, batches: list[Any]
) -> None:
    leader = Leader()
    leader.step([first])
    play(leader, batches)


@examples(60)
@given(submits(), BATCHES, BATCHES)
def test_new_leader_after_any_messages_loads_the_same_tables_and_continues(
    first: Request, before: list[Any], after: list[Any]
) -> None:
    leader = Leader()
    leader.step([first])
    play(leader, before)
    leader.succeed()
    play(leader, after)


@examples(150)
@given(requests())
def test_request_within_its_deadline_is_answered_once(request: Request) -> None:
    leader = Leader()
    request = msgspec.structs.replace(request, deadline_s=START_S + 60)
    step = leader.step([request])
    assert [reply.answer.key for reply in step.replies] == [request.key]
    assert step.replies[0].reply == request.reply


@examples(60)
@given(requests(tuple(op for op in OPS if op.startswith("galaxy.job"))), BATCHES)
def test_repeated_key_gets_the_first_answer_after_any_messages_in_between(
    request: Request, between: list[Any]
) -> None:
    leader = Leader()
    request = msgspec.structs.replace(request, key="the-key", deadline_s=START_S + 10**6)
    first = leader.step([request]).replies[0].answer
    play(leader, [(0.0, events) for _, events in between])
    assume(not len(leader.appmaster.state.users))  # With a first user, unsigned requests are refused.
    again = leader.step([request]).replies[0].answer
    if isinstance(first.result, Accepted) or (first.problem and request.op not in _reads()):
        assert again == first


def _reads() -> tuple[str, ...]:
    return ("galaxy.job.list", "galaxy.job.show")


@examples(60)
@given(submits(), st.lists(EVENTS, max_size=5))
def test_step_that_was_not_committed_leaves_appmasters_tables_unchanged(
    first: Request, events: list[Any]
) -> None:
    leader = Leader()
    leader.step([first])
    before = snapshot(leader.appmaster.tables)
    leader.appmaster.step(
        leader.now_s + 1,
        [_addressed(leader, event) if isinstance(event, tuple) else event for event in events],
    )
    for table in leader.appmaster.tables.values():
        table.discard()
    assert snapshot(leader.appmaster.tables) == before
