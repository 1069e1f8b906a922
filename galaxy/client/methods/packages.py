"""Packages that the cluster stores. Submitting and updating jobs store theirs by themselves."""

from __future__ import annotations

import os
from pathlib import Path

from galaxy.client.methods.asking import Asking
from galaxy.client.package_staging import PackageFile, read_package
from galaxy.client.package_upload import Progress, upload
from galaxy.model.api.packages import (
    ListPackages,
    PackageUpload,
    RemovePackage,
    StorePackage,
    UploadPackage,
)
from galaxy.model.api.views import (
    PackageView,
)


class PackageMethods(Asking):
    """Packages that the cluster stores. Submitting and updating jobs store theirs by themselves."""

    upload_progress: Progress | None = None
    """Called with a package file and how many of its bytes the cluster has, while it is sent."""

    def store_package(self, package: str | os.PathLike[str] | PackageFile) -> PackageView:
        """Store a package file in the cluster and return its view, whose ``source`` job files may name.

        ``package`` is a path, or a file that was read before. What the cluster has is not sent again.

        Raises:
            SpecError: it cannot be read.
            Refused: it is too large, or the cluster has no room for it.
        """
        file = package if isinstance(package, PackageFile) else read_package(Path(package))

        def begin() -> PackageUpload:
            return self._ask(UploadPackage(sha256=file.sha256, size_bytes=file.size_bytes, name=file.name))

        return upload(
            file,
            packages=self._transport.nexus.packages,
            begin=begin,
            finish=lambda package: self._ask(StorePackage(package=package)),
            timeout_s=self.timeout_s,
            progress=self.upload_progress,
        )

    def packages(self, *, user: str = "", all: bool = False) -> list[PackageView]:
        """List your own packages; operators may name a ``user``, or request ``all``."""
        return self._all(ListPackages(user=user, all=all), lambda page: page.packages)

    def remove_package(self, package: str, *, key: str = "") -> PackageView:
        """Remove a package, named by its id or source.

        Raises:
            Conflict: a job uses it.
        """
        return self._ask(RemovePackage(package=package), key)
