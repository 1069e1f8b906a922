"""The threads beside a leader's loop keep working when a call raises."""

from __future__ import annotations

import threading

from galaxy.driver.background import Background, boot_clock
from galaxy.driver.inbox import LeaderInbox
from galaxy.driver.interfaces import Grant
from galaxy.driver.lease import Lease
from galaxy.nexus.in_memory import MemoryNexus
from tests.support.waiting import until

GRANT = Grant(role="tally", owner="a", epoch=1, ttl_s=1.0)


class FirstRenewalRaises(MemoryNexus):
    """Raises an unexpected error at the first renewal, and renews from then on."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.renewals = 0
        self._counting = threading.Lock()

    def renew(self, grant: Grant) -> bool:
        with self._counting:
            self.renewals += 1
            first = self.renewals == 1
        if first:
            raise ValueError("file descriptor cannot be a negative integer (-1)")
        return True


def test_lease_is_renewed_after_a_renewal_that_raised() -> None:
    nexus = FirstRenewalRaises()
    lease = Lease(GRANT, boot_clock(), boot_clock)
    background = Background(nexus, lease, LeaderInbox(10))
    background.renew_lease()
    until("it is renewed again", lambda: nexus.renewals >= 4)
    assert lease.is_held()
    background.stop()


def test_heartbeats_reach_the_inbox() -> None:
    nexus = MemoryNexus(lambda: 5.0)
    nexus.send_heartbeat("h1", boot="b")
    inbox = LeaderInbox(10)
    background = Background(nexus, Lease(GRANT, boot_clock(), boot_clock), inbox)
    background.read_heartbeats(60.0, 0.0)
    (read,) = inbox.take(30.0)
    background.stop()
    assert [heartbeat.agent for heartbeat in read.heartbeats] == ["h1"]
