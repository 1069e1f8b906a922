"""Clients on several hosts that add numbers to one set under a lock, like Jepsen's set test."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from galaxy.driver.interfaces import Grant
from galaxy.errors import NotLeader, Unreachable
from galaxy.model.base import Struct, encode
from galaxy.model.stored.table import TableChange
from galaxy.nexus import Nexus
from tests.support.netns import Host

LEASE_S = 2.0
PAUSE_S = 0.02


class Numbers(Struct, frozen=True, kw_only=True):
    """The numbers added so far."""

    numbers: tuple[int, ...] = ()


class Adders:
    """One thread per host, which adds numbers. ``role`` names the lock and the owner of the table.

    ``acknowledged`` has the numbers whose commit was confirmed; ``unknown`` those without an answer.
    """

    def __init__(self, url: str, hosts: Sequence[Host], role: str) -> None:
        self.acknowledged: set[int] = set()
        self.unknown: set[int] = set()
        self._url = url
        self._role = role
        self._over = threading.Event()
        self._hosts = hosts
        self._threads = [
            threading.Thread(target=self._run, args=(which,), daemon=True) for which in range(len(hosts))
        ]

    def __enter__(self) -> Adders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def stored(self) -> list[int]:
        """Return the numbers in the set."""
        with self._hosts[0].inside(), Nexus.connect(self._url, name="reader") as nexus:
            return list(nexus.read_table(self._role, "set", Numbers)["set"].numbers)

    def _run(self, which: int) -> None:
        number = which
        with self._hosts[which].inside(), Nexus(self._url, name=f"adder-{which}") as nexus:
            while not self._over.wait(PAUSE_S):
                number += len(self._hosts)
                try:
                    self._add(nexus, which, number)
                except NotLeader:
                    continue
                except Unreachable:
                    self.unknown.add(number)

    def _add(self, nexus: Nexus, which: int, number: int) -> None:
        owner = f"adder-{which}/{number}"
        grant = nexus.campaign(self._role, owner, ttl_s=LEASE_S, address=owner)
        if not isinstance(grant, Grant):
            nexus.await_release(self._role, min(grant.remaining_s, 1.0))
            return
        rows = nexus.read_table(self._role, "set", Numbers)
        before = rows["set"].numbers if rows else ()
        value = encode(Numbers(numbers=(*before, number)))
        end_s = time.monotonic() + LEASE_S
        while True:
            try:
                nexus.commit(grant, 1, [TableChange(table="set", key="set", value=value)], ())
                break
            except Unreachable:
                if time.monotonic() > end_s:
                    raise
        self.acknowledged.add(number)
        nexus.release(grant)
