"""Tables, trace, heartbeats and answers: written values are read back, and only a leader writes."""

from __future__ import annotations

import pytest

from galaxy.errors import BadMessage, NotLeader
from galaxy.model.api.answers import Answer, Reply
from galaxy.model.base import decode
from galaxy.model.messages.agent import AgentReport, AgentUsage, Meter, MeterSample
from galaxy.model.messages.names import RESMAN
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.stored.table import Table, TableChange
from tests.contract.nexus.conftest import ROLE, TTL_S, World
from tests.support.tally import Count


def put(**totals: int) -> list[TableChange]:
    table: Table[Count] = Table("counts", Count)
    for name, total in totals.items():
        table.put(name, Count(name=name, total=total))
    return table.changes()


def drop(*names: str) -> list[TableChange]:
    return [TableChange(table="counts", key=name, value=None) for name in names]


def stored(world: World) -> dict[str, int]:
    return {name: row.total for name, row in world.other.read_table(ROLE, "counts", Count).items()}


def test_rows_are_written_replaced_and_dropped(world: World) -> None:
    grant = world.grant()
    world.nexus.commit(grant, 1, put(x=1, y=2, z=3), [])
    world.nexus.commit(grant, 2, [*put(x=10), *drop("y")], [])
    assert stored(world) == {"x": 10, "z": 3}


def test_tables_load_what_was_committed_sorted_by_key(world: World) -> None:
    world.nexus.commit(world.grant(), 1, put(b=2, a=1), [])
    table: Table[Count] = Table("counts", Count)
    world.other.load(ROLE, [table])
    assert [(key, table[key].total) for key in table] == [("a", 1), ("b", 2)]
    assert table.changes() == []


def test_commit_after_the_lease_ended_is_refused_and_writes_nothing(world: World) -> None:
    grant = world.grant("a", TTL_S)
    world.let_pass(TTL_S * 1.2)
    with pytest.raises(NotLeader):
        world.nexus.commit(grant, 1, put(x=1), [TraceEvent(kind="k", subject="x")])
    assert stored(world) == {}
    assert world.nexus.trace() == []


def test_former_leader_cannot_write_while_the_next_one_leads(world: World) -> None:
    old = world.grant("a", TTL_S)
    world.let_pass(TTL_S * 1.2)
    world.nexus.commit(world.grant("b"), 1, put(x=1), [])
    with pytest.raises(NotLeader):
        world.nexus.commit(old, 1, put(x=666), [])
    assert stored(world) == {"x": 1}


def test_earlier_epoch_of_the_same_owner_is_refused(world: World) -> None:
    old = world.grant("a")
    world.grant("a")
    with pytest.raises(NotLeader):
        world.nexus.commit(old, 1, put(x=1), [])


def test_same_commit_twice_takes_effect_once(world: World) -> None:
    grant = world.grant()
    world.nexus.commit(grant, 7, put(x=1), [TraceEvent(kind="k", subject="x")])
    world.nexus.commit(grant, 7, put(x=1), [TraceEvent(kind="k", subject="x")])
    assert stored(world) == {"x": 1}
    assert len(world.nexus.trace(["x"])) == 1


def test_huge_commit_is_written_completely(world: World) -> None:
    names = [f"n{number:05}" for number in range(20_000)]
    grant = world.grant()
    filler = b" " * 400
    changes = [
        TableChange(table="counts", key=c.key, value=(c.value or b"") + filler)
        for c in put(**dict.fromkeys(names, 1))
    ]
    world.nexus.commit(grant, 1, [*changes, *put(last=9)], [])
    totals = stored(world)
    assert len(totals) == len(names) + 1
    assert totals["last"] == 9
    world.nexus.commit(grant, 2, drop(*names), [])
    assert stored(world) == {"last": 9}


def test_tables_and_roles_are_separate(world: World) -> None:
    world.nexus.commit(
        world.grant(), 1, [*put(x=1), TableChange(table="more", key="x", value=b'{"name":"x","total":2}')], []
    )
    assert stored(world) == {"x": 1}
    assert world.nexus.read_table(ROLE, "more", Count)["x"].total == 2
    assert world.nexus.read_table("another", "counts", Count) == {}
    assert world.nexus.read_names("another", "counts") == []
    assert world.nexus.read_some("another", "counts", ["x"], Count) == {}


def test_some_rows_and_the_names_of_all_are_read_without_the_others(world: World) -> None:
    world.nexus.commit(world.grant(), 1, put(b=2, a=1, c=3), [])
    assert world.other.read_names(ROLE, "counts") == ["a", "b", "c"]
    some = world.other.read_some(ROLE, "counts", ["c", "missing", "a"], Count)
    assert {name: row.total for name, row in some.items()} == {"a": 1, "c": 3}
    assert world.other.read_some(ROLE, "counts", [], Count) == {}


def test_trace_of_a_job_includes_its_pods_and_nothing_else(world: World) -> None:
    events = [
        TraceEvent(kind="job.submitted", subject="web-1"),
        TraceEvent(kind="pod.failed", subject="web-1.0", text="exit code 3"),
        TraceEvent(kind="job.submitted", subject="web-12"),
        TraceEvent(kind="pod.failed", subject="web-1.10"),
    ]
    world.nexus.commit(world.grant(), 1, [], events)
    assert [event.subject for event in world.nexus.trace(["web-1"])] == ["web-1", "web-1.0", "web-1.10"]
    assert [event.subject for event in world.nexus.trace(["web-1.1", "web-12"])] == ["web-12"]
    assert world.nexus.trace(["web-1.0"])[0].text == "exit code 3"


