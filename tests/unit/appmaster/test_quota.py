"""Quotas as operators set them and users meet them: refused with numbers, at once, and never by half."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from galaxy.appmaster.logic.identity.quotas import amount_of
from galaxy.model.api.answers import Answer
from galaxy.model.api.jobs import RecoverPod, SubmitJob, UpdateJob
from galaxy.model.api.quotas import ListQuotas, SetQuota
from galaxy.model.api.signing import stored_key
from galaxy.model.api.users import GrantUser, RemoveUser, SetToken
from galaxy.model.api.views import QuotaView
from galaxy.model.jobspec.spec import CpuSpec, JobSpec, JobType
from galaxy.model.messages.agent import HeartbeatsRead
from galaxy.model.messages.names import GROUP_APPLY
from galaxy.model.resources import Ceiling
from galaxy.model.stored.user import Authority, Role
from galaxy.testing.simulation.faults import message_faults
from tests.unit.appmaster.test_access import JOB, Secured, job, kind
from tests.unit.appmaster.world import World, batch, service, with_deploy, with_task

MIB = 1024**2


@pytest.fixture
def world() -> World:
    """Without signatures, jobs belong to the user that the request names: here ann."""
    return World()


def limit(world: World, *, pool: str = "*", lift: tuple[str, ...] = (), **ceiling: int) -> QuotaView:
    asked = SetQuota(user="ann", pool=pool, ceiling=Ceiling(**ceiling), lift=lift)
    view: QuotaView = world.ask(asked)
    return view


def submit(world: World, spec: JobSpec, key: str = "") -> Answer:
    return world.request(SubmitJob(spec=spec), key=key)


def update(world: World, job_id: str, spec: JobSpec) -> Answer:
    return world.request(UpdateJob(job=job_id, spec=spec))


def test_job_beyond_the_ceiling_is_refused_with_numbers_and_what_would_fit(world: World) -> None:
    limit(world, memory_bytes=320 * MIB)
    world.submit(service(replica=2))
    answer = submit(world, service("big", replica=4))
    assert answer.problem is not None
    assert answer.problem.kind == "refused"
    assert answer.problem.message == 'cannot run "big": memory quota of user "ann" exceeded'
    assert answer.problem.details == ("memory: asks 256 MiB (4 x 64 MiB); 192 MiB of 320 MiB left",)
    assert answer.problem.hint == "galaxy quota show ann, or lower deploy.replica to 3"
    assert len(world.master.state.jobs) == 1
    assert submit(world, service("big", replica=3)).problem is None


def test_every_exceeded_ceiling_is_named(world: World) -> None:
    limit(world, cpu_milli=150)
    limit(world, pool="far", containers=1)
    answer = submit(world, with_deploy(service(), pools=("far",)))
    assert answer.problem is not None
    assert answer.problem.message == (
        'cannot run "web": cpu quota of user "ann", containers quota of user "ann" on pool far exceeded'
    )
    assert answer.problem.details == (
        "cpu: asks 300m (3 x 100m); 150m of 150m left",
        "containers: asks 3; 1 of 1 left",
    )
    assert submit(world, with_deploy(service(replica=1), pools=("near",))).problem is None


def test_repeated_key_gets_the_same_refusal_and_a_finished_job_of_that_name_stays(world: World) -> None:
    done = world.submit(batch("web", replica=1))
    world.settle(done, "finished")
    limit(world, containers=1)
    first = submit(world, service(replica=2), key="k")
    limit(world, containers=5)
    assert submit(world, service(replica=2), key="k") == first
    assert first.problem is not None
    assert world.show("web").summary.job == done, "refused, and yet its namesake had to go"


def test_update_that_grows_is_refused_and_one_that_does_not_is_not(world: World) -> None:
    limit(world, containers=3)
    web = world.submit(service(replica=3))
    answer = update(world, web, service(replica=4))
    assert answer.problem is not None
    assert 'cannot update "web": containers quota' in answer.problem.message
    assert answer.problem.hint.endswith("lower deploy.replica to 3")
    assert world.show(web).summary.revision == 1
    limit(world, containers=1)
    assert update(world, web, service(start="serve 2", replica=3)).problem is None
    assert update(world, web, service(replica=2)).problem is None
    assert update(world, web, service(replica=3)).problem is not None


@pytest.mark.parametrize(
    ("ceiling", "asks", "detail", "way"),
    [
        (
            500,
            450,
            "asks 450m (1 x 450m); this job has 200m and others 100m of 500m, so it may have 400m",
            "400m",
        ),
        (
            100,
            300,
            "asks 300m (1 x 300m); this job has 200m and others 100m of 100m, so it may have 200m",
            "200m",
        ),
    ],
)
def test_refused_growth_says_what_the_job_and_the_others_have_and_what_would_fit(
    world: World, ceiling: int, asks: int, detail: str, way: str
) -> None:
    def of(millicores: int) -> JobSpec:
        return with_task(service("web", replica=1), cpu=CpuSpec(millicores=millicores))

    web = world.submit(of(200))
    world.submit(service("other", replica=1))
    limit(world, cpu_milli=ceiling)
    answer = update(world, web, of(asks))
    assert answer.problem is not None
    assert answer.problem.details == (f"cpu: {detail}",)
    assert answer.problem.hint == f"galaxy quota show ann, or lower cpu to {way} per pod"
    assert update(world, web, of(int(way[:-1]))).problem is None


def test_removed_and_finished_jobs_do_not_count(world: World) -> None:
    limit(world, containers=3)
    crunch = world.submit(batch(replica=3))
    world.settle(crunch, "finished")
    web = world.submit(service(replica=3))
    world.settle(web)
    world.do("remove", web)
    world.run(0.5)
    assert submit(world, service("next", replica=3)).problem is None


def test_ended_batch_pods_do_not_count(world: World) -> None:
    limit(world, containers=3)
    crunch = world.submit(batch(start="exit 0 after 1", replica=2))
    world.run(5)
    assert world.state(crunch) == "finished"
    assert update(world, world.submit(service(replica=1)), service(replica=3)).problem is None


def test_failed_job_is_recovered_only_if_there_is_room(world: World) -> None:
    crunch = world.submit(batch(start="exit 1 after 1", replica=2))
    world.settle(crunch, "failed", within_s=120)
    limit(world, containers=2)
    world.submit(service(replica=1))
    answer = world.request(RecoverPod(job=crunch))
    assert answer.problem is not None
    assert "containers: asks 2; 1 of 2 left" in answer.problem.details
    limit(world, containers=3)
    assert world.request(RecoverPod(job=crunch)).problem is None


def test_stop_and_start_need_no_quota(world: World) -> None:
    web = world.submit(service(replica=2))
    world.settle(web)
    limit(world, containers=0)
    world.do("stop", web)
    world.settle(web, "stopped")
    world.do("start", web)
    world.settle(web)


def test_identity_order_is_sent_until_resman_acknowledges_it() -> None:
    world = World(faults=message_faults(lose=0.6, double=0.3), seed=3)
    limit(world, containers=4)
    limit(world, cpu_milli=900)
    world.failover()
    limit(world, lift=("containers",))
    world.run(60)
    assert [one.ceiling for one in world.identity().quotas] == [Ceiling(cpu_milli=900)]
    assert not world.master.state.identity_unacknowledged
    limit(world, lift=("cpu_milli",))
    world.failover()
    world.run(60)
    assert world.identity().quotas == ()


def test_quota_change_after_a_step_that_raised_reaches_resman(world: World) -> None:
    for containers in (5, 6, 7):
        limit(world, containers=containers)
        world.run(5)
    world.feed(HeartbeatsRead(now_s=world.now, heartbeats=(None,)))  # type: ignore[arg-type]
    assert world.leader.poisonous == 1
    limit(world, containers=8)
    world.run(5)
    assert world.identity().quotas[0].ceiling == Ceiling(containers=8)


def test_group_orders_carry_quotas_that_resman_has_not_acknowledged() -> None:
    world = World(resman=False)
    limit(world, containers=4)
    world.submit(service())
    order = [send.body for send in world.sends if send.task == GROUP_APPLY][-1]
    assert order.orders[0].user == "ann"
    assert order.identity.quotas[0].ceiling == Ceiling(containers=4)


def test_list_shows_what_jobs_ask_and_use(world: World) -> None:
    limit(world, cpu_milli=500)
    world.have_trouble(trouble="the disk is read-only")
    web = world.submit(service(replica=2))
    world.run(2)
    (view,) = world.ask(ListQuotas()).quotas
    assert (view.wanted.cpu_milli, view.used.cpu_milli, view.ceiling.cpu_milli) == (200, 0, 500)
    world.have_trouble(trouble="")
    world.do("remove", web)
    world.run(5)
    world.submit(service("next", replica=1))
    world.run(5)
    (view,) = world.ask(ListQuotas(user="ann")).quotas
    assert (view.wanted.containers, view.used.containers) == (1, 1)


def test_only_operators_set_quotas_and_users_see_their_own() -> None:
    world = Secured()
    for user in ("ann", "bob"):
        world.make(user, {})
        asked = SetQuota(user=user, ceiling=Ceiling(containers=1))
        assert kind(world.as_("root", asked)) == "ok"
        assert kind(world.as_(user, asked)) == "refused"
    assert kind(world.as_("root", SetQuota(user="eve"))) == "not-found"
    assert kind(world.as_("root", SetQuota(user="ann"))) == "usage"
    everybody = world.as_("root", ListQuotas()).result
    assert [one.user for one in everybody.quotas] == ["ann", "bob"]
    assert [one.user for one in world.as_("ann", ListQuotas()).result.quotas] == ["ann"]
    assert kind(world.as_("ann", ListQuotas(user="bob"))) == "refused"
    world.as_("root", RemoveUser(user="ann"))
    world.run(5)
    assert [one.user for one in world.identity().quotas] == ["bob"]


def test_resman_knows_the_role_and_newest_key_of_every_user() -> None:
    world = Secured()
    world.make("ann", {})
    world.run(5)
    assert {one.user: one.role for one in world.identity().users} == {"root": Role.OPERATOR, "ann": Role.USER}
    serial = world.identity().serial
    world.as_("root", GrantUser(user="ann", pool="main", action="add", authorities=(Authority.LIST_JOB,)))
    world.run(5)
    assert world.identity().serial == serial  # Grants count in AppMaster only.
    key = stored_key("another token")
    assert kind(world.as_("root", SetToken(user="ann", stored_key=key))) == "ok"
    world.run(5)
    assert [one.stored_key for one in world.identity().users if one.user == "ann"] == [key]
    world.as_("root", RemoveUser(user="ann"))
    world.run(5)
    assert [one.user for one in world.identity().users] == ["root"]


def test_operators_change_of_a_job_counts_for_its_owner() -> None:
    world = Secured()
    world.make("ann", {"main": JOB})
    limited = SetQuota(user="ann", ceiling=Ceiling(containers=3))
    world.as_("root", limited)
    world.as_("ann", SubmitJob(spec=job()))
    bigger = UpdateJob(job="web", spec=with_deploy(job(), replica=4))
    assert kind(world.as_("root", bigger)) == "refused"


def test_lowered_ceiling_removes_nothing_and_is_shown_as_over(world: World) -> None:
    limit(world, memory_bytes=640 * MIB)
    world.submit(service(replica=4))
    world.run(5)
    view = limit(world, memory_bytes=100 * MIB)
    assert view.over.memory_bytes == (256 - 100) * MIB
    assert view.over.cpu_milli == 0
    world.run(60)
    assert sum(pod.placed for pod in world.master.state.pods.values()) == 4
    answer = submit(world, service("more", replica=1))
    assert answer.problem is not None
    assert answer.problem.details == (
        "memory: asks 64 MiB (1 x 64 MiB); 0 B of 100 MiB left, and other jobs are 156 MiB over it",
    )
    assert answer.problem.hint == "galaxy quota show ann, or remove another job, or ask an operator for more"


def test_job_of_which_not_one_pod_fits_is_told_how_small_it_would_have_to_be(world: World) -> None:
    limit(world, memory_bytes=50 * MIB)
    answer = submit(world, service("big", replica=2))
    assert answer.problem is not None
    assert answer.problem.hint == "galaxy quota show ann, or lower memory to 25M per pod"


def test_best_effort_jobs_count_as_containers_and_disk_but_not_as_cpu_and_memory() -> None:
    each = amount_of(replace(service(), type=JobType.BEST_EFFORT))
    assert (each.cpu_milli, each.memory_bytes, each.containers) == (0, 0, 1)
    assert each.disk_bytes == amount_of(service()).disk_bytes > 0
