"""The operations that show, enter and leave safe mode."""

from __future__ import annotations

from galaxy.model.api.safemode import EnterSafeMode, LeaveSafeMode, SafeModeView, ShowSafeMode
from galaxy.model.stored.agent import Mark
from galaxy.operations.authz import OPERATORS
from galaxy.operations.declaration import Caller, change, query
from galaxy.resman.logic.api.context import ResManContext
from galaxy.resman.logic.state.tables import SAFE_MODE


@query(ShowSafeMode, authority=OPERATORS)
def show_safe_mode(context: ResManContext, _: ShowSafeMode, __: Caller) -> SafeModeView:
    """Return whether ResMan is in safe mode, since when and why."""
    return _view(context)


@change(EnterSafeMode, authority=OPERATORS, target=lambda _, __: SAFE_MODE)
def enter_safe_mode(context: ResManContext, body: EnterSafeMode, caller: Caller) -> SafeModeView:
    """Enter safe mode until an operator leaves it."""
    context.safe_mode.enter_by_hand(Mark(by=caller.name, at_s=context.state.now_s, reason=body.reason))
    return _view(context)


@change(LeaveSafeMode, authority=OPERATORS, target=lambda _, __: SAFE_MODE)
def leave_safe_mode(context: ResManContext, _: LeaveSafeMode, __: Caller) -> SafeModeView:
    """Leave safe mode. The view is active if ResMan is still in it by itself.

    Raises:
        Conflict: as ``SafeMode.leave_by_hand``.
    """
    context.safe_mode.leave_by_hand()
    return _view(context)


def _view(context: ResManContext) -> SafeModeView:
    reason, manual = context.safe_mode.reason, context.safe_mode.manual
    if reason is None:
        return SafeModeView(active=False)
    return SafeModeView(
        active=True,
        since_s=context.safe_mode.since_s,
        code=reason.code,
        message=reason.message,
        counts=reason.counts,
        by=manual.by if manual else "",
    )
