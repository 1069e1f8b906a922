"""What a leadership knows of one agent beside its record."""

from __future__ import annotations

from typing import Final

OLD_BOOTS: Final = 8


class AgentWatch:
    """One agent, as its reports say; ``row`` is its place in the scheduler's view.

    ``boot`` is the life of the agent process that reports are taken from, since ``turned_s``;
    ``full`` is the serial of its last full report, ``news`` are the serials of later reports by
    container. ``settled_s`` is when a container of it last changed. Both are Redis' clock.
    ``troubled`` is whether it lives and says that it cannot obey.
    """

    __slots__ = ("boot", "digest", "failed_s", "failures", "full", "heard", "news", "old_boots",
                 "row", "settled_s", "troubled", "turned_s")  # fmt: skip

    def __init__(self, row: int, boot: str) -> None:
        self.row = row
        self.boot = boot
        self.old_boots: tuple[str, ...] = ()
        self.full = -1
        self.heard = False
        self.news: dict[str, int] = {}
        self.digest = 0
        self.settled_s = 0.0
        self.turned_s = 0.0
        self.failures = 0
        self.failed_s = 0.0
        self.troubled = False

    def turn(self, boot: str, read_s: float) -> None:
        """Take reports from another life of the agent process from now on."""
        kept = (old for old in self.old_boots if old != boot)
        self.old_boots = (self.boot, *kept)[:OLD_BOOTS]
        self.boot, self.turned_s = boot, read_s
        self.full, self.heard, self.news = -1, False, {}

    def copy(self) -> AgentWatch:
        """Return another watch that knows the same."""
        other = AgentWatch(self.row, self.boot)
        for name in AgentWatch.__slots__:
            setattr(other, name, getattr(self, name))
        other.news = dict(self.news)
        return other
