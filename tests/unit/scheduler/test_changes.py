"""The smallest change that makes one more container fit: it is made, and the container is placed."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from galaxy.model.messages.container import Constraints
from galaxy.model.stored.agent import Drain, Mark, first_record
from galaxy.scheduler.causes import causes_of
from galaxy.scheduler.changes import smallest_changes
from galaxy.scheduler.cluster_view import ClusterView, PlacementStatus
from galaxy.scheduler.place import place
from galaxy.scheduler.requests import Ask, JobGroups
from tests.unit.scheduler.build import GIB, agent, ask, load

MIB = 1024**2
SUSPECT, CORDONED = PlacementStatus.SUSPECT, PlacementStatus.CORDONED


def host(
    marks: str = "",
    *,
    holds: str = "",
    taken: int = 0,
    creating: int = 0,
    status: PlacementStatus = PlacementStatus.OPEN,
    closed: str | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """Return facts of a host: tags and labels, groups of its containers, a port in use, and so on.

    ``closed`` has the words "cordoned" and "drained", as they apply; None means what ``status`` says.
    """
    if closed is None:
        closed = "cordoned" if status is CORDONED else ""
    return {
        "marks": marks.split(), "holds": holds.split(), "taken": taken, "creating": creating,
        "status": status, "closed": closed, "facts": facts,
    }  # fmt: skip


def cluster_of(hosts: dict[str, dict[str, Any]]) -> ClusterView:
    built = ClusterView(creating_max=4)
    nothing = load(cpu_milli=0, memory_bytes=0, disk_bytes=0)
    for name, about in hosts.items():
        marks, status = about["marks"], about["status"]
        record = replace(
            first_record(agent(name, **about["facts"])),
            tags=tuple(mark for mark in marks if "=" not in mark),
            labels=dict(mark.split("=") for mark in marks if "=" in mark),
            cordon=Mark(by="root", at_s=1.0) if "cordoned" in about["closed"] else None,
            drain=Drain(by="root", at_s=1.0) if "drained" in about["closed"] else None,
        )
        built.join(record, status)
        for number, group in enumerate(about["holds"]):
            built.charge(f"{name}.{number}", name, group, nothing)
        if about["taken"]:
            built.charge(f"{name}.port", name, "binder", replace(nothing, ports=(about["taken"],)))
        for number in range(about["creating"]):
            built.charge(f"{name}.new{number}", name, "new", nothing, creating=True)
    return built


def asks(near: str = "", apart: str = "", **marks: tuple[str, ...]) -> Ask:
    return replace(
        ask(constraints=Constraints(**marks)),
        near=tuple(JobGroups(name, (name,)) for name in near.split()),
        apart=tuple(JobGroups(name, (name,)) for name in apart.split()),
    )


def big(**amounts: int) -> Ask:
    return ask(of=load(**amounts))


def limited(most: int) -> Ask:
    return ask(max_per_host=most)


SITUATIONS: list[tuple[str, dict[str, Any], Ask, list[str]]] = [
    # ---- amounts
    (
        "memory",
        {"h1": host(), "h2": host(memory_bytes=GIB)},
        big(memory_bytes=10 * GIB),
        ["memory 8 GiB instead of 10 GiB (h1 has room then)"],
    ),
    (
        "cpu",
        {"h1": host(cpu_milli=3500), "h2": host(cpu_milli=3900)},
        big(cpu_milli=4500),
        ["cpu 3.9 instead of 4.5 (h2 has room then)"],
    ),
    (
        "disk",
        {"h1": host()},
        big(disk_bytes=200 * GIB),
        ["disk 100 GiB instead of 200 GiB (h1 has room then)"],
    ),
    (
        "rounded down",
        {"h1": host(memory_bytes=3 * GIB + 290 * MIB)},
        big(memory_bytes=4 * GIB),
        ["memory 3.2 GiB instead of 4 GiB (h1 has room then)"],
    ),
    (
        "odd bytes",
        {"h1": host(memory_bytes=700 * MIB + 12345)},
        big(memory_bytes=GIB),
        ["memory 700 MiB instead of 1 GiB (h1 has room then)"],
    ),
    (
        "two amounts",
        {"h1": host()},
        big(cpu_milli=5000, memory_bytes=9 * GIB),
        ["cpu 4 instead of 5, memory 8 GiB instead of 9 GiB (h1 has room then)"],
    ),
    (
        "two amounts or one",
        {"h1": host(), "h2": host(cpu_milli=8000)},
        big(cpu_milli=5000, memory_bytes=9 * GIB),
        ["memory 8 GiB instead of 9 GiB (h2 has room then)"],
    ),
    (
        "equal hosts",
        {"h1": host(), "h2": host()},
        big(memory_bytes=9 * GIB),
        ["memory 8 GiB instead of 9 GiB (one of h1, h2 has room then)"],
    ),
    # ---- tags and labels
    ("tag", {"h1": host(), "h2": host()}, ask(tag="ssd"), ["tag ssd on one of h1, h2"]),
    (
        "tag or memory",
        {"h1": host("ssd", memory_bytes=4 * GIB), "h7": host(), "h9": host()},
        ask(of=load(memory_bytes=5 * GIB), tag="ssd"),
        ["memory 4 GiB instead of 5 GiB (h1 has room then)", "tag ssd on one of h7, h9"],
    ),
    (
        "many hosts",
        {f"h{n}": host() for n in range(1, 7)},
        ask(tag="ssd"),
        ["tag ssd on one of h1, h2, h3, ..."],
    ),
    ("required tag", {"h1": host(), "h2": host("a")}, asks(require=("a", "b")), ["tag b on h2"]),
    ("required label", {"h1": host("rack=r3")}, asks(require=("rack=r1|r2",)), ["label rack=r1 on h1"]),
    ("tag and label", {"h1": host()}, asks(require=("ssd", "rack=r1")), ["tag ssd and label rack=r1 on h1"]),
    (
        "forbidden tag",
        {"h1": host("spot"), "h2": host("spot gpu")},
        asks(forbid=("spot", "gpu")),
        ["no tag spot on h1"],
    ),
    ("forbidden label", {"h1": host("zone=b")}, asks(forbid=("zone=a|b",)), ["no label zone=b on h1"]),
    (
        "required and forbidden",
        {"h1": host("spot")},
        asks(require=("ssd",), forbid=("spot",)),
        ["tag ssd and no tag spot on h1"],
    ),
    # ---- pools and state
    ("pool", {"h1": host(pool="far")}, ask(pools=("near",)), ["pool far as well (h1 has room then)"]),
    (
        "pool or cordon",
        {"h1": host(pool="far"), "h2": host(status=CORDONED)},
        ask(pools=("main",)),
        ["uncordon h2", "pool far as well (h1 has room then)"],
    ),
    ("cordoned", {"h1": host(status=CORDONED), "h2": host(status=SUSPECT)}, ask(), ["uncordon h1"]),
    (
        "cordoned and small",
        {"h1": host(status=CORDONED)},
        big(memory_bytes=9 * GIB),
        ["memory 8 GiB instead of 9 GiB and uncordon h1"],
    ),
    ("drained", {"h1": host(status=CORDONED, closed="drained")}, ask(), ["take online h1"]),
    (
        "drained and cordoned",
        {"h1": host(status=CORDONED, closed="drained cordoned")},
        ask(),
        ["uncordon and take online h1"],
    ),
    (
        "drained without the tag",
        {"h1": host(status=CORDONED, closed="drained")},
        ask(tag="ssd"),
        ["take online and tag ssd on h1"],
    ),
    # ---- ports
    (
        "port",
        {"h1": host(taken=8080)},
        ask(of=load(ports=(8080,))),
        ["a dynamic port instead of 8080 (h1 has room then)"],
    ),
    (
        "dynamic ports",
        {"h1": host(ports_low=20000, ports_high=20001)},
        ask(of=load(dynamic=3)),
        ["2 dynamic ports instead of 3 (h1 has room then)"],
    ),
    # ---- other pods
    (
        "max per host",
        {"h1": host(holds="web")},
        limited(1),
        ["max_per_host 2 instead of 1 (h1 has room then)"],
    ),
    (
        "max per host of several",
        {"h1": host(holds="web web web"), "h2": host(holds="web web")},
        limited(2),
        ["max_per_host 3 instead of 2 (h2 has room then)"],
    ),
    (
        "affinity",
        {"h1": host(), "h2": host(holds="db")},
        asks(near="db cache"),
        ["not near cache (h2 has room then)"],
    ),
    (
        "anti-affinity",
        {"h1": host(holds="noisy"), "h2": host(holds="noisy loud")},
        asks(apart="noisy loud"),
        ["not apart from noisy (h1 has room then)"],
    ),
    (
        "anti-affinity of the other job",
        {"h1": host(holds="noisy")},
        replace(ask(), apart=(JobGroups("noisy", ("noisy",), entry="web"),)),
        ["no web in anti_affinity of noisy (h1 has room then)"],
    ),
    (
        "anti-affinity of both jobs",
        {"h1": host(holds="noisy")},
        replace(ask(), apart=(*asks(apart="noisy").apart, JobGroups("noisy", ("noisy",), entry="web"))),
        ["not apart from noisy, no web in anti_affinity of noisy (h1 has room then)"],
    ),
    (
        "anti-affinity or tag",
        {"h1": host("ssd", holds="noisy"), "h2": host()},
        replace(asks(apart="noisy"), shape=ask(tag="ssd").shape),
        ["tag ssd on h2", "not apart from noisy (h1 has room then)"],
    ),
    # ---- several kinds
    (
        "tag and memory",
        {"h1": host()},
        ask(of=load(memory_bytes=9 * GIB), tag="ssd"),
        ["memory 8 GiB instead of 9 GiB and tag ssd on h1"],
    ),
    (
        "fewest kinds first",
        {"h1": host(pool="far", memory_bytes=4 * GIB), "h2": host(memory_bytes=2 * GIB)},
        ask(of=load(memory_bytes=5 * GIB), pools=("main",)),
        ["memory 2 GiB instead of 5 GiB (h2 has room then)"],
    ),
    # ---- nothing helps
    ("suspect", {"h1": host(status=SUSPECT)}, ask(), []),
    ("closed in a plan only", {"h1": host(status=CORDONED, closed="")}, ask(), []),
    ("busy", {"h1": host(creating=4)}, ask(), []),
    ("nothing left", {"h1": host(memory_bytes=0)}, ask(), []),
    ("not enforced", {"h1": host()}, ask(require=("memory",)), []),
    ("containers", {"h1": host(containers=0)}, ask(), []),
]


@pytest.mark.parametrize(
    ("hosts", "asked", "texts"), [row[1:] for row in SITUATIONS], ids=[row[0] for row in SITUATIONS]
)
def test_smallest_change_is_named_and_works_when_it_is_made(
    hosts: dict[str, dict[str, Any]], asked: Ask, texts: list[str]
) -> None:
    cluster = cluster_of(hosts)
    (refusal,) = place(cluster, [asked]).refusals
    assert list(refusal.reason.changes) == texts
    for change in smallest_changes(cluster, asked, causes_of(cluster, asked)):
        changed = cluster_of(hosts)
        changed.join(change.record, PlacementStatus.OPEN)
        assert place(changed, [change.ask]).placements, change.text
