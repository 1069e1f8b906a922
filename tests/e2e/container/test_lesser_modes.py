"""Without root programs still run, leave logs, and die when their container does."""

from __future__ import annotations

import pytest

from galaxy.container.host_support import probe


@pytest.mark.parametrize("orphaned", [(), ("orphaned",)], ids=["whole", "first process killed"])
def test_plain_processes_run_and_are_all_killed(as_nobody, orphaned: tuple[str, ...]) -> None:
    found = as_nobody("lesser.py", "process", *orphaned)
    assert found["hello"] == ["hello", "mine"]
    assert found["below"] >= 4
    assert (found["left"], found["rest"]) == ([], [])
    assert found["logs"] == ["appworker.log"]


def test_user_namespace_isolates_processes_and_bounds_tmpfs(as_nobody) -> None:
    if not next(finding for finding in probe().findings if finding.name == "user-namespace").ok:
        pytest.skip("this host has no unprivileged user namespaces")
    found = as_nobody("lesser.py", "userns")
    assert found["hello"] == ["hello", "mine"]
    assert int(found["size"]) == 8192
    assert "1" in found["pids"]
    assert len(found["pids"]) <= 4
    assert found["config"]["workspace"] == "/home/galaxy"
    assert (found["left"], found["rest"]) == ([], [])


def test_probe_names_a_remedy_for_everything_that_is_missing() -> None:
    abilities = probe()
    assert abilities.mode in ("full", "userns", "process")
    for finding in abilities.findings:
        assert finding.detail
        assert finding.ok or finding.remedy, finding
    assert ("cpu" in abilities.enforced) == (abilities.mode == "full")
