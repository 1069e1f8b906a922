"""Make code of ours raise at any of its lines: as a bug would that nobody has found yet."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Final

TABLE: Final = "/galaxy/model/table.py"


class Stumble(Exception):
    """The bug."""


def stumble(act: Callable[[], object], *, at: int, within: Sequence[str]) -> bool:
    """Call ``act`` and raise when the ``at``-th line of files ``within`` is reached; tell whether it was.

    ``within`` are parts of paths. What a table calls amid a write, its keys, never raises: it could
    not go back. A tracer that was there before is put back.
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
                raise Stumble
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    except Stumble:
        return True
    finally:
        sys.settrace(before)
    return False
