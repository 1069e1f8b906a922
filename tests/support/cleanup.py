"""Remove what tests themselves made on the host; Galaxy's own clean-up leaves it alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.waiting import until

CGROUPS = Path("/sys/fs/cgroup")


def unmount_below(folder: Path) -> None:
    """Unmount everything that is mounted below ``folder``, the newest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    for mount in reversed([line.split()[4] for line in lines]):
        if mount.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", mount], check=True)


def remove_empty_cgroups(root: str) -> None:
    """Remove the cgroup ``root`` of every hierarchy with those below it, as soon as no process is in them."""

    def removed() -> bool:
        for top in (CGROUPS / root, *CGROUPS.glob(f"*/{root}")):
            for path in sorted(top.glob("**/"), reverse=True):
                try:
                    path.rmdir()
                except FileNotFoundError:
                    continue
                except OSError:
                    return False
        return True

    until(f"the cgroups of {root} are empty", removed)
