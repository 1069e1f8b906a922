"""The change feed: every committed row is delivered at least once, or the reader must reload."""

from __future__ import annotations

import pytest

from galaxy.driver.interfaces import FeedPosition, FeedRead, RowChange
from galaxy.errors import NotLeader
from galaxy.model.messages.trace import TraceEvent
from galaxy.model.stored.table import TableChange
from galaxy.nexus.change_feed import (
    COMMIT_ROWS_MAX,
    READ_MAX,
    READ_ROWS_MAX,
    ROWS_MAX,
)
from tests.contract.nexus.conftest import ROLE, TTL_S, World


def row(key: str, value: str | None, table: str = "counts") -> TableChange:
    return TableChange(table=table, key=key, value=None if value is None else value.encode())


def changed(key: str, value: str | None, table: str = "counts") -> RowChange:
    return RowChange(table=table, key=key, value=None if value is None else value.encode())


def read(world: World, after: FeedPosition | None, timeout_s: float = 0.0, role: str = ROLE) -> FeedRead:
    return world.other.read_changes(role, after, timeout_s)


def at_end(position: FeedPosition) -> FeedRead:
    """Return the answer to a reader that has got everything."""
    return FeedRead(position=position, current=True)


def test_reader_without_a_position_must_reload_and_gets_the_position_to_continue_from(world: World) -> None:
    grant = world.grant()
    world.nexus.commit(grant, 1, [row("x", "1")], [])
    first = read(world, None)
    assert first.reload and not first.changes
    assert read(world, first.position) == at_end(first.position)


def test_reader_that_began_before_the_first_commit_misses_nothing(world: World) -> None:
    start = read(world, None)
    assert read(world, start.position) == at_end(start.position)
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
    assert read(world, start) == at_end(start)


def test_commit_of_events_alone_moves_the_position_and_names_no_row(world: World) -> None:
    start = read(world, None).position
    world.nexus.commit(world.grant(), 1, [], [TraceEvent(kind="k", subject="x")])
    feed = read(world, start)
    assert not feed.changes and not feed.reload and feed.position != start
    assert read(world, feed.position) == at_end(feed.position)


def test_each_role_has_its_own_feed(world: World) -> None:
    start = read(world, None, role="another").position
    world.nexus.commit(world.grant(), 1, [row("x", "1")], [])
    assert read(world, start, role="another") == at_end(start)


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


def test_large_commit_is_delivered_in_several_answers_and_current_after_the_last(
    world: World,
) -> None:
    grant = world.grant()
    start = read(world, None).position
    rows = [row(f"k{n}", "1") for n in range(READ_ROWS_MAX + 2 * ROWS_MAX + 1)]
    world.nexus.commit(grant, 1, rows, [])
    first = read(world, start)
    second = read(world, first.position)
    assert not first.current and not first.reload and len(first.changes) == READ_ROWS_MAX
    assert {change.key for change in (*first.changes, *second.changes)} == {change.key for change in rows}
    assert read(world, second.position) == at_end(second.position)


def test_reader_must_reload_after_a_commit_of_more_rows_than_are_named(world: World) -> None:
    grant = world.grant()
    start = read(world, None).position
    world.nexus.commit(grant, 1, [row(f"k{n}", "1") for n in range(COMMIT_ROWS_MAX + 1)], [])
    feed = read(world, start)
    assert feed.reload and not feed.changes
    world.nexus.commit(grant, 2, [row("x", "1")], [])
    assert read(world, feed.position).changes == (changed("x", "1"),)


def test_reader_must_reload_when_the_server_lost_the_commit_at_its_position(world: World) -> None:
    grant = world.grant()
    world.nexus.commit(grant, 1, [row("x", "1")], [])
    lose = world.back_up()
    world.nexus.commit(grant, 2, [row("x", "2")], [])
    position = read(world, None).position
    lose()
    assert read(world, position).reload
    world.nexus.commit(grant, 3, [row("y", "1")], [])
    world.nexus.commit(grant, 4, [row("y", "2")], [])
    feed = read(world, position)
    assert feed.reload
    assert read(world, feed.position) == at_end(feed.position)


def test_reader_must_reload_when_its_rows_include_a_commit_that_the_server_lost(world: World) -> None:
    grant = world.grant()
    start = read(world, None).position
    for serial in range(1, READ_MAX + 1):
        world.nexus.commit(grant, serial, [row("x", str(serial))], [])
    lose = world.back_up()
    world.nexus.commit(grant, READ_MAX + 1, [row("x", "lost")], [])
    first = read(world, start)
    assert first.changes == (changed("x", "lost"),)
    lose()
    assert read(world, first.position).reload
    world.nexus.commit(grant, READ_MAX + 2, [row("y", "1")], [])
    second = read(world, first.position)
    assert second.changes == (changed("y", "1"),)
    assert read(world, second.position).reload


def test_rows_that_include_a_later_commit_are_good_once_its_entry_is_read(world: World) -> None:
    grant = world.grant()
    start = read(world, None).position
    for serial in range(1, READ_MAX + 2):
        world.nexus.commit(grant, serial, [row("x", str(serial))], [])
    first = read(world, start)
    assert first.position.ahead
    second = read(world, first.position)
    assert read(world, second.position) == at_end(second.position)


def test_reader_must_reload_after_commits_without_entries(world: World) -> None:
    """As a release without this feed makes them, and as a server may lose a stream."""
    grant = world.grant()
    world.nexus.commit(grant, 1, [row("x", "1")], [])
    position = read(world, None).position
    world.nexus.commit(grant, 2, [row("x", "2")], [])
    world.trim_feed(0)
    assert read(world, position).reload
    world.nexus.commit(grant, 3, [row("y", "1")], [])
    assert read(world, position).reload


def test_rows_of_a_table_are_read_with_the_last_commit(world: World) -> None:
    grant = world.grant()
    world.nexus.commit(grant, 1, [row("x", "1"), row("y", "2"), row("z", "3", "more")], [])
    position = read(world, None).position
    rows: dict[str, bytes] = {}
    assert world.other.read_rows(ROLE, "counts", rows.update) == position.commit
    assert rows == {"x": b"1", "y": b"2"}
    assert world.other.read_rows("another", "counts", rows.update) == ""


@pytest.mark.parametrize("from_the_start", [True, False])
def test_reader_whose_position_was_trimmed_must_reload(world: World, from_the_start: bool) -> None:
    grant = world.grant()
    serial = 1
    start = read(world, None).position
    if not from_the_start:
        world.nexus.commit(grant, serial, [row("x", "1")], [])
        start = read(world, None).position
    for _ in range(3):
        serial += 1
        world.nexus.commit(grant, serial, [row("x", str(serial))], [])
    world.trim_feed(1)
    feed = read(world, start)
    assert feed.reload and not feed.changes
    world.nexus.commit(grant, serial + 1, [row("y", "1")], [])
    assert read(world, feed.position).changes == (changed("y", "1"),)
