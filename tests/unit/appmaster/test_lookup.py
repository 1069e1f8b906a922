"""Names, ids, prefixes; logs and exec; discovery: what a person typed finds what is meant."""

from typing import Any

import msgspec
import pytest

from galaxy.appmaster.logic import AppMasterConfig
from galaxy.model.api.answers import Problem
from galaxy.model.api.body import Body
from galaxy.model.api.jobs import Discover, RemoveJob, ShowJob, StartJob, StopJob
from galaxy.model.api.packages import UploadPackage
from galaxy.model.api.sessions import ExecIn, ReadLogs
from galaxy.model.jobspec.spec import PortSpec, ServiceSpec
from galaxy.model.messages.names import EXEC_SESSION, LOG_SESSION
from tests.unit.appmaster.world import World, batch, service


def problem(world: World, body: Body[Any]) -> Problem:
    answer = world.request(body)
    assert answer.problem is not None
    return answer.problem


def test_job_is_found_by_name_id_and_unique_beginning_of_its_id() -> None:
    world = World()
    job = world.submit(service())
    for text in ("web", job, job[:-2]):
        assert world.show(text).summary.job == job


def test_beginning_of_several_ids_lists_them() -> None:
    world = World()
    ids = sorted(world.submit(service(name)) for name in ("web-a", "web-b"))
    found = problem(world, ShowJob(job="web-"))
    assert found.kind == "conflict"
    assert found.details == (", ".join(ids),)


def test_unknown_job_names_the_near_miss() -> None:
    world = World()
    world.submit(service("hello"))
    found = problem(world, StopJob(job="helo"))
    assert found.kind == "not-found"
    assert found.details == ("did you mean hello?",)


@pytest.mark.parametrize("text", ["w", "web", "web-can", "web-canary-"])
def test_beginning_of_a_name_is_never_enough_to_change_a_job(text: str) -> None:
    world = World()
    job = world.submit(service("web-canary"))
    for change in (RemoveJob, StopJob, StartJob):
        assert problem(world, change(job=text)).kind == "not-found"
    assert world.show(text).summary.job == job  # To look does no harm.
    world.do("stop", job[:-3])


def test_empty_name_finds_nothing() -> None:
    world = World()
    world.submit(service())
    assert problem(world, RemoveJob(job="")).kind == "not-found"


def test_discover_gives_healthy_endpoints_and_with_all_the_others() -> None:
    world = World()
    job = world.submit(service(replica=2))
    world.settle(job)
    world.worker(f"{job}.0").end(1)
    world.run(0.2)
    assert [endpoint.state for endpoint in world.endpoints("web")] == ["healthy"]
    every = world.endpoints("web", all=True)
    assert sorted(endpoint.state for endpoint in every) == ["healthy", "unhealthy"]


def test_service_that_nobody_serves_yet_is_known_and_an_unknown_one_is_not() -> None:
    world = World(hosts=0)
    world.submit(service())
    assert world.endpoints("web") == ()
    found = problem(world, Discover(service="wep"))
    assert (found.kind, found.details) == ("not-found", ("did you mean web?",))


def test_logs_of_a_job_open_one_session_a_pod_on_its_agent() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    world.sends.clear()
    opened = world.ask(ReadLogs(target="web", tail=5))
    assert opened.pods == (f"{job}.0", f"{job}.1", f"{job}.2")
    assert len(set(opened.sessions)) == 3
    sent = {send.body.pod: send for send in world.sends if send.task == LOG_SESSION}
    for pod, session in zip(opened.pods, opened.sessions, strict=True):
        assert sent[pod].queue == f"appworker.{world.master.state.pods[pod].agent}"
        assert sent[pod].body.session == session
        assert sent[pod].body.read.tail == 5


def test_request_for_a_session_that_comes_twice_opens_it_once() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    world.sends.clear()
    ask = ExecIn(pod=f"{job}.0", argv=("ls",))
    first = world.request(ask, key="once")
    world.failover()
    assert world.request(ask, key="once") == first
    assert sum(send.task == EXEC_SESSION for send in world.sends) == 1


def test_key_that_others_can_guess_reveals_neither_a_session_nor_an_upload() -> None:
    """Flower shows the key of a request, and the client's login reads each session whose id it knows."""
    ids = []
    for others in range(2):  # The requests are equal but for their nonces.
        world = World()
        job = world.submit(service(), key="web")
        world.settle(job)
        for _ in range(others):
            world.ask(ShowJob(job=job))
        upload = UploadPackage(sha256="0" * 64, size_bytes=1, name="x.tgz")
        ids.append(
            (
                *world.ask(ExecIn(pod=f"{job}.0", argv=("ls",)), key="deploy").sessions,
                *world.ask(ReadLogs(target=f"{job}.1"), key="logs").sessions,
                world.ask(upload, key="upload").upload,
            )
        )
    assert not set(ids[0]) & set(ids[1])
    assert all(len(each) == 32 for each in ids[0])


def test_sessions_of_two_requests_differ() -> None:
    world = World()
    job = world.submit(service(replica=1))
    world.settle(job)
    first, second = (world.ask(ReadLogs(target=job)).sessions for _ in range(2))
    assert first != second


def test_logs_of_one_pod_by_index() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    assert world.ask(ReadLogs(target="web.1")).pods == (f"{job}.1",)


def test_logs_of_a_job_without_a_container_say_so() -> None:
    world = World(hosts=0)
    world.submit(service())
    world.run(1)
    found = problem(world, ReadLogs(target="web"))
    assert found.kind == "conflict"
    assert "no pod of it has a container" in found.message


def test_logs_of_more_pods_than_are_read_at_once_are_refused_with_the_way_out() -> None:
    world = World(config=AppMasterConfig(sessions_max=2))
    job = world.submit(service())
    world.settle(job)
    found = problem(world, ReadLogs(target=job))
    assert "has 3 pods; logs of 2 at most" in found.message
    assert found.hint == f"galaxy logs {job}.0"


def test_exec_in_a_job_takes_its_first_running_pod() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    assert world.ask(ExecIn(pod="web", argv=("ls",))).pods == (f"{job}.0",)


def test_exec_in_an_unknown_task_names_the_near_miss() -> None:
    world = World()
    job = world.submit(service())
    world.settle(job)
    found = problem(world, ExecIn(pod=job, argv=("ls",), task="mian"))
    assert (found.kind, found.details) == ("not-found", ("did you mean main?",))


@pytest.mark.parametrize("state", ["stopped", "finished"])
def test_exec_where_nothing_runs_is_a_conflict(state: str) -> None:
    world = World()
    job = world.submit(service() if state == "stopped" else batch())
    if state == "stopped":
        world.settle(job)
        world.do("stop", job)
    world.settle(job, state)
    found = problem(world, ExecIn(pod=job, argv=("ls",)))
    assert found.kind == "conflict"
    assert f"{job}.0 is {state}" in found.details[0]


def test_pod_of_two_tasks_publishes_the_services_of_both() -> None:
    spec = service()
    main = spec.pod.tasks[0]
    side = msgspec.structs.replace(
        main,
        name="side",
        ports=(PortSpec(name="admin"),),
        services=(ServiceSpec(name="web-admin", port="admin"),),
    )
    both = msgspec.structs.replace(spec, pod=msgspec.structs.replace(spec.pod, tasks=(main, side)))
    world = World()
    job = world.submit(both)
    world.settle(job)
    for name, port in (("web", "http"), ("web-admin", "admin")):
        found = {endpoint.pod: endpoint.port for endpoint in world.endpoints(name)}
        assert found == {pod.pod: pod.ports[port] for pod in world.show(job).pods}
