"""Tags and labels, spread over a label, affinity and anti-affinity: which agents, and why none."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from galaxy.model.messages.container import Constraints
from galaxy.model.stored.agent import first_record
from galaxy.scheduler.cluster_view import ClusterView
from galaxy.scheduler.place import FILL_WEIGHT, OPEN_SHARE, place
from galaxy.scheduler.requests import Ask, JobGroups, PlacementPlan
from tests.unit.scheduler.build import GIB, agent, ask, load


def _cluster(**hosts: str) -> ClusterView:
    """Return a view of ordinary hosts with tags and labels: ``h1="ssd rack=r1"``."""
    built = ClusterView(creating_max=1000)
    for name, marks in hosts.items():
        tags = tuple(word for word in marks.split() if "=" not in word)
        labels = dict(word.split("=") for word in marks.split() if "=" in word)
        built.join(replace(first_record(agent(name)), tags=tags, labels=labels))
    return built


def _ask(group: str = "web", count: int = 1, **constraints: object) -> Ask:
    return ask(group, count, constraints=Constraints(**constraints))


def _agents(plan: PlacementPlan) -> list[str]:
    return [placement.agent for placement in plan.placements]


def test_only_agents_with_every_required_mark_are_used() -> None:
    cluster = _cluster(h1="ssd", h2="ssd rack=r1", h3="rack=r1", h4="ssd rack=r2", h5="ssd rack=r3")
    plan = place(cluster, [_ask(count=4, require=("ssd", "rack=r1|r2"))])
    assert Counter(_agents(plan)) == {"h2": 2, "h4": 2}


def test_agents_with_a_forbidden_mark_are_not_used() -> None:
    cluster = _cluster(h1="spot", h2="zone=b", h3="zone=a")
    assert set(_agents(place(cluster, [_ask(count=5, forbid=("spot", "zone=b|c"))]))) == {"h3"}


def test_preferred_agents_are_filled_first_and_others_take_the_rest() -> None:
    cluster = _cluster(h1="", h2="fast", h3="fast rack=r1")
    plan = place(cluster, [_ask(count=20, prefer=("fast", "rack=r1"))])
    assert _agents(plan)[:16] == ["h3"] * 8 + ["h2"] * 8
    assert set(_agents(plan)[16:]) == {"h1"}


def test_pods_are_spread_over_racks_before_hosts() -> None:
    cluster = _cluster(h1="rack=a", h2="rack=a", h3="rack=a", h4="rack=b", h5="")
    plan = place(cluster, [_ask(count=6, spread="rack")])
    assert Counter(_agents(plan)) == {"h1": 1, "h2": 1, "h4": 2, "h5": 2}
    later = place(cluster, [ask("web", 3, first=6, constraints=Constraints(spread="rack"))])
    assert Counter(_agents(later)) == {"h3": 1, "h4": 1, "h5": 1}


def test_full_rack_does_not_keep_pods_waiting() -> None:
    cluster = _cluster(h1="rack=a", h2="rack=b")
    cluster.charge("x", "h2", "x", load(cpu_milli=3500))
    assert Counter(_agents(place(cluster, [_ask(count=6, spread="rack")]))) == {"h1": 5, "h2": 1}


def test_spread_uses_an_agent_to_avoid_only_when_no_other_has_room() -> None:
    cluster = _cluster(h1="rack=a", h2="rack=b")
    first = replace(_ask(count=3, spread="rack"), avoid=("h1",))
    assert _agents(place(cluster, [first])) == ["h2", "h2", "h2"]
    many = replace(_ask("more", 7, spread="rack"), avoid=("h1",))
    assert Counter(_agents(place(cluster, [many]))) == {"h2": 5, "h1": 2}


def test_affinity_needs_a_container_of_each_named_job() -> None:
    cluster = _cluster(h1="", h2="", h3="")
    for key, host, group in (("a", "h1", "db-1"), ("b", "h2", "db-2"), ("c", "h2", "cache-1")):
        cluster.charge(key, host, group, load())
    near = (JobGroups("db", ("db-1", "db-2")), JobGroups("cache", ("cache-1",)))
    assert set(_agents(place(cluster, [replace(_ask(count=2), near=near)]))) == {"h2"}
    assert set(_agents(place(cluster, [replace(_ask("x", 4), near=near[:1])]))) == {"h1", "h2"}


def test_anti_affinity_keeps_off_agents_with_a_container_of_any_named_job() -> None:
    cluster = _cluster(h1="", h2="", h3="")
    cluster.charge("a", "h1", "db-1", load())
    cluster.charge("b", "h3", "noisy-1", load())
    apart = (JobGroups("db", ("db-1",)), JobGroups("noisy", ("noisy-1",)), JobGroups("gone"))
    assert set(_agents(place(cluster, [replace(_ask(count=3), apart=apart)]))) == {"h2"}


@pytest.mark.parametrize(
    ("asked", "code", "nearest"),
    [
        (_ask(require=("ssd", "rack=r1|r2")), "require", "h1 lacks ssd, rack=r1|r2"),
        (_ask(forbid=("zone=a",)), "forbid", "h1 has forbidden zone=a"),
        (replace(_ask(), near=(JobGroups("db"),)), "affinity", "h1 holds no pod of db"),
        (
            replace(_ask(), apart=(JobGroups("x", ("x-1",)), JobGroups("y"))),
            "anti-affinity",
            "h1 holds a pod of x",
        ),
    ],
)
def test_refusal_counts_agents_by_constraint_and_names_the_nearest(
    asked: Ask, code: str, nearest: str
) -> None:
    cluster = _cluster(h1="zone=a", h2="zone=a rack=r3")
    for host in ("h1", "h2"):
        cluster.charge(host, host, "x-1", load())
    (refusal,) = place(cluster, [asked]).refusals
    assert (refusal.reason.code, refusal.reason.counts) == (code, {code: 2})
    assert nearest in refusal.reason.nearest


# ---- against one container at a time, in plain Python


class _Host(NamedTuple):
    cpu: int
    memory_gib: int
    tags: frozenset[str]
    rack: str
    used: tuple[int, ...]
    """For each of the groups web, db, noisy: how many containers of it are there already."""


_GROUPS = ("web", "db", "noisy")
_HOSTS = st.lists(
    st.builds(
        _Host,
        cpu=st.sampled_from((2000, 4000, 8000)),
        memory_gib=st.sampled_from((4, 8)),
        tags=st.frozensets(st.sampled_from(("ssd", "spot"))),
        rack=st.sampled_from(("", "r1", "r2", "r3")),
        used=st.tuples(*[st.integers(0, 1)] * 3),
    ),
    min_size=1,
    max_size=7,
)
_MARKS = st.lists(st.sampled_from(("ssd", "spot", "rack=r1|r3", "rack=r2")), max_size=2, unique=True)


class _Slow:
    """Places one container after the other by looking at every host, as the module of placement says."""

    def __init__(self, hosts: list[_Host]) -> None:
        self.hosts = hosts
        self.replicas = [host.used[0] for host in hosts]
        self.cpu = [host.cpu - 500 * sum(host.used) for host in hosts]
        self.memory = [(host.memory_gib - sum(host.used)) * GIB for host in hosts]

    def place(self, asked: Ask) -> list[str]:
        left = [self.tightness(at) for at in range(len(self.hosts))]
        extra = [self.extra(asked, at) for at in range(len(self.hosts))]
        chosen: list[str] = []
        for _ in asked.containers:
            fitting = [at for at in range(len(self.hosts)) if self.fits(asked, at)]
            if not fitting:
                break
            best = min(
                fitting,
                key=lambda at: (
                    f"h{at}" in asked.avoid,
                    *self.domain(asked, at),
                    self.replicas[at] + extra[at],
                    left[at],
                    at,
                ),
            )
            chosen.append(f"h{best}")
            self.replicas[best] += 1
            self.cpu[best] -= 500
            self.memory[best] -= GIB
        return chosen

    def has(self, at: int, mark: str) -> bool:
        host = self.hosts[at]
        return mark in host.tags or host.rack in mark.removeprefix("rack=").split("|")

    def fits(self, asked: Ask, at: int) -> bool:
        marks, most = asked.shape.constraints, asked.shape.max_per_host
        holds = {name for name, count in zip(_GROUPS, self.hosts[at].used, strict=True) if count}
        return (
            self.cpu[at] >= 500
            and self.memory[at] >= GIB
            and all(self.has(at, mark) for mark in marks.require)
            and not any(self.has(at, mark) for mark in marks.forbid)
            and all(holds.intersection(job.groups) for job in asked.near)
            and not any(holds.intersection(job.groups) for job in asked.apart)
            and (not most or self.replicas[at] < most)
        )

    def domain(self, asked: Ask, at: int) -> tuple[int, str]:
        if not asked.shape.constraints.spread:
            return 0, ""
        rack = self.hosts[at].rack
        return sum(n for n, host in zip(self.replicas, self.hosts, strict=True) if host.rack == rack), rack

    def extra(self, asked: Ask, at: int) -> int:
        lacking = sum(not self.has(at, mark) for mark in asked.shape.constraints.prefer)
        return 10_000 * lacking + (asked.size // OPEN_SHARE if not sum(self.hosts[at].used) else 0)

    def tightness(self, at: int) -> float:
        host, cpu, memory = self.hosts[at], self.cpu[at], self.memory[at]
        before = cpu * (1.0 / host.cpu), memory * (1.0 / (host.memory_gib * GIB))
        after = (
            before[0] - 500 * (1.0 / host.cpu),
            before[1] - GIB * (1.0 / (host.memory_gib * GIB)),
        )
        return (1 + FILL_WEIGHT) * max(after) - min(after) - max(before) + min(before)


@given(
    hosts=_HOSTS,
    count=st.integers(1, 14),
    require=_MARKS,
    forbid=_MARKS,
    prefer=_MARKS,
    spread=st.sampled_from(("", "rack")),
    related=st.tuples(*[st.sampled_from(("", "near", "apart"))] * 2),
    most=st.integers(0, 3),
    avoid=st.booleans(),
)
def test_many_containers_go_where_one_at_a_time_in_plain_python_would_go(
    hosts: list[_Host],
    count: int,
    require: list[str],
    forbid: list[str],
    prefer: list[str],
    spread: str,
    related: tuple[str, ...],
    most: int,
    avoid: bool,
) -> None:
    cluster = ClusterView(creating_max=1000)
    for at, host in enumerate(hosts):
        info = agent(f"h{at}", cpu_milli=host.cpu, memory_bytes=host.memory_gib * GIB)
        labels = {"rack": host.rack} if host.rack else {}
        cluster.join(replace(first_record(info), tags=tuple(sorted(host.tags)), labels=labels))
        for group, held in zip(_GROUPS, host.used, strict=True):
            for number in range(held):
                cluster.charge(f"{group}{at}{number}", f"h{at}", group, load())
    jobs = {name: JobGroups(name, (name,)) for name in _GROUPS}
    marks = Constraints(require=tuple(require), forbid=tuple(forbid), prefer=tuple(prefer), spread=spread)
    asked = replace(
        ask("web", count, first=100, constraints=marks, max_per_host=most),
        near=tuple(jobs[name] for name, how in zip(_GROUPS[1:], related, strict=True) if how == "near"),
        apart=tuple(jobs[name] for name, how in zip(_GROUPS[1:], related, strict=True) if how == "apart"),
        avoid=("h0",) if avoid else (),
    )
    expected = _Slow(hosts).place(asked)
    plan = place(cluster, [asked])
    assert _agents(plan) == expected
    assert sum(len(refusal.containers) for refusal in plan.refusals) == count - len(expected)
