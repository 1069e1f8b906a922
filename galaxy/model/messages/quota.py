"""Quotas on their way from AppMaster to ResMan."""

from __future__ import annotations

from galaxy.model.base import Struct
from galaxy.model.stored.quota import Quota


class QuotaOrder(Struct, frozen=True, kw_only=True):
    """AppMaster to ResMan: these are the quotas, all of them; who is not named has none.

    ``epoch`` is AppMaster's and ``serial`` counts its changes: what is not newer changes nothing.
    """

    epoch: int
    serial: int
    quotas: tuple[Quota, ...] = ()


class QuotaAck(Struct, frozen=True, kw_only=True):
    """ResMan to AppMaster: the last ``QuotaOrder`` that it obeyed."""

    epoch: int
    serial: int
