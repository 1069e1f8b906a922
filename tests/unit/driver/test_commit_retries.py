"""A leader retries each commit for a limited time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from galaxy.driver import shell as shells
from galaxy.driver.interfaces import Grant
from galaxy.driver.lease import Lease
from galaxy.driver.shell import UNCONFIRMED_S, LeaderShell
from galaxy.errors import Unreachable
from galaxy.nexus.in_memory import MemoryNexus
from tests.support.tally import Tally

GRANT = Grant(role="tally", owner="a", epoch=1, ttl_s=1000.0)
NO_ANSWER = Unreachable("no answer")


@pytest.fixture
def now_s(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now_s = [100.0]
    monkeypatch.setattr(shells, "boot_clock", lambda: now_s[0])
    yield now_s


def shell(now_s: list[float]) -> LeaderShell:
    nexus = MemoryNexus(lambda: now_s[0])
    return LeaderShell(
        role="tally", owner="a", address="a", logic=Tally(), nexus=nexus, publish=lambda _: None
    )


def test_commit_is_not_retried_after_the_time_limit(now_s: list[float]) -> None:
    try_again = shell(now_s)._commit_retries(Lease(GRANT, 100.0, lambda: now_s[0]))
    now_s[0] += UNCONFIRMED_S + 0.1
    assert not try_again(NO_ANSWER)


def test_time_limit_of_retries_starts_with_each_commit(now_s: list[float]) -> None:
    leader = shell(now_s)
    lease = Lease(GRANT, 100.0, lambda: now_s[0])
    assert leader._commit_retries(lease)(NO_ANSWER)
    now_s[0] += UNCONFIRMED_S - 0.1
    second = leader._commit_retries(lease)
    now_s[0] += 1.0
    assert second(NO_ANSWER)
