"""Jobs that use a package or a secret are found without reading what others have: so a query stays cheap."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from galaxy.appmaster.logic import AppMasterConfig, uses
from galaxy.appmaster.logic.job_sums import count_committed, count_written, packages_bytes
from galaxy.appmaster.logic.tables import AppMasterTables, revision_key
from galaxy.model.jobspec.spec import JobSpec, PackageSpec
from galaxy.model.stored.cluster import ALL
from galaxy.model.stored.job import JobRecord, JobState, PodRecord, RevisionRecord
from galaxy.model.stored.package import PackageRecord
from galaxy.model.stored.secret import EnvFrom
from galaxy.suggest import COMPARED_MAX, near_misses
from tests.unit.appmaster.world import service, with_task


def package(number: int) -> str:
    return f"{number:032x}"


def spec_of(name: str, number: int) -> JobSpec:
    source = f"galaxy://{package(number)}/app.tgz"
    env: dict[str, Any] = {"TOKEN": EnvFrom(secret=f"s{number}")}
    return with_task(service(name), package=PackageSpec(source=source, version="1"), env=env)


def put_job(tables: AppMasterTables, name: str, number: int, *, user: str = "ann", revision: int = 1) -> None:
    """Store a job whose revision ``revision``, its last one, uses package and secret ``number``."""
    spec = spec_of(name, number)
    job = JobRecord(
        job=name, name=name, user=user, revision=revision, type=spec.type, key="", digest="",
        state=JobState.RUNNING, replica=1, created_s=0.0, updated_s=0.0, since_s=0.0,
    )  # fmt: skip
    tables.jobs.put(name, job)
    row = RevisionRecord(job=name, revision=revision, spec=spec, at_s=0.0)
    tables.revisions.put(revision_key(name, revision), row)


def tables_with(others: int) -> AppMasterTables:
    tables = AppMasterTables(AppMasterConfig())
    put_job(tables, "web", 0)
    for number in range(1, others + 1):
        put_job(tables, f"other-{number}", number)
    return tables


def calls_of(act: Callable[[], object]) -> int:
    """Return how many calls ``act`` makes: a measure of cost that no other process disturbs."""
    calls = 0

    def count(_: Any, event: str, __: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(None)
    return calls


def test_uses_of_a_package_or_secret_cost_the_same_beside_many_other_jobs() -> None:
    def act(tables: AppMasterTables) -> Callable[[], object]:
        return lambda: (
            uses.shown(uses.jobs_with_package(tables, package(0))),
            uses.shown(uses.jobs_with_secret(tables, "ann", "s0")),
        )

    few, many = (act(tables_with(others)) for others in (2, 400))
    assert few() == many() == ((("web",), False), (("web",), False))
    assert calls_of(few) == calls_of(many)


def test_counting_a_written_package_costs_the_same_beside_many_others() -> None:
    def act(others: int) -> tuple[AppMasterTables, Callable[[], object]]:
        tables = AppMasterTables(AppMasterConfig())
        for number in range(others):
            tables.packages.put(package(number), stored(number))
        count_committed(tables)
        count_written(tables)
        for table in tables.tables.values():
            table.accept()
        tables.packages.put(package(others), stored(others, size_bytes=7))
        tables.packages.drop(package(0))
        return tables, lambda: count_written(tables)

    (few, count_few), (many, count_many) = act(2), act(400)
    assert packages_bytes(many) == 100 * 399 + 7
    assert calls_of(count_few) == calls_of(count_many)
    assert few.sums[ALL].packages_bytes == 107
    assert (many.sums[ALL].packages, many.sums[ALL].packages_bytes) == (400, 100 * 399 + 7)


def stored(number: int, size_bytes: int = 100) -> PackageRecord:
    return PackageRecord(
        package=package(number), user="ann", name="app.tgz", sha256="", size_bytes=size_bytes, upload=""
    )


def test_view_names_a_bounded_number_of_jobs_and_says_that_there_are_more() -> None:
    tables = tables_with(0)
    for number in range(1, uses.SHOWN_MAX + 10):
        put_job(tables, f"web-{number:03}", 0)
    names, more = uses.shown(uses.jobs_with_package(tables, package(0)))
    assert (len(names), more) == (uses.SHOWN_MAX, True)


def test_job_counts_once_for_a_package_that_several_of_its_revisions_use() -> None:
    tables = tables_with(0)
    put_job(tables, "web", 0, revision=2)
    assert [job.name for job in uses.jobs_with_package(tables, package(0))] == ["web"]


def test_package_of_an_old_revision_is_used_while_a_pod_has_it_or_shall_have_it() -> None:
    tables = tables_with(0)
    put_job(tables, "web", 5, revision=4)
    assert not uses.is_package_used(tables, package(0))
    for pod in (PodRecord(pod="web.0", job="web", index=0, target=4, revision=1),
                PodRecord(pod="web.0", job="web", index=0, target=1, revision=4)):  # fmt: skip
        tables.pods.put("web.0", pod)
        assert uses.is_package_used(tables, package(0))
    tables.pods.put("web.0", PodRecord(pod="web.0", job="web", index=0, target=4, revision=4))
    assert not uses.is_package_used(tables, package(0))


def test_secret_of_another_user_or_of_an_old_revision_is_not_used() -> None:
    tables = tables_with(0)
    put_job(tables, "theirs", 0, user="bob")
    put_job(tables, "web", 1, revision=2)
    assert [job.name for job in uses.jobs_with_secret(tables, "ann", "s0")] == []
    assert [job.name for job in uses.jobs_with_secret(tables, "bob", "s0")] == ["theirs"]


def test_suggestions_among_the_names_of_a_large_cluster_compare_few_and_find_the_near_one() -> None:
    names = [f"job-{number}-{number % 7}" for number in range(4000)] + ["billing-eu"]
    assert near_misses("biling-eu", names)[0] == "billing-eu"
    assert near_misses("xilling-eu", names)[0] == "billing-eu"
    assert near_misses("Job-3999-x", names)[0].startswith("job-3999")
    assert calls_of(lambda: near_misses("job-39-1x", names)) < 200 * COMPARED_MAX
