"""A leader's lease, measured with its own clock."""

from __future__ import annotations

from galaxy.driver.interfaces import Grant
from galaxy.driver.lease import TRUSTED_SHARE, Lease

GRANT = Grant(role="tally", owner="a", epoch=1, ttl_s=10.0)


def test_lease_is_held_for_its_trusted_part_only() -> None:
    now_s = [100.0]
    lease = Lease(GRANT, 100.0, lambda: now_s[0])
    now_s[0] = 100.0 + TRUSTED_SHARE * 10.0 - 0.01
    assert lease.is_held()
    now_s[0] = 100.0 + TRUSTED_SHARE * 10.0 + 0.01
    assert not lease.is_held()


def test_renewal_counts_from_when_it_was_sent() -> None:
    now_s = [100.0]
    lease = Lease(GRANT, 100.0, lambda: now_s[0])
    now_s[0] = 107.0  # The renewal left at 103 and its answer came at 107.
    lease.renewed(103.0)
    assert lease.left_s() == 103.0 + TRUSTED_SHARE * 10.0 - 107.0


def test_old_renewal_that_arrives_late_does_not_shorten_the_lease() -> None:
    lease = Lease(GRANT, 100.0, lambda: 104.0)
    lease.renewed(104.0)
    lease.renewed(101.0)
    assert lease.left_s() == TRUSTED_SHARE * 10.0


def test_lost_lease_stays_lost() -> None:
    lease = Lease(GRANT, 100.0, lambda: 101.0)
    lease.lose()
    lease.renewed(101.0)
    assert not lease.is_held()
