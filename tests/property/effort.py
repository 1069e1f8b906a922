"""The number of examples of property tests: ``GALAXY_TEST_EFFORT`` multiplies all of them."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings

EFFORT = float(os.environ.get("GALAXY_TEST_EFFORT", "1"))

SLOW_S = 10.0
"""An example that takes longer counts as hung."""
PROCESSES_S = 120.0
"""The same limit for examples that wait for processes with time limits of their own."""


def examples(count: int, *, slow_s: float = SLOW_S, **more: Any) -> settings:
    """Return settings for ``count`` examples. They are the same in every run unless the effort is over 1."""
    return settings(
        max_examples=max(1, int(count * EFFORT)),
        deadline=timedelta(seconds=slow_s),
        derandomize=EFFORT <= 1,
        database=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        **more,
    )
