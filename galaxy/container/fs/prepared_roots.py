"""The launcher's prepared roots: built once per view, in a mount namespace of its own."""

from __future__ import annotations

import os
from typing import Final

from galaxy.container.fs import etc, rootfs
from galaxy.container.kernel import syscalls

_VIEWS_MAX: Final = 12
"""Every view's mounts are copied into each new container's namespace, so few are kept."""


class Views:
    """Static roots by view; the ones not asked for longest are taken down."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._built: dict[tuple[rootfs.View, object], str] = {}
        self._count = 0

    def open(self) -> None:
        """Enter a mount namespace of our own, which follows the host and never answers it."""
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        for name in os.listdir(self._directory):
            os.rmdir(f"{self._directory}/{name}")

    def get(self, view: rootfs.View) -> str:
        """Return where the root of ``view`` is mounted, built anew if its ``/etc`` is stale.

        Raises:
            HostError: a volume cannot be where it is wanted.
            OSError: named by the call that failed.
        """
        wanted = (view, etc.signature())
        root = self._built.pop(wanted, None)
        if root is None:
            while len(self._built) >= _VIEWS_MAX:
                self._take_down(next(iter(self._built)))
            root = f"{self._directory}/{self._count}"
            self._count += 1
            os.mkdir(root, 0o700)
            try:
                rootfs.build(root, view)
            except BaseException:
                _unmount_if_mounted(root)
                os.rmdir(root)
                raise
        self._built[wanted] = root  # Last in the order of dismissal.
        return root

    def close(self) -> None:
        """Take all of them down."""
        while self._built:
            self._take_down(next(iter(self._built)))

    def _take_down(self, key: tuple[rootfs.View, object]) -> None:
        root = self._built.pop(key)
        syscalls.unmount(root)
        os.rmdir(root)


def _unmount_if_mounted(root: str) -> None:
    if os.path.ismount(root):
        syscalls.unmount(root)
