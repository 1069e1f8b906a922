"""Operations on named secrets."""

from __future__ import annotations

from typing import ClassVar

from galaxy.model.api.body import Body, Page, PagedBody
from galaxy.model.api.views import SecretView
from galaxy.model.stored.secret import Secret, SecretName


class SecretList(Page, frozen=True, kw_only=True):
    """Secrets by user and name, without their values."""

    secrets: tuple[SecretView, ...]


class SetSecret(Body[SecretView], frozen=True, kw_only=True):
    """Keep a secret under a name. ``user`` owns it; empty means the caller."""

    op: ClassVar[str] = "galaxy.secret.set"
    name: SecretName
    value: Secret
    user: str = ""


class RemoveSecret(Body[SecretView], frozen=True, kw_only=True):
    """Remove a secret. ``user`` as in ``SetSecret``."""

    op: ClassVar[str] = "galaxy.secret.remove"
    name: str
    user: str = ""


class ListSecrets(PagedBody[SecretList], frozen=True, kw_only=True):
    """List the secrets of ``user``, empty meaning the caller, or with ``all`` those of every user."""

    op: ClassVar[str] = "galaxy.secret.list"
    user: str = ""
    all: bool = False
