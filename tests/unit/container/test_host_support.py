"""What the probes of a host run."""

from __future__ import annotations

from pathlib import Path

import pytest

from galaxy.container.host_support import _try


def test_probe_runs_no_module_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "galaxy" / "container"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package.parent / "__init__.py").touch()
    (package / "host_probes.py").write_text("print('planted')")
    monkeypatch.chdir(tmp_path)
    assert _try("seccomp")[1] != "planted"
