"""How long a leader tries one commit, and that its lease is renewed whatever a renewal raises."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from galaxy.driver import shell as shells
from galaxy.driver.interfaces import Grant
from galaxy.driver.lease import Lease
from galaxy.driver.shell import UNCONFIRMED_S, LeaderShell
from galaxy.errors import Unreachable
from galaxy.nexus.in_memory import MemoryNexus
from tests.support.tally import Tally

GRANT = Grant(role="tally", owner="a", epoch=1, ttl_s=1000.0)
DOUBT = Unreachable("no answer")


@pytest.fixture
def now_s(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now_s = [100.0]
    monkeypatch.setattr(shells, "_clock", lambda: now_s[0])
    yield now_s


def shell(nexus: Any) -> LeaderShell:
    return LeaderShell(
        role="tally", owner="a", address="a", logic=Tally(), nexus=nexus, publish=lambda _: None
    )


def test_a_commit_whose_tries_are_long_is_given_up(now_s: list[float]) -> None:
    again = shell(MemoryNexus(lambda: now_s[0]))._patience(Lease(GRANT, 100.0, lambda: now_s[0]))
    now_s[0] += UNCONFIRMED_S + 0.1
    assert not again(DOUBT)


def test_every_commit_has_its_own_patience(now_s: list[float]) -> None:
    leader = shell(MemoryNexus(lambda: now_s[0]))
    lease = Lease(GRANT, 100.0, lambda: now_s[0])
    assert leader._patience(lease)(DOUBT)
    now_s[0] += UNCONFIRMED_S - 0.1
    second = leader._patience(lease)
    now_s[0] += 1.0
    assert second(DOUBT)


class Broken(MemoryNexus):
    """Raises what nobody expects at the first renewal."""

    def __init__(self, over: threading.Event) -> None:
        super().__init__(lambda: 0.0)
        self.over = over
        self.renewals = 0

    def renew(self, grant: Grant) -> bool:
        self.renewals += 1
        if self.renewals == 1:
            raise ValueError("file descriptor cannot be a negative integer (-1)")
        self.over.set()
        return True


def test_a_renewal_that_raises_what_nobody_expects_is_tried_again() -> None:
    over = threading.Event()
    nexus = Broken(over)
    short = Grant(role="tally", owner="a", epoch=1, ttl_s=1.0)
    shell(nexus)._keep(Lease(short, shells._clock(), shells._clock), over, 0)
    assert nexus.renewals == 2
