"""What a leadership knows about one agent in addition to its record."""

from __future__ import annotations

from typing import Final

PAST_BOOTS_MAX: Final = 8


class AgentWatch:
    """One agent, as its reports describe it.

    Times are Redis' clock, except ``failed_s``, which is the leader's.
    """

    __slots__ = ("boot", "boot_since_s", "changed_s", "failed_s", "failures", "full_serial",
                 "has_full_report", "in_trouble", "newer_serials", "past_boots", "row")  # fmt: skip

    def __init__(self, row: int, boot: str) -> None:
        self.row = row
        """Its row in the scheduler's view."""
        self.boot = boot
        """The current boot: only its reports are accepted."""
        self.boot_since_s = 0.0
        self.past_boots: tuple[str, ...] = ()
        self.full_serial = -1
        """Serial of the last full report of ``boot``."""
        self.has_full_report = False
        """Whether ``boot`` has sent a full report in this leadership."""
        self.newer_serials: dict[str, int] = {}
        """By container, the serial of the last report about it since the full one."""
        self.changed_s = 0.0
        """When one of its containers last changed in the tables."""
        self.failures = 0
        """Failures in a row to create a container."""
        self.failed_s = 0.0
        self.in_trouble = False
        """Whether it is alive and reports that it cannot carry out orders."""

    def set_boot(self, boot: str, now_s: float) -> None:
        """Make ``boot`` current: reports of the boot before it are ignored from now on."""
        kept = (old for old in self.past_boots if old != boot)
        self.past_boots = (self.boot, *kept)[:PAST_BOOTS_MAX]
        self.boot, self.boot_since_s = boot, now_s
        self.full_serial, self.has_full_report, self.newer_serials = -1, False, {}

    def copy(self) -> AgentWatch:
        """Return a copy that shares no mutable value."""
        other = AgentWatch(self.row, self.boot)
        for name in AgentWatch.__slots__:
            setattr(other, name, getattr(self, name))
        other.newer_serials = dict(self.newer_serials)
        return other
