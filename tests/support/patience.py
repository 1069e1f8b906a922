"""How much longer everything may take on this machine than on an ordinary one; 1 unless said."""

from __future__ import annotations

import os
from typing import Final

PATIENCE: Final = float(os.environ.get("GALAXY_TEST_PATIENCE", "1"))
"""Multiplies what tests wait at most, never what they promise. An emulated processor needs five."""
