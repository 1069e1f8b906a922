"""Makes Galaxy's code raise at a given line, as an unknown bug would."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Final

TABLE: Final = "/galaxy/model/stored/table.py"


class StepFault(Exception):
    """The injected bug."""


def raise_at_line(act: Callable[[], object], *, at: int, within: Sequence[str]) -> bool:
    """Call ``act``, raise at the ``at``-th executed line of files ``within``; return whether it was reached.

    ``within`` are parts of paths. Functions that a table calls during a write, such as its keys, never
    raise, because the table could not undo half a write. The previous tracer is restored.
    """
    lines = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal lines
        caller = frame.f_back.f_code.co_filename if frame.f_back else ""
        if caller.endswith(TABLE) or not any(part in frame.f_code.co_filename for part in within):
            return None
        if event == "line":
            lines += 1
            if lines == at:
                raise StepFault
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    except StepFault:
        return True
    finally:
        sys.settrace(before)
    return False
