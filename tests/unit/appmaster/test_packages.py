"""Packages that the cluster stores: who may use them, how much room they take, and when they go."""

from __future__ import annotations

from typing import Any

import pytest

from galaxy.appmaster.logic import AppMasterConfig
from galaxy.model.api.jobs import SubmitJob, UpdateJob
from galaxy.model.api.packages import ListPackages, RemovePackage, StorePackage, UploadPackage
from galaxy.model.api.users import RemoveUser
from galaxy.model.jobspec.spec import JobSpec, PackageSpec
from galaxy.model.stored.cluster import ALL, JobSums
from tests.unit.appmaster.test_access import JOB, Secured, kind
from tests.unit.appmaster.world import World, service, with_deploy, with_task

KEEP_S = 300.0


def sha(number: int) -> str:
    return f"{number:064x}"


def asked(number: int, size_bytes: int = 100) -> UploadPackage:
    return UploadPackage(sha256=sha(number), size_bytes=size_bytes, name=f"app-{number}.tar.gz")


def push(world: World, number: int, size_bytes: int = 100) -> Any:
    """Store a package and return its view."""
    upload = world.ask(asked(number, size_bytes))
    return upload.package if upload.stored else world.ask(StorePackage(package=upload.package.package))


def using(*sources: str, name: str = "web", **changes: str) -> JobSpec:
    packages = tuple(PackageSpec(source=source, version="1", **changes) for source in sources)
    return with_task(service(name), package=packages[0])


def names(world: World) -> list[str]:
    return [each.name for each in world.ask(ListPackages(all=True)).packages]


def world_of(**config: Any) -> World:
    """Return a world in which everything goes sooner than in production."""
    return World(config=AppMasterConfig(package_keep_s=KEEP_S, package_fresh_s=20.0, upload_s=30.0, **config))


@pytest.fixture
def world() -> World:
    return world_of()


@pytest.fixture
def secured() -> Secured:
    world = Secured()
    world.make("ann", {"main": JOB})
    world.make("bob", {"main": JOB})
    return world


def push_as(world: Secured, user: str, number: int) -> Any:
    upload = world.as_(user, asked(number)).result
    answer = world.as_(user, StorePackage(package=upload.package.package))
    assert answer.problem is None, answer.problem
    return answer.result


# ---- uploads


def test_package_is_sent_once_and_then_known_by_its_checksum(world: World) -> None:
    first = world.ask(asked(1))
    assert not first.stored
    assert first.package.source == f"galaxy://{first.package.package}/app-1.tar.gz"
    world.ask(StorePackage(package=first.package.package))
    world.failover()
    again = world.ask(asked(1))
    assert again.stored
    assert again.package.package == first.package.package


def test_interrupted_upload_continues_where_it_was_also_after_a_failover(world: World) -> None:
    first = world.ask(asked(1))
    world.failover()
    second = world.ask(asked(1))
    assert (second.upload, second.stored) == (first.upload, False)


def test_names_of_uploads_cannot_be_told_from_what_others_see(world: World) -> None:
    uploads = [world.ask(asked(number)) for number in (1, 2)]
    assert len({upload.upload for upload in uploads}) == 2
    listed = world.ask(ListPackages(all=True))
    assert not any(upload.upload in str(listed) for upload in uploads)


def test_package_above_the_limit_is_refused_with_the_limit_and_the_way_out() -> None:
    answer = world_of(package_bytes_max=1000).request(asked(1, 1001))
    assert kind(answer) == "refused"
    assert answer.problem is not None
    assert "1000 B" in answer.problem.details[0]
    assert "--package-max" in answer.problem.hint


def test_store_of_an_unknown_package_is_refused(world: World) -> None:
    assert kind(world.request(StorePackage(package="0" * 32))) == "not-found"


def test_status_sums_up_packages_with_their_limit(world: World) -> None:
    def sums() -> tuple[int, int, int]:
        row = world.scenario.stored("appmaster", "sums", JobSums).get(ALL) or JobSums()
        return row.packages, row.packages_bytes, row.packages_bytes_max

    assert sums() == (0, 0, 0)
    for number in (1, 2):
        push(world, number)
    assert sums() == (2, 200, world.config.packages_bytes_max)
    world.failover()
    assert sums() == (2, 200, world.config.packages_bytes_max)
    world.run(KEEP_S + 60)
    assert sums() == (0, 0, 0)


# ---- room


def test_least_recently_used_package_that_no_job_uses_makes_room() -> None:
    world = world_of(packages_bytes_max=300)
    used = push(world, 1)
    world.submit(using(used.source))
    world.run(1)
    push(world, 2)
    world.run(1)
    push(world, 3)
    world.run(world.config.upload_s)
    push(world, 4)
    assert names(world) == ["app-1.tar.gz", "app-3.tar.gz", "app-4.tar.gz"]


def test_full_store_refuses_with_numbers_while_jobs_use_everything() -> None:
    world = world_of(packages_bytes_max=250)
    for number in (1, 2):
        world.submit(using(push(world, number).source, name=f"web{number}"))
    world.run(world.config.upload_s)
    answer = world.request(asked(3))
    assert kind(answer) == "refused"
    assert answer.problem is not None
    assert "2 packages take 200 B of 250 B" in answer.problem.details[0]
    assert "jobs use 200 B" in answer.problem.details[1]
    assert "galaxy package list --all" in answer.problem.hint


