"""Operations on packages that the cluster stores."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from galaxy.model.api.body import Body, Page, PagedBody
from galaxy.model.api.views import PackageView
from galaxy.model.base import Struct
from galaxy.model.jobspec.package_source import NAME_MAX


class PackageUpload(Struct, frozen=True, kw_only=True):
    """Where to send a package: chunks of ``chunk_bytes`` to ``upload``, then ``StorePackage``.

    ``stored``: the cluster has it already, so there is nothing to send.
    """

    package: PackageView
    upload: str
    chunk_bytes: int
    stored: bool


class PackageList(Page, frozen=True, kw_only=True):
    """Packages by owner and name, and how much room all packages of the cluster take."""

    packages: tuple[PackageView, ...]
    size_bytes: int
    """Bytes of all packages, those of other users and those being sent included."""
    bytes_max: int


class UploadPackage(Body[PackageUpload], frozen=True, kw_only=True):
    """Ask where to send a package; the cluster keeps room for it for an hour."""

    op: ClassVar[str] = "galaxy.package.upload"
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Meta(ge=1, le=2**53)]
    name: Annotated[str, Meta(min_length=1, max_length=NAME_MAX)]


class StorePackage(Body[PackageView], frozen=True, kw_only=True):
    """Store a package whose chunks have all been sent."""

    op: ClassVar[str] = "galaxy.package.store"
    package: str


class ListPackages(PagedBody[PackageList], frozen=True, kw_only=True):
    """List the packages of ``user``, empty meaning the caller, or with ``all`` those of every user."""

    op: ClassVar[str] = "galaxy.package.list"
    user: str = ""
    all: bool = False


class RemovePackage(Body[PackageView], frozen=True, kw_only=True):
    """Remove a package that no job uses."""

    op: ClassVar[str] = "galaxy.package.remove"
    package: str
