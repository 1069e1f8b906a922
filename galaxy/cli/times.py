"""Times in the past that people write on the command line, as in ``--since``."""

from __future__ import annotations

import contextlib
import re
import time
from datetime import date, datetime
from datetime import time as clock

from galaxy.errors import UsageError
from galaxy.units import parse_duration


def parse_since(text: str, option: str = "--since") -> float:
    """Read a past time as Unix seconds: ``10m`` ago, ``09:15`` today, or ISO 8601 (``2026-11-30T09:15``).

    A time without a zone is local time.

    Raises:
        UsageError: ``text`` is neither a duration nor a time.
    """
    stripped = text.strip()
    with contextlib.suppress(ValueError):
        return time.time() - parse_duration(stripped)
    try:
        if re.fullmatch(r"\d{2}:\d{2}(:\d{2})?", stripped):
            return datetime.combine(date.today(), clock.fromisoformat(stripped)).timestamp()
        return datetime.fromisoformat(stripped).timestamp()
    except (ValueError, OverflowError, OSError):
        message = f'{option}: "{text}" is not a time'
        raise UsageError(message, hint=f"{option} 10m, {option} 09:15, {option} 2026-11-30T09:15") from None
