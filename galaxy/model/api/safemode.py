"""Operations on ResMan's safe mode."""

from __future__ import annotations

from typing import ClassVar

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


class ShowSafeMode(Body[SafeModeView], frozen=True, kw_only=True):
    """Show whether ResMan is in safe mode. ResMan itself answers, so AppMaster need not run."""

    op: ClassVar[str] = "galaxy.safemode.status"
    answered_by: ClassVar[str] = RESMAN
