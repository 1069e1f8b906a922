"""Cgroup directories and files, without buffering: each call raises the kernel's error itself."""

from __future__ import annotations

import os
from typing import Final

from galaxy.container.cgroup import marks
from galaxy.container.cgroup.bpf import guard_devices

_READ_BYTES_MAX: Final = 1 << 20


class Files:
    """Every operation on a cgroup tree; unit tests subclass it on a temporary directory."""

    def make(self, path: str) -> bool:
        """Create a cgroup unless it exists; return whether it was created."""
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            return False
        return True

    def set_mark(self, path: str, name: str, owner: str) -> bool:
        """Mark a cgroup as made by Galaxy; return False if that is not possible here."""
        return marks.set_mark(path, name, owner)

    def mark_of(self, path: str, name: str) -> str | None:
        """Return the owner in a cgroup's mark; None without one."""
        return marks.mark_of(path, name)

    def remove(self, path: str) -> None:
        """Remove an empty cgroup, if it exists.

        Raises:
            OSError: EBUSY, while it has processes or children.
        """
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return

    def children(self, path: str) -> list[str]:
        """Return the names of the cgroups directly below, sorted; none if ``path`` is gone."""
        try:
            with os.scandir(path) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []

    def write(self, path: str, value: str | int) -> None:
        """Write ``value`` in one call: a cgroup file takes a complete value or refuses it."""
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)

    def read(self, path: str) -> str:
        """Return the content of a file."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, _READ_BYTES_MAX).decode()
        finally:
            os.close(fd)

    def has(self, path: str) -> bool:
        """Return whether a file exists."""
        return os.path.exists(path)

    def guard_devices(self, path: str, program: bytes) -> None:
        """Attach an eBPF program that decides about devices; see ``bpf.guard_devices``."""
        guard_devices(path, program)

    def pids(self, path: str) -> list[int]:
        """Return the processes in exactly this cgroup; none if it is gone.

        The kernel lists those outside this PID namespace as 0. They cannot be signalled, and kill(0)
        would reach the caller's own process group.
        """
        try:
            text = self.read(f"{path}/cgroup.procs")
        except OSError:
            return []
        return [int(line) for line in text.split() if line != "0"]


def field(text: str, name: str) -> int:
    """Return the number after ``name`` in lines of ``name number``; 0 without such a line."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
