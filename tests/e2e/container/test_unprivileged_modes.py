"""Without root, programs run and write logs, and are killed when their container is destroyed."""

from __future__ import annotations

import pytest

from galaxy.container.host_support import probe


@pytest.mark.parametrize("kill_init", [(), ("kill-init",)], ids=["running", "first process killed"])
def test_destroying_a_container_in_process_mode_kills_all_its_processes(
    as_nobody, kill_init: tuple[str, ...]
) -> None:
    found = as_nobody("unprivileged.py", "process", *kill_init)
    assert found["hello"] == ["hello", "mine"]
    assert (found["left"], found["rest"]) == ([], [])
    assert found["logs"] == ["appworker.log"]


def test_user_namespace_isolates_processes_and_limits_tmpfs(as_nobody) -> None:
    if not next(finding for finding in probe().findings if finding.name == "user-namespace").ok:
        pytest.skip("this host has no unprivileged user namespaces")
    found = as_nobody("unprivileged.py", "userns")
    assert found["hello"] == ["hello", "mine"]
    assert int(found["size"]) == 8192
    assert "1" in found["pids"]
    assert len(found["pids"]) <= 4
    assert found["config"]["workspace"] == "/home/galaxy"
    assert (found["left"], found["rest"]) == ([], [])


def test_probe_has_a_remedy_for_every_missing_feature() -> None:
    abilities = probe()
    assert abilities.mode in ("full", "userns", "process")
    for finding in abilities.findings:
        assert finding.detail
        assert finding.ok or finding.remedy, finding
    assert ("cpu" in abilities.enforced) == (abilities.mode == "full")