def test_package_that_was_just_sent_is_not_dropped_for_another() -> None:
    world = world_of(packages_bytes_max=150)
    push(world, 1)
    assert kind(world.request(asked(2))) == "refused"
    world.run(world.config.package_fresh_s)
    assert not world.ask(asked(2)).stored
    assert names(world) == ["app-2.tar.gz"]


def test_number_of_packages_is_bounded_too() -> None:
    world = world_of(packages_max=2)
    for number in (1, 2):
        push(world, number)
    assert kind(world.request(asked(3))) == "refused"


def test_abandoned_upload_gives_its_room_back(world: World) -> None:
    world.ask(asked(1))
    world.run(1.5 * world.config.upload_s)
    assert names(world) == []


def test_package_goes_a_while_after_its_last_job_and_not_before(world: World) -> None:
    package = push(world, 1)
    web = world.submit(using(package.source))
    world.settle(web)
    world.run(1.5 * KEEP_S)
    assert names(world) == ["app-1.tar.gz"]
    world.do("remove", web)
    world.run(KEEP_S / 2)
    world.failover()
    assert names(world) == ["app-1.tar.gz"]
    world.run(KEEP_S)
    assert names(world) == []


def test_package_of_the_revision_before_is_kept_and_that_of_older_ones_is_not() -> None:
    world = world_of(packages_bytes_max=300)
    packages = [push(world, number) for number in (1, 2, 3)]
    web = world.submit(using(packages[0].source))
    world.settle(web)
    for package in packages[1:]:
        world.update(web, using(package.source))
        world.settle(web)
    assert [each.jobs for each in world.ask(ListPackages(all=True)).packages] == [(), ("web",), ("web",)]
    world.run(world.config.upload_s)
    push(world, 4)
    assert names(world) == ["app-2.tar.gz", "app-3.tar.gz", "app-4.tar.gz"]


def test_package_that_a_job_uses_cannot_be_removed(world: World) -> None:
    package = push(world, 1)
    web = world.submit(using(package.source))
    answer = world.request(RemovePackage(package=package.source))
    assert kind(answer) == "conflict"
    assert answer.problem is not None
    assert "web" in answer.problem.details[0]
    world.settle(web)
    world.do("remove", web)
    world.run(60)
    world.ask(RemovePackage(package=package.package))
    assert names(world) == []


# ---- jobs


def test_job_with_a_package_that_the_cluster_does_not_have_is_refused_with_its_field(world: World) -> None:
    unsent = world.ask(asked(1)).package.source
    for source in (f"galaxy://{'0' * 32}/app.tar.gz", unsent):
        answer = world.request(SubmitJob(spec=using(source)))
        assert kind(answer) == "spec"
        assert answer.problem is not None
        assert "`pod.tasks[0].package.source`: the cluster does not have" in answer.problem.details[0]


def test_job_whose_checksum_is_another_is_refused(world: World) -> None:
    source = push(world, 1).source
    answer = world.request(SubmitJob(spec=using(source, sha256=sha(2))))
    assert answer.problem is not None
    assert sha(1) in answer.problem.details[0]


def test_equal_package_in_an_update_changes_nothing(world: World) -> None:
    web = world.submit(using(push(world, 1).source))
    assert world.update(web, using(push(world, 1).source)).revision == 1


# ---- users


def in_main(spec: JobSpec) -> JobSpec:
    return with_deploy(spec, pools=("main",))


def test_package_of_another_user_cannot_be_used_or_removed(secured: Secured) -> None:
    package = push_as(secured, "ann", 1)
    stolen = SubmitJob(spec=in_main(using(package.source)))
    answer = secured.as_("bob", stolen)
    assert kind(answer) == "spec"
    assert answer.problem is not None
    assert "is not yours" in answer.problem.details[0]
    assert secured.as_("bob", ListPackages()).result.packages == ()
    assert kind(secured.as_("bob", ListPackages(all=True))) == "refused"
    assert kind(secured.as_("bob", RemovePackage(package=package.package))) == "not-found"
    assert kind(secured.as_("bob", StorePackage(package=package.package))) == "not-found"
    assert kind(secured.as_("ann", stolen)) == "ok"


def test_equal_package_of_two_users_is_stored_for_each(secured: Secured) -> None:
    """Who only knows the checksum of a package has not proven to have its content."""
    ann, bob = (push_as(secured, user, 1) for user in ("ann", "bob"))
    assert ann.package != bob.package


def test_owner_keeps_a_package_that_an_operator_gave_the_job(secured: Secured) -> None:
    assert kind(secured.as_("ann", SubmitJob(spec=in_main(service())))) == "ok"
    theirs = in_main(using(push_as(secured, "root", 1).source))
    assert kind(secured.as_("root", UpdateJob(job="web", spec=theirs))) == "ok"
    assert kind(secured.as_("ann", UpdateJob(job="web", spec=with_deploy(theirs, replica=1)))) == "ok"


def test_user_without_a_grant_stores_nothing(secured: Secured) -> None:
    secured.make("eve", {})
    answer = secured.as_("eve", asked(1))
    assert kind(answer) == "refused"
    assert answer.problem is not None
    assert "galaxy user grant eve" in answer.problem.hint


def test_later_user_of_a_name_owns_no_package_of_the_earlier_one(secured: Secured) -> None:
    package = push_as(secured, "ann", 1)
    assert kind(secured.as_("root", RemoveUser(user="ann"))) == "ok"
    secured.make("ann", {"main": JOB})
    assert secured.as_("ann", ListPackages()).result.packages == ()
    answer = secured.as_("ann", SubmitJob(spec=in_main(using(package.source))))
    assert kind(answer) == "spec"
