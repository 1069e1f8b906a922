"""Operations on ResMan's safe mode."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from galaxy.model.api.body import Body
from galaxy.model.base import Struct
from galaxy.model.messages.names import RESMAN


class SafeModeView(Struct, frozen=True, kw_only=True):
    """Whether ResMan is in safe mode, in which it neither places nor evicts.

    While it is ``active``, ``since_s`` (Unix seconds), ``code``, ``message`` and ``counts`` say since when
    and why.
    """

    active: bool
    since_s: float = 0.0
    code: str = ""
    message: str = ""
    counts: dict[str, int] = {}
    by: str = ""
    """The operator who entered it by hand; empty when ResMan entered it by itself."""


class ShowSafeMode(Body[SafeModeView], frozen=True, kw_only=True):
    """Show whether ResMan is in safe mode. ResMan itself answers, so AppMaster need not run."""

    op: ClassVar[str] = "galaxy.safemode.status"
    answered_by: ClassVar[str] = RESMAN


class EnterSafeMode(Body[SafeModeView], frozen=True, kw_only=True):
    """Enter safe mode until an operator leaves it."""

    op: ClassVar[str] = "galaxy.safemode.enter"
    answered_by: ClassVar[str] = RESMAN
    reason: Annotated[str, Meta(max_length=300)] = ""


class LeaveSafeMode(Body[SafeModeView], frozen=True, kw_only=True):
    """Leave safe mode, also one that ResMan entered because hosts vanished: they count as lost then."""

    op: ClassVar[str] = "galaxy.safemode.leave"
    answered_by: ClassVar[str] = RESMAN
