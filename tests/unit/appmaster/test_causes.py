"""Ids of events and what caused them: a failed pod leads back to a report, a lost one to its agent."""

from galaxy.model.messages.trace import TraceEvent, agent_cause, report_cause, request_cause
from tests.unit.appmaster.world import World, batch, lose_for_good, service


def events(world: World, job: str) -> dict[str, list[TraceEvent]]:
    """Return the events of a job by kind."""
    by_kind: dict[str, list[TraceEvent]] = {}
    for event in world.show(job).events:
        by_kind.setdefault(event.kind, []).append(event)
    return by_kind


def test_submission_is_caused_by_its_request_whose_key_is_not_shown() -> None:
    world = World()
    job = world.submit(service(), key="secret-key")
    (submitted,) = events(world, job)["job.submitted"]
    assert submitted.cause == request_cause("secret-key")
    assert "secret-key" not in submitted.cause


def test_recovery_is_caused_by_its_request() -> None:
    world = World()
    job = world.submit(service(replica=1))
    world.settle(job)
    world.recover(pod=f"{job}.0")
    (asked,) = events(world, job)["pod.recover-asked"]
    assert asked.cause.startswith("request:")


def test_placed_pod_is_caused_by_a_status_of_its_group() -> None:
    world = World()
    job = world.submit(service(replica=1))
    world.settle(job)
    (placed,) = events(world, job)["pod.placed"]
    assert placed.cause.startswith(f"status:{job}:")


def test_failed_pod_and_the_job_that_it_ends_are_caused_by_the_report() -> None:
    world = World(hosts=1)
    job = world.submit(batch(start="exit 3 after 1", replica=1))
    world.settle(job, "failed")
    by_kind = events(world, job)
    (failed,) = by_kind["pod.failed"]
    assert failed.cause in {report_cause("h1", serial) for serial in range(1, 20)}
    assert by_kind["job.failed"][0].cause == failed.cause


def test_lost_container_is_caused_by_its_agent() -> None:
    world = World()
    job = world.submit(service(replica=1))
    world.settle(job)
    host = world.host(f"{job}.0")
    lose_for_good(host)
    world.run(20)
    (lost,) = events(world, job)["pod.lost"]
    assert lost.cause == agent_cause(host.name)


def test_no_two_events_have_one_id_even_after_a_failover_and_a_step_that_raised() -> None:
    world = World()
    job = world.submit(service(replica=2))
    world.settle(job)
    world.failover()
    world.do("stop", job)
    world.settle(job, "stopped")
    world.master.recover(world.now)
    world.do("start", job)
    world.settle(job)
    ids = [event.id for each in events(world, job).values() for event in each]
    assert len(ids) == len(set(ids))
    assert all(ids)


def test_same_history_gives_the_same_ids_and_causes() -> None:
    def history() -> list[TraceEvent]:
        world = World(seed=3)
        job = world.submit(service())
        world.settle(job)
        world.do("stop", job)
        world.settle(job, "stopped")
        return list(world.show(job).events)

    assert history() == history()
