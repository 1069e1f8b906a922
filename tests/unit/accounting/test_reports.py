"""Usage as people ask for it: pages of stored rows, sums, advice, bills, days and CSV."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from galaxy.accounting.bills import bill, parse_prices
from galaxy.accounting.integrals import DAY_S, key_of
from galaxy.accounting.reports import in_range, totals
from galaxy.appmaster.usage_queries import list_usage
from galaxy.cli.usage.bill import bill_rows
from galaxy.cli.usage.reports import parse_day, print_csv
from galaxy.cli.usage.usage import advice_text, csv_rows, usage_rows
from galaxy.client.methods.usage import day_number, day_text
from galaxy.driver.interfaces import Grant
from galaxy.errors import Refused, UsageError
from galaxy.model.api.usage import ListUsage
from galaxy.model.base import Struct, encode
from galaxy.model.messages.names import RESMAN
from galaxy.model.resource_seconds import ResourceSeconds, held_for
from galaxy.model.resources import Resources
from galaxy.model.stored.account import Account, DayUsage, account_key
from galaxy.model.stored.table import TableChange
from galaxy.model.stored.user import Role, UserRecord
from galaxy.nexus.in_memory import MemoryNexus
from galaxy.operations.declaration import Caller
from galaxy.units import GIB, MIB

NOW_S = 20_000.5 * DAY_S
EACH = Resources(cpu_milli=2000, memory_bytes=4 * GIB, disk_bytes=GIB, containers=1)
OPERATOR = Caller(name="root", user=None, key="k")


def day_row(day: int, user: str, job: str, pool: str = "main", hours: float = 1.0, **more: Any) -> DayUsage:
    return DayUsage(day=day, user=user, job=job, pool=pool, assigned=held_for(EACH, hours * 3600), **more)


def opened(user: str, job: str, since_s: float) -> Account:
    return Account(user=user, job=job, pool="main", held=EACH, since_s=since_s)


class Store:
    """A store with rows and accounts, as ResMan commits them."""

    def __init__(self) -> None:
        self.nexus = MemoryNexus(lambda: NOW_S)
        self.grant = self.nexus.campaign(RESMAN, "r", ttl_s=10.0, address="r")
        self.serial = 0

    def put(self, *rows: DayUsage | Account) -> None:
        assert isinstance(self.grant, Grant)
        self.serial += 1
        self.nexus.commit(self.grant, self.serial, [_change(row) for row in rows], [])

    def ask(self, caller: Caller = OPERATOR, **asked: Any) -> list[DayUsage]:
        """Return the rows of every page, as the SDK sums them up."""
        body, rows = ListUsage(**asked), []
        while True:
            list_usage.authority.require(self.nexus, body, caller)
            page = list_usage.run(self.nexus, body, caller)
            rows += in_range(page.rows, page.open, page.now_s, first=body.first, last=body.last)
            if not page.next:
                return rows
            body = replace(body, after=page.next)


def _change(row: Struct) -> TableChange:
    if isinstance(row, Account):
        key = account_key(row.user, row.job, row.pool)
        return TableChange(table="accounts", key=key, value=encode(row))
    assert isinstance(row, DayUsage)
    return TableChange(table="usage", key=key_of(row), value=encode(row))


def user(name: str, created_s: float = 0.0) -> Caller:
    record = UserRecord(user=name, role=Role.USER, stored_key="0" * 64, created_s=created_s)
    return Caller(name=name, user=record, key="k")


def hours_of(rows: list[DayUsage]) -> float:
    return sum(row.assigned.containers_s for row in rows) / 3600


def test_usage_is_what_is_stored_and_what_is_held_until_now() -> None:
    store = Store()
    store.put(day_row(19_999, "ann", "web-1", hours=5), opened("ann", "web-1", NOW_S - 2 * 3600))
    assert hours_of(store.ask()) == pytest.approx(7.0)
    store.put(opened("bob", "db-1", NOW_S - 36 * 3600))
    assert hours_of(store.ask(user="bob")) == pytest.approx(36.0)
    assert hours_of(store.ask(user="bob", first=20_000)) == pytest.approx(12.0)
    assert hours_of(store.ask(user="bob", last=19_999)) == pytest.approx(24.0)
    assert store.ask(user="nobody") == []


def test_usage_of_many_accounts_comes_in_pages_that_are_complete() -> None:
    store = Store()
    store.put(*(day_row(day, "ann", f"job{n}") for day in range(19_990, 20_000) for n in range(250)))
    assert hours_of(store.ask()) == pytest.approx(2500.0)
    assert hours_of(store.ask(limit=7)) == pytest.approx(2500.0)
    assert hours_of(store.ask(limit=7, first=19_995, last=19_996)) == pytest.approx(500.0)


def test_user_sees_own_usage_only_and_none_from_before_the_user_was_added() -> None:
    store = Store()
    store.put(
        day_row(19_990, "ann", "old-1"), day_row(19_999, "ann", "web-1"), day_row(19_999, "bob", "db-1")
    )
    assert [row.job for row in store.ask(user("ann"))] == ["old-1", "web-1"]
    assert [row.job for row in store.ask(user("ann", created_s=19_995.5 * DAY_S))] == ["web-1"]
    with pytest.raises(Refused):
        store.ask(user("ann"), user="bob")


def test_page_is_read_again_when_an_account_changes_while_it_is_read() -> None:
    class Moving(MemoryNexus):
        def heartbeats_of(self, agents: Any) -> Any:
            if not store.moved:  # Another job of the account begins, and its interval becomes a row.
                store.moved = True
                store.put(day_row(20_000, "ann", "web-1", hours=2), opened("ann", "web-1", NOW_S))
            return super().heartbeats_of(agents)

    store = Store()
    store.nexus = Moving(lambda: NOW_S)
    store.grant = store.nexus.campaign(RESMAN, "r", ttl_s=10.0, address="r")
    store.moved = False  # type: ignore[attr-defined]
    store.put(opened("ann", "web-1", NOW_S - 2 * 3600))
    assert hours_of(store.ask()) == pytest.approx(2.0)


def test_totals_by_user_job_pool_and_day_have_the_same_sum() -> None:
    rows = [
        day_row(19_998, "ann", "web-1"),
        day_row(19_999, "ann", "web-1"),
        day_row(19_999, "ann", "db-1", "far"),
        day_row(19_999, "bob", "web-2", hours=9),
        day_row(0, "bob", ""),
    ]
    for by, names in (
        ("user", ["bob", "ann"]), ("job", ["web-2", "web-1", "db-1", ""]), ("pool", ["main", "far"]),
        ("day", ["earlier", day_text(19_998), day_text(19_999)]),
    ):  # fmt: skip
        lines = totals(rows, by, day_text)
        assert [getattr(line, by) for line in lines] == names
        assert sum(line.assigned.containers_s for line in lines) == pytest.approx(13 * 3600)


def test_job_that_uses_less_than_it_asks_is_told_what_would_be_enough() -> None:
    used = ResourceSeconds(cpu_milli_s=7200.0 * 100, memory_bytes_s=7200.0 * GIB, containers_s=7200.0)
    row = day_row(1, "ann", "web-1", hours=2, used=used, peak_cpu_milli=390, peak_memory_bytes=GIB)
    (line,) = totals([row], "job", day_text)
    assert (line.asked_cpu_milli, line.enough_cpu_milli) == (2000, 490)
    assert (line.asked_memory_bytes, line.enough_memory_bytes) == (4 * GIB, 1280 * MIB)
    assert advice_text(line) == "could ask cpu 490m instead of 2, memory 1.2 GiB instead of 4 GiB"
    titles, rows = usage_rows([line], "job", wide=False)
    assert titles == ["JOB", "USER", "CPU CORE-H", "USED", "%", "MEMORY GIB-H", "USED", "%", "ADVICE"]
    assert rows[0][:8] == ["web-1", "ann", "4.00", "0.2000", "5", "8.00", "2.00", "25"]


def test_job_that_needs_what_it_asks_or_was_hardly_measured_gets_no_advice() -> None:
    used = ResourceSeconds(cpu_milli_s=1.0, containers_s=7200.0)
    busy = day_row(1, "ann", "a", used=used, peak_cpu_milli=1900, peak_memory_bytes=4 * GIB)
    short = day_row(1, "ann", "b", used=replace(used, containers_s=60.0), peak_cpu_milli=5)
    assert [advice_text(line) for line in totals([busy, short], "job", day_text)] == ["", ""]


def test_bill_counts_each_pool_at_its_own_price() -> None:
    prices = parse_prices({"currency": "EUR", "cpu": 0.5, "memory": 0.25, "pools": {"far": {"cpu": 2}}})
    rows = [day_row(1, "ann", "web-1"), day_row(1, "ann", "web-1", "far"), day_row(1, "bob", "db-1")]
    lines = bill(rows, "user", prices, day_text)
    assert [(line.user, line.costs["cpu"], line.costs["memory"], line.total) for line in lines] == [
        ("ann", 1.0 + 4.0, 2.0, 7.0), ("bob", 1.0, 1.0, 2.0),
    ]  # fmt: skip
    assert bill_rows(lines, "user") == (
        ["USER", "CPU", "MEMORY", "TOTAL EUR"],
        [["ann", "5.00", "2.00", "7.00"], ["bob", "1.00", "1.00", "2.00"], ["all", "6.00", "3.00", "9.00"]],
    )


def test_wrong_prices_are_all_named_at_once() -> None:
    with pytest.raises(UsageError) as error:
        parse_prices(
            {"cppu": 1, "memory": "much", "disk": -1, "currency": 7, "pools": {"gpu": {"cpu": True}}}
        )
    assert [line.partition(":")[0] for line in error.value.details] == [
        "currency", "cppu", "memory", "disk", "pools.gpu.cpu",
    ]  # fmt: skip
    for nothing in (None, [], "cpu", {}):
        with pytest.raises(UsageError):
            parse_prices(nothing)


def test_days_are_read_in_utc_and_months_have_a_first_and_a_last_day() -> None:
    today = datetime.now(UTC).date()
    assert parse_day("2026-02") == date(2026, 2, 1)
    assert parse_day("2026-02", last=True) == date(2026, 2, 28)
    assert parse_day("2026-11-30") == date(2026, 11, 30)
    assert parse_day("7d") == today - timedelta(days=7)
    assert parse_day("yesterday") == today - timedelta(days=1)
    assert [parse_day(text) for text in ("", "2026-13", "2026-02-30", "99999d", "11/30", "20261130")] == [
        None
    ] * 6
    assert day_number(date(1970, 1, 2)) == 1
    assert day_text(day_number(date(2026, 11, 30))) == "2026-11-30"


def test_csv_has_one_line_for_each_row_and_no_cell_that_a_spreadsheet_calculates(
    capsys: pytest.CaptureFixture[str],
) -> None:
    titles, rows = csv_rows(totals([day_row(1, "=ann", 'a,"b', hours=0.5)], "job", day_text), "job")
    print_csv(titles, rows, headers=True)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("job,user,cpu_asked_core_h,cpu_used_core_h,memory_asked_gib_h")
    assert second.startswith('"a,""b",\'=ann,1.0,0.0,2.0,0.0,0.5,')
