"""Roots that the launcher builds once and every container with the same layout copies."""

from __future__ import annotations

import contextlib
import os
from typing import Final

from galaxy.container.fs import etc, rootfs
from galaxy.container.kernel import syscalls

_ROOTS_MAX: Final = 12
"""Few, because the mounts of every prepared root are copied into each new container's namespace."""


class PreparedRoots:
    """Mounted roots by layout, in a mount namespace of the launcher; the least recently used is removed."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._roots: dict[tuple[rootfs.RootLayout, object], str] = {}
        """Path by layout and ``etc.signature()``, the most recently used last."""
        self._count = 0

    def open(self) -> None:
        """Enter a mount namespace that receives the host's mounts but does not propagate its own."""
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        for name in filter(str.isdecimal, os.listdir(self._directory)):
            with contextlib.suppress(OSError):  # It is not empty, so it is not of an earlier launcher.
                os.rmdir(f"{self._directory}/{name}")

    def get(self, layout: rootfs.RootLayout) -> str:
        """Return where the root of ``layout`` is mounted; it is built again if the host's /etc changed.

        Raises:
            HostError: a volume cannot be mounted at its path.
            OSError: a system call failed.
        """
        key = (layout, etc.signature())
        root = self._roots.pop(key, None)
        if root is None:
            while len(self._roots) >= _ROOTS_MAX:
                self._remove(next(iter(self._roots)))
            root = self._new_directory()
            try:
                rootfs.build(root, layout)
            except BaseException:
                if os.path.ismount(root):
                    syscalls.unmount(root)
                os.rmdir(root)
                raise
        self._roots[key] = root
        return root

    def close(self) -> None:
        """Unmount and remove all roots."""
        while self._roots:
            self._remove(next(iter(self._roots)))

    def _new_directory(self) -> str:
        while True:
            root = f"{self._directory}/{self._count}"
            self._count += 1
            with contextlib.suppress(FileExistsError):
                os.mkdir(root, 0o700)
                return root

    def _remove(self, key: tuple[rootfs.RootLayout, object]) -> None:
        root = self._roots.pop(key)
        syscalls.unmount(root)
        os.rmdir(root)
