"""Directories of a container that come from its host or from the kernel, where no volume may be."""

from __future__ import annotations

from typing import Final

SYSTEM_DIRS: Final = (
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run",
    "/sbin", "/sys", "/tmp", "/usr",  # noqa: S108
)  # fmt: skip
"""No volume of a job is at or below these. The launcher itself mounts volumes below some of them."""

KERNEL_DIRS: Final = ("/dev", "/proc", "/sys")
"""File systems of the kernel: nothing can be mounted below these either."""


def is_at_or_below(path: str, directory: str) -> bool:
    """Return whether ``path`` is ``directory`` or lies below it; both are absolute and normal."""
    return path == directory or path.startswith(f"{directory}/")
