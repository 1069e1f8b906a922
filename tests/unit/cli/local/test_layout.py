"""The folder of a local cluster: its lock, its plan, and their format."""

from __future__ import annotations

from pathlib import Path

import pytest

from galaxy.cli.local.layout import (
    PLAN_FORMAT,
    ClusterPlan,
    Layout,
    LocalAgent,
    check_format,
    lock_folder,
    read_plan,
    write_plan,
)
from galaxy.errors import GalaxyError, HostError


def test_folder_is_locked_by_one_process_at_a_time(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.make()
    lock = lock_folder(layout)
    assert lock is not None
    assert lock_folder(layout) is None
    lock.release()
    again = lock_folder(layout)
    assert again is not None
    again.release()


def test_plan_reads_back_as_written_and_is_for_its_owner_only(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.make()
    assert read_plan(layout) is None
    agent = LocalAgent(name="h", cgroup_root="galaxy-1", ports_low=1, ports_high=2)
    plan = ClusterPlan(password="secret", agents=(agent,), redis_port=6390)
    write_plan(layout, plan)
    assert read_plan(layout) == plan
    assert layout.plan.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("format", "release"), [("", "0.1.0"), (',"format":2', "0.2.0")])
def test_folder_of_an_earlier_release_is_refused_with_what_to_do(
    tmp_path: Path, format: str, release: str
) -> None:
    layout = Layout(tmp_path)
    layout.make()
    layout.plan.write_text(f'{{"password":"secret","agents":[],"redis_port":6390{format}}}')
    with pytest.raises(GalaxyError, match=f"Galaxy {release} created it") as caught:
        check_format(layout, read_plan(layout))
    assert "galaxy down --purge" in caught.value.hint


def test_folder_of_a_later_release_is_refused(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    later = ClusterPlan(password="secret", agents=(), format=PLAN_FORMAT + 1)
    with pytest.raises(GalaxyError, match="a later release of Galaxy created it"):
        check_format(layout, later)


def test_new_folder_and_folder_of_this_release_are_accepted(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    check_format(layout, None)
    check_format(layout, ClusterPlan(password="secret", agents=(), format=PLAN_FORMAT))


def test_damaged_plan_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.make()
    layout.plan.write_text("{")
    with pytest.raises(GalaxyError, match=r"plan\.json"):
        read_plan(layout)


def test_folder_that_cannot_be_created_is_a_host_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="cannot keep a cluster"):
        Layout(tmp_path / "file" / "below").make()
