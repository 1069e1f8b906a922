"""The factor by which timeouts of tests are longer on a slow machine; 1 by default."""

from __future__ import annotations

import os
from typing import Final

TIMEOUT_FACTOR: Final = float(os.environ.get("GALAXY_TEST_TIMEOUT_FACTOR", "1"))
"""Multiplies timeouts of tests, never the limits that Galaxy promises. An emulated processor needs 5."""
