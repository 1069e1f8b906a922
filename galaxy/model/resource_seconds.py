"""Amounts of resources integrated over time: millicore-seconds, byte-seconds, container-seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import astuple

from galaxy.model.base import Struct
from galaxy.model.resources import FIELDS, Resource, Resources

SECONDS_FIELDS: Final = tuple(f"{field}_s" for field in FIELDS)
"""The fields of ``ResourceSeconds``, in the order of ``RESOURCES``."""


class _Seconds(Struct, frozen=True, kw_only=True):
    """Arithmetic of ``ResourceSeconds``, whose fields are made from the table of resources."""

    def plus(self, other: ResourceSeconds, times: float = 1.0) -> ResourceSeconds:
        """Return this and ``times`` the other."""
        pairs = zip(SECONDS_FIELDS, astuple(self), astuple(other), strict=True)
        return ResourceSeconds(**{field: one + times * more for field, one, more in pairs})

    def of(self, resource: Resource) -> float:
        """Return the amount of one resource, in its own unit times seconds."""
        return float(getattr(self, f"{resource.field}_s"))


if TYPE_CHECKING:

    class ResourceSeconds(_Seconds, frozen=True, kw_only=True):
        """An amount of every resource, times seconds."""

        def __init__(self, **amounts: float) -> None: ...
        def __getattr__(self, field: str) -> float: ...
else:
    ResourceSeconds = msgspec.defstruct(
        "ResourceSeconds",
        [(field, float, 0.0) for field in SECONDS_FIELDS],
        bases=(_Seconds,),
        namespace={"__doc__": "An amount of every resource, times seconds."},
        module=__name__,
        frozen=True,
        kw_only=True,
    )

NO_SECONDS: Final = ResourceSeconds()


def held_for(amounts: Resources, seconds: float) -> ResourceSeconds:
    """Return what holding ``amounts`` for ``seconds`` comes to."""
    pairs = zip(SECONDS_FIELDS, amounts.values(), strict=True)
    return ResourceSeconds(**{field: amount * seconds for field, amount in pairs})
