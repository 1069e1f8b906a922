"""How long a leader may assume that it leads, by its own clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from galaxy.driver.interfaces import Grant

TRUSTED_SHARE: Final = 0.8
"""Share of the lease for which a leader trusts it, from when it sent the last successful renewal."""
RENEWALS_PER_LEASE: Final = 4
"""Renewals in one lease."""


class Lease:
    """One grant and its renewals. ``clock`` keeps counting while the machine is suspended.

    A renewal counts from when it was sent: its answer may have been delayed, and Redis counts from
    some moment in between.
    """

    def __init__(self, grant: Grant, sent_s: float, clock: Callable[[], float]) -> None:
        self.grant = grant
        self._clock = clock
        self._until_s = sent_s + TRUSTED_SHARE * grant.ttl_s
        self._lost = False

    @property
    def renew_every_s(self) -> float:
        return self.grant.ttl_s / RENEWALS_PER_LEASE

    def renewed(self, sent_s: float) -> None:
        """Record a successful renewal that was sent at ``sent_s``."""
        self._until_s = max(self._until_s, sent_s + TRUSTED_SHARE * self.grant.ttl_s)

    def lose(self) -> None:
        """Record that this grant no longer leads; it cannot be renewed again."""
        self._lost = True

    def left_s(self) -> float:
        """Return the seconds for which this lease can still be trusted; 0 or less when it is over."""
        return 0.0 if self._lost else self._until_s - self._clock()

    def is_held(self) -> bool:
        return self.left_s() > 0
