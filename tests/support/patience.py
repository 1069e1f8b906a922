"""How much longer tests wait on this machine than on an ordinary one; 1 by default."""

from __future__ import annotations

import os
from typing import Final

PATIENCE: Final = float(os.environ.get("GALAXY_TEST_PATIENCE", "1"))
"""Multiplies timeouts of tests, never the limits that Galaxy promises. An emulated processor needs five."""