def test_trace_without_a_subject_returns_the_newest_events_of_all_subjects_oldest_first(world: World) -> None:
    world.nexus.commit(world.grant(), 1, [], [TraceEvent(kind="k", subject=f"s{n}") for n in range(9)])
    assert [event.subject for event in world.nexus.trace((), 3)] == ["s6", "s7", "s8"]
    assert world.nexus.trace((), 0) == []


def test_heartbeats_are_read_back_with_their_time_and_digests(world: World) -> None:
    big = (1 << 60) - 1
    world.nexus.send_heartbeat("h2", boot="b2")
    world.nexus.send_heartbeat("h1", boot="b1", containers=big, pods=7)
    world.let_pass(0.05)
    seen = world.other.heartbeats()
    assert [(beat.agent, beat.boot, beat.containers, beat.pods) for beat in seen.heartbeats] == [
        ("h1", "b1", big, 7),
        ("h2", "b2", 0, 0),
    ]
    assert all(0.04 <= seen.now_s - beat.at_s < 5 for beat in seen.heartbeats)


def test_meters_of_an_agent_are_the_last_that_it_sent_with_a_heartbeat(world: World) -> None:
    first = MeterSample(boot="b", at_s=1.0, meters={"web.0_1": Meter(cpu_ms=5, memory_byte_s=2.5)})
    last = MeterSample(boot="b", at_s=2.0, meters={"web.0_1": Meter(cpu_ms=9, peak_memory_bytes=1 << 40)})
    for sample in (first, last, None):
        world.nexus.send_heartbeat("h1", boot="b", meters=sample)
    assert world.other.meters() == {"h1": last}
    world.nexus.forget_agents(["h1"])
    assert world.other.meters() == {}


def test_forgotten_agents_have_no_heartbeat_usage_and_report_any_more(world: World) -> None:
    usage = AgentUsage(at_s=1.0, cpu_milli=1, memory_bytes=1, disk_bytes=1)
    for name in ("h1", "h2"):
        world.nexus.send_heartbeat(name, boot="b", usage=usage)
        world.nexus.post_report(RESMAN, AgentReport(agent=name, boot="b", serial=1))
    world.nexus.forget_agents(["h1", "unknown"])
    assert [beat.agent for beat in world.other.heartbeats(RESMAN).heartbeats] == ["h2"]
    assert world.other.heartbeats(RESMAN).unread == {"h2"}
    assert set(world.other.usages()) == {"h2"}
    world.nexus.forget_agents([])


def test_heartbeats_and_usages_of_some_agents_are_read_without_the_others(world: World) -> None:
    usage = AgentUsage(at_s=1.0, cpu_milli=2, memory_bytes=3, disk_bytes=4)
    for name in ("h1", "h2", "h3"):
        world.nexus.send_heartbeat(name, boot=f"boot-{name}", usage=usage if name != "h1" else None)
    seen = world.other.heartbeats_of(["h3", "h1", "missing", "h3"])
    assert [(beat.agent, beat.boot) for beat in seen.heartbeats] == [("h1", "boot-h1"), ("h3", "boot-h3")]
    assert all(0 <= seen.now_s - beat.at_s < 5 for beat in seen.heartbeats)
    assert world.other.usages_of(["h1", "h2", "missing"]) == {"h2": usage}
    assert world.other.heartbeats_of([]).heartbeats == ()
    assert world.other.usages_of([]) == {}


def test_later_heartbeat_replaces_the_earlier_one_and_keeps_its_usage(world: World) -> None:
    usage = AgentUsage(at_s=1.0, cpu_milli=10, memory_bytes=20, disk_bytes=30)
    world.nexus.send_heartbeat("h1", boot="b1", usage=usage)
    world.nexus.send_heartbeat("h1", boot="b2")
    assert [beat.boot for beat in world.nexus.heartbeats().heartbeats] == ["b2"]
    assert world.nexus.usages() == {"h1": usage}


def test_answer_reaches_its_waiting_client_once(world: World) -> None:
    world.nexus.reply([Reply(reply="r1", answer=Answer(key="k", result={"a": 1}))])
    data = world.other.await_reply("r1", 5.0)
    assert data is not None
    assert decode(data, Answer) == Answer(key="k", result={"a": 1})
    assert world.other.await_reply("r1", 0.05) is None


def test_client_does_not_get_the_answer_to_another_request(world: World) -> None:
    world.nexus.reply([Reply(reply="r1", answer=Answer(key="k"))])
    assert world.other.await_reply("r2", 0.05) is None


@pytest.mark.parametrize(
    "value", [b'{"name":"x"}', b"", b"{", b'{"name":"x","total":1},{"name":"y","total":1}']
)
def test_malformed_stored_row_is_refused_and_the_table_is_unchanged(world: World, value: bytes) -> None:
    world.nexus.commit(
        world.grant(), 1, [*put(a=1), TableChange(table="counts", key="broken", value=value)], []
    )
    table: Table[Count] = Table("counts", Count)
    table.put("old", Count(name="old", total=1))
    with pytest.raises(BadMessage):
        world.other.load(ROLE, [table])
    assert list(table) == ["old"]


def test_keys_of_any_characters_are_loaded_as_they_were_written(world: World) -> None:
    names = ['a"b', "a/b", "a\\b", "ä\u2028\U0001f30c", "a\nb\x00\x1f", "x" * 5000]
    world.nexus.commit(world.grant(), 1, put(**dict.fromkeys(names, 1)), [])
    table: Table[Count] = Table("counts", Count)
    world.other.load(ROLE, [table])
    assert list(table) == sorted(names)
