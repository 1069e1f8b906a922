"""The environments of tox name files that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_path_in_tox_ini_exists() -> None:
    paths = set(re.findall(r"(?:tests|deploy)/[\w./-]+", (ROOT / "tox.ini").read_text()))
    assert len(paths) > 10
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
