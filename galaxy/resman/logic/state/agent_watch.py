"""What a leadership knows of one agent beside its record."""

from __future__ import annotations

from typing import Final

OLD_BOOTS: Final = 8


class AgentWatch:
    """One agent, as its reports describe it.

    Times are Redis' clock, except ``failed_s``, which is the leader's.
    """

    __slots__ = ("boot", "boot_since_s", "changed_s", "digest", "failed_s", "failures", "full_serial",
                 "has_full_report", "in_trouble", "newer_serials", "old_boots", "row")  # fmt: skip

    def __init__(self, row: int, boot: str) -> None:
        self.row = row
        """Its row in the scheduler's view."""
        self.boot = boot
        """The boot of the agent process whose reports are believed."""
        self.boot_since_s = 0.0
        self.old_boots: tuple[str, ...] = ()
        self.full_serial = -1
        """Serial of the last full report of ``boot``."""
        self.has_full_report = False
        """Whether there was a full report of ``boot`` in this leadership."""
        self.newer_serials: dict[str, int] = {}
        """By container, the serial of the last report of it since the full one."""
        self.digest = 0
        """Digest of the containers that are ready on it, by the tables."""
        self.changed_s = 0.0
        """When a container of it last changed in the tables."""
        self.failures = 0
        """Failures in a row to create a container."""
        self.failed_s = 0.0
        self.in_trouble = False
        """Whether it is alive and reports that it cannot obey."""

    def set_boot(self, boot: str, now_s: float) -> None:
        """Believe the reports of another boot of the agent process from now on."""
        kept = (old for old in self.old_boots if old != boot)
        self.old_boots = (self.boot, *kept)[:OLD_BOOTS]
        self.boot, self.boot_since_s = boot, now_s
        self.full_serial, self.has_full_report, self.newer_serials = -1, False, {}

    def copy(self) -> AgentWatch:
        """Return a copy that shares nothing that can change."""
        other = AgentWatch(self.row, self.boot)
        for name in AgentWatch.__slots__:
            setattr(other, name, getattr(self, name))
        other.newer_serials = dict(self.newer_serials)
        return other
