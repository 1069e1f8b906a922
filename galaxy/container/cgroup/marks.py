"""Marks on the cgroups that Galaxy makes: an extended attribute, which no name can imitate.

The value is the owner: the state directory of the launcher that made the cgroup. ``trusted.*`` attributes
can be read and written with CAP_SYS_ADMIN only (xattr(7)); cgroup v1 and v2 both keep them.
"""

from __future__ import annotations

import os
from typing import Final

CONTAINER: Final = "trusted.galaxy.container"
"""On the cgroup of one container, in each hierarchy."""
ROOT: Final = "trusted.galaxy.root"
"""On a cgroup that was made to hold the containers of an agent, or a parent of it."""


def set_mark(path: str, name: str, owner: str) -> bool:
    """Mark a cgroup; return False if this kernel or this user cannot."""
    try:
        os.setxattr(path, name, os.fsencode(owner))
    except OSError:
        return False
    return True


def mark_of(path: str, name: str) -> str | None:
    """Return the owner in a cgroup's mark; None if it has none or is gone."""
    try:
        return os.fsdecode(os.getxattr(path, name))
    except OSError:
        return None
