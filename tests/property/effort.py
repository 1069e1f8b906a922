"""How hard properties are tried: ``GALAXY_TEST_EFFORT`` multiplies every count of examples."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings

EFFORT = float(os.environ.get("GALAXY_TEST_EFFORT", "1"))

SLOW_S = 10.0
"""One example that takes longer counts as a hang."""
PROCESSES_S = 120.0
"""The same where an example waits for other processes, each with a limit of its own."""


def examples(count: int, *, slow_s: float = SLOW_S, **more: Any) -> settings:
    """Return settings for ``count`` examples, the same ones each time unless more effort is asked."""
    return settings(
        max_examples=max(1, int(count * EFFORT)),
        deadline=timedelta(seconds=slow_s),
        derandomize=EFFORT <= 1,
        database=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        **more,
    )
