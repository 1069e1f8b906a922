"""Explanations of why no agent has room."""

from galaxy.model.messages.container import Reason
from galaxy.scheduler.cluster_view import ClusterView, PlacementStatus
from galaxy.scheduler.explain import PHRASES, SINGULAR
from galaxy.scheduler.place import place
from galaxy.scheduler.requests import Ask
from tests.unit.scheduler.build import GIB, agent, ask, load, view


def _refusal(cluster: ClusterView, one: Ask) -> Reason:
    return place(cluster, [one]).refusals[0].reason


def test_each_agent_is_counted_for_its_first_failing_constraint_and_the_nearest_are_named() -> None:
    cluster = view(
        *[agent(f"h{i}", memory_bytes=i * GIB) for i in range(1, 4)],
        *[agent(f"p{i}", pool="other", memory_bytes=GIB) for i in range(2)],
        agent("c1", cpu_milli=100),
    )
    reason = _refusal(cluster, ask(of=load(memory_bytes=int(4.5 * GIB)), pools=("main",)))
    assert reason.code == "no-room"
    assert reason.counts == {"cpu": 1, "memory": 3, "pool": 2}
    assert reason.nearest == (
        "h3 lacks 1.5 GiB memory",
        "h2 lacks 2.5 GiB memory",
        "h1 lacks 3.5 GiB memory",
    )
    assert reason.message == (
        "no agent has room: 1 of 6 lacks cpu, 3 lack memory, 2 are in other pools; "
        "nearest is h3, which lacks 1.5 GiB memory"
    )


def test_everything_that_one_agent_lacks_is_explained_in_numbers() -> None:
    cluster = view(agent("h1", cpu_milli=250, disk_bytes=GIB, ports_low=0, ports_high=0))
    reason = _refusal(cluster, ask(of=load(disk_bytes=3 * GIB, dynamic=1)))
    assert reason.nearest == ("h1 has 0 dynamic ports left, lacks 250m cpu, lacks 2 GiB disk",)


def test_cause_that_stops_every_agent_is_the_code() -> None:
    cluster = view(agent("h1"), agent("h2"))
    assert _refusal(cluster, ask(tag="gpu")).code == "tag"
    assert _refusal(cluster, ask(pools=("x",))).nearest == (
        "h1 is in pool main",
        "h2 is in pool main",
    )
    assert _refusal(cluster, ask(require=("memory",))).code == "mode"


def test_refusal_without_agents_says_how_to_start_one() -> None:
    reason = _refusal(view(), ask())
    assert reason.code == "no-agents"
    assert "start one with galaxy agent" in reason.message


def test_max_per_host_and_port_conflicts_are_explained_with_numbers() -> None:
    cluster = view(agent("h1"))
    place(cluster, [ask(of=load(ports=(80,)), max_per_host=1)])
    crowded = _refusal(cluster, ask(first=1, max_per_host=1))
    assert (crowded.code, crowded.nearest) == ("max-per-host", ("h1 holds 1 of this group",))
    taken = _refusal(cluster, ask("other", of=load(ports=(80, 81))))
    assert (taken.code, taken.nearest) == ("port-conflict", ("h1 has port 80 taken",))


def test_suspect_dead_and_cordoned_agents_are_counted_apart() -> None:
    cluster = view(agent("h1"), agent("h2"), agent("h3"))
    cluster.set_status("h1", PlacementStatus.SUSPECT)
    cluster.set_status("h2", PlacementStatus.DEAD)
    cluster.set_status("h3", PlacementStatus.CORDONED)
    reason = _refusal(cluster, ask())
    assert reason.counts == {"cordoned": 1, "suspect": 1, "dead": 1}
    assert "1 of 3 is cordoned or drained, 1 has missed reports, 1 is dead" in reason.message


def test_every_cause_is_said_of_one_agent_and_of_several() -> None:
    for phrase in PHRASES.values():
        assert phrase.partition(" ")[0] in SINGULAR
    several = _refusal(view(agent("h1"), agent("h2")), ask(pools=("x",))).message
    assert "2 of 2 are in other pools" in several
    assert "1 of 1 is in another pool" in _refusal(view(agent("h1")), ask(pools=("x",))).message


def test_agent_with_as_many_containers_as_it_may_hold_is_explained_by_that_limit() -> None:
    cluster = view(agent("h1", containers=1))
    place(cluster, [ask()])
    reason = _refusal(cluster, ask("other"))
    assert (reason.code, reason.nearest) == ("containers", ("h1 holds 1 containers of 1",))
    assert "1 of 1 holds as many containers as it may" in reason.message
