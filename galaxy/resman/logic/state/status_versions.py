"""Versions of the group statuses that are sent to AppMaster."""

from __future__ import annotations

from collections.abc import Iterable


class StatusVersions:
    """The last version sent of each group. No version is given out twice in one leadership."""

    def __init__(self) -> None:
        self._by_group: dict[str, int] = {}
        self._last = 0

    @property
    def last(self) -> int:
        """The highest version given out."""
        return self._last

    def next(self, group: str, *, changed: bool) -> tuple[int, int]:
        """Return the version of what was sent of ``group`` last, and of what is sent now."""
        if group not in self._by_group:
            self._by_group[group] = self._new()
        since = self._by_group[group]
        if changed:
            self._by_group[group] = self._new()
        return since, self._by_group[group]

    def drop(self, group: str) -> None:
        """Drop a group that is gone."""
        self._by_group.pop(group, None)

    def keep_only(self, groups: Iterable[str]) -> None:
        """Drop all groups but ``groups``."""
        known = set(groups)
        self._by_group = {group: version for group, version in self._by_group.items() if group in known}

    def _new(self) -> int:
        self._last += 1
        return self._last
