"""What jobs and pods use now: in order, in parts, and only what the caller may list."""

from __future__ import annotations

import pytest

from galaxy.appmaster.logic.api.top import show_top
from galaxy.cli.usage.top import agent_table, job_table, pod_table
from galaxy.client.methods.usage import _top_key
from galaxy.model.api.top import ShowTop, TopAgent, TopOrder, TopRow, TopSubject
from galaxy.model.messages.agent import UsageRead
from galaxy.model.messages.names import APPMASTER
from galaxy.model.stored.user import Role, UserRecord
from galaxy.operations.declaration import Caller
from galaxy.testing.simulation.scenario import Scenario
from tests.unit.accounting.jobs import submit

GIB = 1024**3
ROOT = Caller(name="root", user=None, key="k")


@pytest.fixture(scope="module")
def cluster() -> Scenario:
    """Two jobs of ann and one of bob, whose pods use 100, 200, ... millicores."""
    scenario = Scenario(hosts=3)
    for name, replica, user in (("web", 3, "ann"), ("db", 1, "ann"), ("api", 2, "bob")):
        submit(scenario, name, replica, user=user)
    scenario.run_until(lambda: len(scenario.programs()) == 6, 60.0)
    pods = sorted(scenario.logic(APPMASTER).state.pods.values(), key=lambda pod: pod.pod)
    used: dict[str, dict[str, tuple[int, int]]] = {}
    for number, pod in enumerate(pods):
        used.setdefault(pod.agent, {"gone.0": (9, 9)})[pod.pod] = 100 * (number + 1), GIB - number
    scenario.deliver(APPMASTER, UsageRead(agents=used))
    return scenario


def rows(cluster: Scenario, caller: Caller = ROOT, **asked: object) -> list[TopRow]:
    return list(show_top.run(cluster.logic(APPMASTER).state, ShowTop(**asked), caller).rows)


def test_pods_that_use_most_come_first_and_the_rest_in_further_parts(cluster: Scenario) -> None:
    every = rows(cluster)
    assert [row.cpu_milli for row in every] == [600, 500, 400, 300, 200, 100]
    assert [*rows(cluster, limit=4), *rows(cluster, limit=4, skip=4)] == every
    assert [row.memory_bytes for row in rows(cluster, order=TopOrder.MEMORY, limit=2)] == [GIB, GIB - 1]
    names = [row.name for row in every]
    assert [row.name for row in rows(cluster, order=TopOrder.NAME)] == sorted(names)
    assert show_top.run(cluster.logic(APPMASTER).state, ShowTop(limit=1), ROOT).total == 6


def test_job_is_the_sum_of_its_pods_beside_what_they_asked_for(cluster: Scenario) -> None:
    by_name = {row.name.split("-")[0]: row for row in rows(cluster, subject=TopSubject.JOBS)}
    web = by_name["web"]
    assert (web.pods, web.cpu_milli, web.asked_cpu_milli, web.user) == (3, 400 + 500 + 600, 3 * 200, "ann")
    assert by_name["api"].cpu_milli == 100 + 200


def test_user_sees_own_pods_only(cluster: Scenario) -> None:
    bob = UserRecord(user="bob", role=Role.USER, stored_key="0" * 64, created_s=0.0)
    seen = rows(cluster, Caller(name="bob", user=bob, key="k"))
    assert {row.user for row in seen} == {"bob"}
    assert {row.user for row in rows(cluster, user="ann")} == {"ann"}


def test_tables_fit_into_eighty_columns() -> None:
    row = TopRow(
        name="frontend-3f9a2c.12", user="annabel", agent="host-0123", pods=999, cpu_milli=123_456,
        memory_bytes=1023 * GIB, asked_cpu_milli=200_000, asked_memory_bytes=1023 * GIB,
    )  # fmt: skip
    agent = TopAgent(
        name="host-0123", state="suspect", cpu_milli=123_456, memory_bytes=1023 * GIB,
        total_cpu_milli=256_000, total_memory_bytes=1023 * GIB, load1=123.45, containers=1000, at_s=1.0,
    )  # fmt: skip
    for titles, (cells,) in (pod_table([row]), job_table([row]), agent_table([agent])):
        widths = [max(len(title), len(cell)) for title, cell in zip(titles, cells, strict=True)]
        assert sum(widths) + 2 * (len(widths) - 1) <= 80, list(zip(titles, cells, strict=True))


def test_what_is_not_measured_is_not_shown_as_nothing() -> None:
    row = TopRow(name="web-1.0", asked_cpu_milli=200, asked_memory_bytes=GIB)
    for _, (cells,) in (pod_table([row]), job_table([row])):
        assert cells[-6:] == ["-", "200m", "-", "-", "1 GiB", "-"]
    fields = {"cpu_milli": 50, "memory_bytes": GIB, "total_cpu_milli": 100, "total_memory_bytes": GIB}
    for agent in (
        TopAgent(name="h1", state="dead", at_s=5.0, load1=1.0, **fields),  # type: ignore[arg-type]
        TopAgent(name="h1", state="alive", **fields),  # type: ignore[arg-type]
    ):
        _, (cells,) = agent_table([agent])
        assert cells[2:9] == ["-", "100m", "-", "-", "1 GiB", "-", "-"]


@pytest.mark.parametrize(("at_s", "state", "key"), [(5.0, "alive", -50), (5.0, "dead", 0), (0.0, "alive", 0)])
def test_dead_agents_are_sorted_as_if_they_used_nothing(at_s: float, state: str, key: int) -> None:
    row = TopAgent(name="h1", state=state, cpu_milli=50, at_s=at_s)
    assert _top_key(row, TopOrder.CPU) == (key, "h1")
