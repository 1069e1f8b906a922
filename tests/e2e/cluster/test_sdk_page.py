"""The examples of docs/sdk.md, run in their order on a real cluster."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster.conftest import Cluster

PAGE = Path(__file__).parents[3] / "docs" / "sdk.md"


def test_examples_of_the_sdk_page_run_as_they_stand(
    cluster: Cluster,
    jobs: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("sdk-hello", "sdk-sum"):
        jobs(name)
    monkeypatch.setenv("GALAXY_DIR", str(cluster.folder))
    monkeypatch.delenv("GALAXY_REDIS", raising=False)
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text()
    blocks = list(re.finditer(r"```python\n(.*?)```", text, re.DOTALL))
    assert len(blocks) > 10
    names: dict[str, Any] = {}
    for block in blocks:
        line = text.count("\n", 0, block.start(1))
        exec(compile("\n" * line + block[1], str(PAGE), "exec"), names)  # So tracebacks name the line.
    printed = capsys.readouterr().out
    assert "GALAXY_DIR names <Galaxy at " in printed
    assert "did not end within 1s" in printed
    assert "did you mean `memory`?" in printed
    assert "42" in printed


def test_example_of_the_modules_docstring_runs_as_it_stands(
    cluster: Cluster, jobs: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import galaxy.client

    jobs("hello")
    monkeypatch.setenv("GALAXY_DIR", str(cluster.folder))
    monkeypatch.delenv("GALAXY_REDIS", raising=False)
    example = re.search(r"::?\n\n((?:    .*\n|\n)+)", galaxy.client.__doc__ or "")
    assert example
    exec("\n".join(line[4:] for line in example[1].splitlines()), {})
