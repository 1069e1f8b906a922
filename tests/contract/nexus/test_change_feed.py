"""The change feed: every committed row is delivered at least once, or the reader must reload."""

from __future__ import annotations

import pytest

from galaxy.errors import NotLeader
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.stored.table import TableChange
from galaxy.nexus.change_feed import ENTRIES_MAX, READ_MAX, ROWS_MAX, FeedRead, RowChange
from tests.contract.nexus.conftest import ROLE, TTL_S, World


def row(key: str, value: str | None, table: str = "counts") -> TableChange:
    return TableChange(table=table, key=key, value=None if value is None else value.encode())


def changed(key: str, value: str | None, table: str = "counts") -> RowChange:
    return RowChange(table=table, key=key, value=None if value is None else value.encode())


def read(world: World, after: str | None, timeout_s: float = 0.0, role: str = ROLE) -> FeedRead:
    return world.other.read_changes(role, after, timeout_s)


def test_reader_without_a_position_must_reload_and_gets_the_position_to_continue_from(world: World) -> None:
    grant = world.grant()
    world.nexus.commit(grant, 1, [row("x", "1")], [])
    first = read(world, None)
    assert first.reload and not first.changes
    assert read(world, first.position) == FeedRead(position=first.position)


def test_reader_that_began_before_the_first_commit_misses_nothing(world: World) -> None:
    start = read(world, None)
    assert read(world, start.position) == FeedRead(position=start.position)
    world.nexus.commit(world.grant(), 1, [row("x", "1")], [])
    assert read(world, start.position).changes == (changed("x", "1"),)


def test_rows_written_and_deleted_are_delivered_by_table_with_their_value(world: World) -> None:
    grant = world.grant()
    world.nexus.commit(grant, 1, [row("x", "1"), row("y", "1")], [])
    start = read(world, None).position
    world.nexus.commit(grant, 2, [row("y", None), row("x", "2", "more")], [])
    feed = read(world, start)
    assert set(feed.changes) == {changed("y", None), changed("x", "2", "more")}
    assert not feed.reload
    assert read(world, feed.position).changes == ()


def test_row_that_changed_often_is_delivered_once_with_its_latest_value(world: World) -> None:
    grant = world.grant()
    start = read(world, None).position
    for serial in range(1, 6):
        world.nexus.commit(grant, serial, [row("x", str(serial))], [])
    assert read(world, start).changes == (changed("x", "5"),)


def test_same_commit_twice_is_one_entry(world: World) -> None:
    grant = world.grant()
    start = read(world, None).position
    for _ in range(2):
        world.nexus.commit(grant, 7, [row("x", "1")], [])
    feed = read(world, start)
    assert feed.changes == (changed("x", "1"),)
    assert read(world, feed.position).changes == ()


def test_refused_commit_leaves_no_entry(world: World) -> None:
    grant = world.grant("a", TTL_S)
    start = read(world, None).position
    world.let_pass(TTL_S * 1.2)
    with pytest.raises(NotLeader):
        world.nexus.commit(grant, 1, [row("x", "1")], [])
    assert read(world, start) == FeedRead(position=start)


def test_commit_of_events_alone_is_not_in_the_feed(world: World) -> None:
    start = read(world, None).position
    world.nexus.commit(world.grant(), 1, [], [TraceEvent(kind="k", subject="x")])
    assert read(world, start) == FeedRead(position=start)


def test_each_role_has_its_own_feed(world: World) -> None:
    start = read(world, None, role="another").position
    world.nexus.commit(world.grant(), 1, [row("x", "1")], [])
    assert read(world, start, role="another") == FeedRead(position=start)


def test_long_backlog_is_delivered_in_several_answers(world: World) -> None:
    grant = world.grant()
    start = read(world, None).position
    for serial in range(1, READ_MAX + 11):
        world.nexus.commit(grant, serial, [row(f"k{serial}", "1")], [])
    first = read(world, start)
    second = read(world, first.position)
    names = {change.key for change in (*first.changes, *second.changes)}
    assert names == {f"k{serial}" for serial in range(1, READ_MAX + 11)}
    assert len(first.changes) == READ_MAX


def test_reader_must_reload_after_a_commit_of_more_rows_than_an_entry_names(world: World) -> None:
    grant = world.grant()
    start = read(world, None).position
    world.nexus.commit(grant, 1, [row(f"k{n}", "1") for n in range(ROWS_MAX + 1)], [])
    feed = read(world, start)
    assert feed.reload and not feed.changes
    world.nexus.commit(grant, 2, [row("x", "1")], [])
    assert read(world, feed.position).changes == (changed("x", "1"),)


@pytest.mark.parametrize("from_the_start", [True, False])
def test_reader_whose_position_was_trimmed_must_reload(world: World, from_the_start: bool) -> None:
    grant = world.grant()
    serial = 1
    start = read(world, None).position
    if not from_the_start:
        world.nexus.commit(grant, serial, [row("x", "1")], [])
        start = read(world, None).position
    for _ in range(ENTRIES_MAX + 300):  # Redis trims whole nodes of a hundred entries.
        serial += 1
        world.nexus.commit(grant, serial, [row("x", str(serial))], [])
    feed = read(world, start)
    assert feed.reload and not feed.changes
    world.nexus.commit(grant, serial + 1, [row("y", "1")], [])
    assert read(world, feed.position).changes == (changed("y", "1"),)
