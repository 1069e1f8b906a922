"""How long a leader's shell waits before it tries to lead again."""

from __future__ import annotations

import logging

import pytest

from galaxy.driver.interfaces import Grant
from galaxy.driver.leadership import StoredFormat
from galaxy.driver.shell import RETRY_MAX_S, RETRY_MIN_S, LeaderShell
from galaxy.model.base import encode
from galaxy.model.stored.table import TableChange
from galaxy.nexus.in_memory import MemoryNexus
from tests.support.tally import Tally


class Waits:
    """Stands for the event that ends a shell: records each wait, and is set after ten."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []

    def is_set(self) -> bool:
        return len(self.waits_s) >= 10

    def wait(self, timeout_s: float) -> bool:
        self.waits_s.append(timeout_s)
        return self.is_set()


def test_state_that_cannot_be_read_is_tried_again_ever_more_slowly_and_the_log_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nexus = MemoryNexus(lambda: 100.0)
    grant = nexus.campaign("tally", "old", ttl_s=1000.0, address="old")
    assert isinstance(grant, Grant)
    old = TableChange(table="format", key="tables", value=encode(StoredFormat(format=1)))
    nexus.commit(grant, 1, [old], [])
    nexus.release(grant)
    shell = LeaderShell(
        role="tally", owner="a", address="a", logic=Tally(), nexus=nexus, publish=lambda _: None
    )
    waits = Waits()
    monkeypatch.setattr(shell, "_stopping", waits)
    with caplog.at_level(logging.WARNING):
        shell._run()
    assert waits.waits_s[0] == RETRY_MIN_S
    assert waits.waits_s[-1] == RETRY_MAX_S
    assert "run the release that wrote the state" in caplog.text
