"""Tables that follow the change feed: a leadership begins with them only if they equal the store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from galaxy.driver.interfaces import FeedPosition, FeedRead, Grant
from galaxy.driver.leadership import Leadership
from galaxy.driver.standby import Standby
from galaxy.driver.stored_format import STORED_READABLE, StoredFormat
from galaxy.driver.warm_tables import BEHIND_MIN, WarmTables
from galaxy.errors import BadMessage, GalaxyError, Unreachable
from galaxy.model.base import encode
from galaxy.model.stored.table import TableChange
from galaxy.nexus.in_memory import MemoryNexus
from tests.support.tally import Add, Count, Tally


class CountingNexus(MemoryNexus):
    """Counts the rows that are read in full tables, and can be cut off."""

    def __init__(self) -> None:
        super().__init__(lambda: 1000.0)
        self.rows_read = 0
        self.cut = False

    def read_changes(self, role: str, after: FeedPosition | None, timeout_s: float) -> FeedRead:
        if self.cut:
            raise Unreachable("cut off")
        return super().read_changes(role, after, timeout_s)

    def read_rows(self, role: str, table: str, accept: Callable[[Sequence[tuple[str, bytes]]], None]) -> str:
        def counted(rows: Sequence[tuple[str, bytes]]) -> None:
            self.rows_read += len(rows)
            accept(rows)

        return super().read_rows(role, table, counted)


@pytest.fixture
def nexus() -> CountingNexus:
    return CountingNexus()


def elect(nexus: MemoryNexus, owner: str) -> Grant:
    grant = nexus.campaign("tally", owner, ttl_s=60.0, address=owner)
    assert isinstance(grant, Grant)
    return grant


def leader(nexus: MemoryNexus, owner: str = "a") -> Leadership:
    leadership = Leadership(Tally(), nexus, elect(nexus, owner))
    leadership.begin(1.0)
    leadership.advance(2.0, [Add(name="x", by=3), Add(name="y", by=1)])
    return leadership


def standby(nexus: MemoryNexus) -> tuple[WarmTables, Tally]:
    """Return tables that have followed until now."""
    logic = Tally()
    warm = WarmTables("tally", nexus, logic.tables.values())
    follow(warm)
    return warm, logic


def follow(warm: WarmTables) -> None:
    for _ in range(5):
        warm.apply(warm.read(0.0))


def take_over(nexus: MemoryNexus, warm: WarmTables, logic: Tally, old: Leadership) -> Leadership:
    nexus.release(old.grant)
    leadership = Leadership(logic, nexus, elect(nexus, "b"), warm=warm)
    leadership.begin(3.0)
    return leadership


def totals(logic: Tally) -> dict[str, int]:
    return {name: row.total for name, row in logic.counts.items()}


def test_standby_that_has_followed_begins_without_reading_the_tables(nexus: CountingNexus) -> None:
    old = leader(nexus)
    warm, logic = standby(nexus)
    read = nexus.rows_read
    new = take_over(nexus, warm, logic, old)
    assert new.was_warm and nexus.rows_read == read
    assert totals(logic) == {"x": 3, "y": 1}


def test_commits_after_the_last_read_are_read_before_a_leadership_begins(nexus: CountingNexus) -> None:
    old = leader(nexus)
    warm, logic = standby(nexus)
    old.advance(2.5, [Add(name="x", by=4), Add(name="z")])
    new = take_over(nexus, warm, logic, old)
    assert new.was_warm
    assert totals(logic) == {"x": 7, "y": 1, "z": 1}


def test_standby_that_is_too_far_behind_loads_instead(nexus: CountingNexus) -> None:
    old = leader(nexus)
    warm, logic = standby(nexus)
    for serial in range(50, 56):
        rows = [encode(Count(name="x", total=serial)) for _ in range(BEHIND_MIN // 5)]
        changes = [TableChange(table="counts", key=f"k{serial}-{n}", value=row) for n, row in enumerate(rows)]
        nexus.commit(old.grant, serial, changes, [])
    new = take_over(nexus, warm, logic, old)
    assert not new.was_warm
    assert dict(logic.counts.items()) == nexus.read_table("tally", "counts", Count)


def test_deleted_row_is_gone_from_the_standby(nexus: CountingNexus) -> None:
    old = leader(nexus)
    warm, logic = standby(nexus)
    nexus.commit(old.grant, 99, [TableChange(table="counts", key="y", value=None)], [])
    follow(warm)
    assert totals(logic) == {"x": 3}


def test_gap_in_the_feed_makes_the_new_leader_load_everything(nexus: CountingNexus) -> None:
    old = leader(nexus)
    warm, logic = standby(nexus)
    for _ in range(3):
        old.advance(2.5, [Add(name="x")])
    nexus.trim_feed("tally", 1)
    new = take_over(nexus, warm, logic, old)
    assert not new.was_warm
    assert totals(logic) == {"x": 6, "y": 1}


def test_commits_without_feed_entries_make_the_new_leader_load_everything(nexus: CountingNexus) -> None:
    old = leader(nexus)
    warm, logic = standby(nexus)
    old.advance(2.5, [Add(name="x")])
    nexus.trim_feed("tally", 0)
    new = take_over(nexus, warm, logic, old)
    assert not new.was_warm
    assert totals(logic) == {"x": 4, "y": 1}


def test_standby_reloads_after_a_gap_and_is_warm_again(nexus: CountingNexus) -> None:
    old = leader(nexus)
    warm, logic = standby(nexus)
    for _ in range(3):
        old.advance(2.5, [Add(name="x")])
    nexus.trim_feed("tally", 1)
    follow(warm)
    new = take_over(nexus, warm, logic, old)
    assert new.was_warm
    assert totals(logic) == {"x": 6, "y": 1}


def test_state_that_the_server_lost_is_not_in_the_tables_of_the_next_leader(nexus: CountingNexus) -> None:
    old = leader(nexus)
    state = {name: dict(rows) for name, rows in nexus._tables.items()}
    committed = dict(nexus._committed)
    feed = list(nexus._feeds["tally"])
    old.advance(2.5, [Add(name="lost")])
    warm, logic = standby(nexus)
    assert totals(logic) == {"x": 3, "y": 1, "lost": 1}
    nexus._tables, nexus._committed = state, committed
    nexus._feeds["tally"].clear()
    nexus._feeds["tally"].extend(feed)
    new = take_over(nexus, warm, logic, old)
    assert not new.was_warm
    assert totals(logic) == {"x": 3, "y": 1}


def test_server_that_lost_everything_leaves_empty_tables(nexus: CountingNexus) -> None:
    old = leader(nexus)
    warm, logic = standby(nexus)
    nexus._tables.clear()
    nexus._feeds.clear()
    nexus._committed.clear()
    new = take_over(nexus, warm, logic, old)
    assert not new.was_warm
    assert totals(logic) == {}


def test_same_answer_applied_twice_changes_nothing(nexus: CountingNexus) -> None:
    old = leader(nexus)
    warm, logic = standby(nexus)
    old.advance(2.5, [Add(name="x")])
    read = warm.read(0.0)
    warm.apply(read)
    warm.apply(read)
    assert take_over(nexus, warm, logic, old).was_warm
    assert totals(logic) == {"x": 4, "y": 1}


def test_rows_of_unknown_tables_are_ignored(nexus: CountingNexus) -> None:
    old = leader(nexus)
    warm, logic = standby(nexus)
    nexus.commit(old.grant, 99, [TableChange(table="novel", key="k", value=b"1")], [])
    assert take_over(nexus, warm, logic, old).was_warm
    assert totals(logic) == {"x": 3, "y": 1}


def test_row_that_cannot_be_read_makes_the_standby_load(nexus: CountingNexus) -> None:
    old = leader(nexus)
    warm, _ = standby(nexus)
    nexus.commit(old.grant, 99, [TableChange(table="counts", key="x", value=b'{"total":"no"}')], [])
    read = warm.read(0.0)
    with pytest.raises(BadMessage):
        warm.apply(read)
    with pytest.raises(BadMessage):
        warm.read(0.0)
    nexus.commit(old.grant, 100, [TableChange(table="counts", key="x", value=None)], [])
    follow(warm)
    assert warm.position is not None


@pytest.mark.parametrize("following", [True, False])
def test_standby_refuses_tables_of_another_format(nexus: CountingNexus, following: bool) -> None:
    old = leader(nexus)
    row = encode(StoredFormat(format=STORED_READABLE[-1] + 1))
    warm = WarmTables("tally", nexus, Tally().tables.values())
    if following:
        follow(warm)
    nexus.commit(old.grant, 99, [TableChange(table="format", key="tables", value=row)], [])
    with pytest.raises(GalaxyError, match="format"):
        follow(warm)
    assert warm.position is None


def test_leadership_that_cannot_read_the_rest_of_the_feed_leaves_the_standby_warm(
    nexus: CountingNexus,
) -> None:
    old = leader(nexus)
    warm, logic = standby(nexus)
    nexus.cut = True
    with pytest.raises(Unreachable):
        take_over(nexus, warm, logic, old)
    nexus.cut = False
    again = Leadership(logic, nexus, elect(nexus, "b"), warm=warm)
    again.begin(4.0)
    assert again.was_warm


def test_tables_belong_to_the_leader_once_it_has_begun(nexus: CountingNexus) -> None:
    old = leader(nexus)
    warm, logic = standby(nexus)
    new = take_over(nexus, warm, logic, old)
    new.advance(4.0, [Add(name="x", by=10)])
    assert warm.position is None
    warm.clear()
    follow(warm)
    assert totals(logic) == {"x": 13, "y": 1}


# ---- the thread


class HangingNexus(CountingNexus):
    """Hangs while a table is read, until ``go_on`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs = threading.Event()
        self.go_on = threading.Event()

    def read_rows(self, role: str, table: str, accept: Callable[[Sequence[tuple[str, bytes]]], None]) -> str:
        self.hangs.set()
        self.go_on.wait(30.0)
        return super().read_rows(role, table, accept)


def until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("the condition did not become true")


def test_thread_follows_until_it_is_stopped(nexus: CountingNexus) -> None:
    old = leader(nexus)
    logic = Tally()
    thread = Standby(WarmTables("tally", nexus, logic.tables.values()))
    thread.follow()
    thread.follow()
    until(lambda: totals(logic) == {"x": 3, "y": 1})
    old.advance(3.0, [Add(name="x")])
    until(lambda: totals(logic) == {"x": 4, "y": 1})
    thread.stop()
    old.advance(4.0, [Add(name="x")])
    assert take_over(nexus, thread.warm, logic, old).was_warm
    assert totals(logic) == {"x": 5, "y": 1}


def test_load_that_ends_after_the_stop_changes_nothing() -> None:
    nexus = HangingNexus()
    nexus.go_on.set()
    old = leader(nexus)
    nexus.go_on.clear()
    nexus.hangs.clear()
    logic = Tally()
    thread = Standby(WarmTables("tally", nexus, logic.tables.values()))
    thread.follow()
    assert nexus.hangs.wait(30.0)
    thread.stop()
    nexus.release(old.grant)
    new = Leadership(logic, nexus, elect(nexus, "b"), warm=thread.warm)
    new.begin(3.0)
    new.advance(4.0, [Add(name="x")])
    nexus.go_on.set()
    until(lambda: not [one for one in threading.enumerate() if one.name == "tally-standby"])
    assert totals(logic) == {"x": 4, "y": 1}
    assert logic.counts["x"] == Count(name="x", total=4)
