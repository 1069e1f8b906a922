"""Past times as people write them."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from galaxy.cli.times import parse_since
from galaxy.errors import UsageError


@pytest.mark.parametrize(("text", "ago_s"), [("10m", 600), ("90", 90), ("1h30m", 5400), ("0s", 0)])
def test_duration_is_a_time_ago(text: str, ago_s: float) -> None:
    before_s = time.time()
    assert before_s <= parse_since(text) + ago_s <= time.time()


def test_iso_times_have_a_zone_or_are_local() -> None:
    assert parse_since("2026-11-30T09:15:00Z") == 1796030100.0
    assert parse_since("2026-11-30T10:15+01:00") == 1796030100.0
    assert parse_since("2026-11-30 09:15") == datetime(2026, 11, 30, 9, 15).timestamp()
    today = datetime.fromtimestamp(parse_since("09:15"))
    assert (today.date(), today.hour, today.minute) == (datetime.now().date(), 9, 15)


@pytest.mark.parametrize("text", ["", "yesterday", "25:00", "2026-13-01", "-5m"])
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError, match="not a time") as refused:
        parse_since(text)
    assert "10m" in (refused.value.hint or "")
