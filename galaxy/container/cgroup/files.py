"""Cgroup directories and files, without buffering: the kernel's refusal is the caller's exception."""

from __future__ import annotations

import os
from typing import Final

from galaxy.container.cgroup.bpf import guard_devices

_READ_MAX: Final = 1 << 20


class Files:
    """What is done to a cgroup tree; tests put a temporary directory under them."""

    def make(self, path: str) -> None:
        """Make a cgroup; one that is there already is fine."""
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            return

    def remove(self, path: str) -> None:
        """Remove an empty cgroup; one that is gone already is fine.

        Raises:
            OSError: EBUSY, while processes or children are in it.
        """
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return

    def children(self, path: str) -> list[str]:
        """Return the names of the cgroups directly below, sorted; nothing when it is gone."""
        try:
            with os.scandir(path) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []

    def write(self, path: str, value: str | int) -> None:
        """Write in one call: a cgroup file takes a value whole or refuses it."""
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)

    def read(self, path: str) -> str:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, _READ_MAX).decode()
        finally:
            os.close(fd)

    def has(self, path: str) -> bool:
        return os.path.exists(path)

    def guard_devices(self, path: str, program: bytes) -> None:
        """See ``bpf.guard_devices``."""
        guard_devices(path, program)

    def pids(self, path: str) -> list[int]:
        """Return the processes in exactly this cgroup; nothing when it is gone."""
        try:
            text = self.read(f"{path}/cgroup.procs")
        except (FileNotFoundError, OSError):
            return []
        return [int(line) for line in text.split()]


def field(text: str, name: str) -> int:
    """Return the number after ``name`` in a ``name number`` file; 0 when the name is not there."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
