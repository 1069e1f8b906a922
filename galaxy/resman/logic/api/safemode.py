"""The operation that shows safe mode."""

from __future__ import annotations

from galaxy.model.api.safemode import SafeModeView, ShowSafeMode
from galaxy.operations.authz import OPERATORS
from galaxy.operations.declaration import Caller, query
from galaxy.resman.logic.api.context import ResManContext


@query(ShowSafeMode, authority=OPERATORS)
def show_safe_mode(context: ResManContext, _: ShowSafeMode, __: Caller) -> SafeModeView:
    """Return whether ResMan is in safe mode, since when and why."""
    reason = context.safe_mode.reason
    if reason is None:
        return SafeModeView(active=False)
    return SafeModeView(
        active=True,
        since_s=context.safe_mode.since_s,
        code=reason.code,
        message=reason.message,
        counts=reason.counts,
    )
