"""What AppMaster sends to ResMan about users: their quotas, roles and keys."""

from __future__ import annotations

from galaxy.model.base import Struct
from galaxy.model.stored.quota import Quota
from galaxy.model.stored.user import Role, StoredKey


class UserKey(Struct, frozen=True, kw_only=True):
    """A user, and the key that their requests are checked with; see ``galaxy.model.api.signing``."""

    user: str
    stored_key: StoredKey
    role: Role


class IdentityOrder(Struct, frozen=True, kw_only=True):
    """AppMaster to ResMan: all quotas and all users. A user without a quota here has no ceiling.

    ``epoch`` is AppMaster's and ``serial`` counts its changes: an order that is not newer than the
    last one applied changes nothing.
    """

    epoch: int
    serial: int
    quotas: tuple[Quota, ...] = ()
    users: tuple[UserKey, ...] = ()
    open: bool = False
    """No user exists and none is required, so requests are unsigned and every request is allowed."""


class IdentityAck(Struct, frozen=True, kw_only=True):
    """ResMan to AppMaster: the last ``IdentityOrder`` that it applied."""

    epoch: int
    serial: int
