"""The audit trail by user, operation, target and time, in pages."""

from __future__ import annotations

from typing import Any

import pytest

from galaxy.model.api.audit import ListAudit
from galaxy.model.api.jobs import StopJob
from galaxy.model.api.users import GrantUser
from tests.unit.appmaster.test_access import JOB, Secured

TARGETS = ("web", "web-3f9a2c", "web-3f9a2c.1", "web-2", "webs", "api", "web-api", "web on main")


@pytest.fixture
def world() -> Secured:
    world = Secured()
    for target in ("before", *TARGETS):
        world.as_("root", StopJob(job=target))
    return world


def targets(world: Secured, **wanted: Any) -> list[str]:
    return [one.target for one in world.as_("root", ListAudit(**wanted)).result.records]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("web", ["web", "web-3f9a2c", "web-3f9a2c.1", "web on main"]),
        ("web-3f9a2c", ["web-3f9a2c", "web-3f9a2c.1"]),
        ("web-3f9a2c.1", ["web-3f9a2c.1"]),
        ("web-2", ["web-2"]),
        ("w", []),
    ],
)
def test_target_is_a_name_an_id_or_something_of_either(world: Secured, asked: str, found: list[str]) -> None:
    assert targets(world, target=asked, operation="job.stop") == found


def test_operation_is_one_or_all_on_a_subject(world: Secured) -> None:
    world.make("ann", {"main": JOB})
    world.as_("root", GrantUser(user="ann", pool="main", action="clear"))
    assert len(targets(world, operation="job")) == len(targets(world, operation="galaxy.job.stop")) == 9
    assert targets(world, operation="user.grant") == targets(world, operation="user", target="ann")[1:]
    assert targets(world, operation="jo") == targets(world, operation="job.sto") == []


def test_user_and_time_limit_the_records(world: Secured) -> None:
    world.make("ann", {})
    world.run(100)
    since_s = world.now
    world.as_("ann", StopJob(job="late"))
    assert targets(world, user="ann") == targets(world, since_s=since_s - 1) == ["late"]
    assert targets(world, user="an") == targets(world, user="root", since_s=since_s - 1) == []


def test_filtered_records_come_in_pages_in_both_directions(world: Secured) -> None:
    expected = targets(world, target="web")
    back: list[Any] = []
    while True:
        answer = world.as_("root", ListAudit(target="web", limit=1, before=back[0].serial if back else 0))
        if not answer.result.records:
            break
        back = [*answer.result.records, *back]
    assert [one.target for one in back] == expected
    after, forward = 1, []
    while True:
        page = world.as_("root", ListAudit(target="web", limit=2, after=after)).result
        forward += [one.target for one in page.records]
        if not page.next:
            break
        after = page.next
    assert forward == expected


def test_page_in_two_directions_is_wrong_usage(world: Secured) -> None:
    problem = world.as_("root", ListAudit(after=1, before=2)).problem
    assert problem is not None and problem.kind == "usage"
