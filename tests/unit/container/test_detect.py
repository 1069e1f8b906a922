"""Detection of cgroup hierarchies in a mount table."""

from __future__ import annotations

from pathlib import Path

from galaxy.container.cgroup.detect import detect


def table(tmp_path: Path, *lines: str) -> str:
    path = tmp_path / "mountinfo"
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def v2_tree(tmp_path: Path, controllers: str) -> Path:
    tree = tmp_path / "cg two"
    tree.mkdir()
    (tree / "cgroup.controllers").write_text(controllers)
    return tree


def test_v2_alone_with_its_controllers_is_v2(tmp_path: Path) -> None:
    tree = str(v2_tree(tmp_path, "cpuset cpu io memory pids\n")).replace(" ", "\\040")
    found = detect(table(tmp_path, f"30 24 0:26 / {tree} rw,nosuid shared:4 - cgroup2 cgroup2 rw"))
    assert found.version == "v2"
    assert found.v2.endswith("cg two")


def test_v1_controllers_beside_an_empty_v2_tree_are_v1(tmp_path: Path) -> None:
    tree = str(v2_tree(tmp_path, "hugetlb\n")).replace(" ", "\\040")
    found = detect(
        table(
            tmp_path,
            "31 24 0:27 / /cg/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
            "32 24 0:28 / /cg/memory rw - cgroup cgroup rw,memory",
            "33 24 0:29 / /cg/pids rw - cgroup cgroup rw,pids",
            "34 24 0:30 / /cg/systemd rw - cgroup cgroup rw,xattr,name=systemd",
            f"35 24 0:31 / {tree} rw - cgroup2 cgroup2 rw",
        )
    )
    assert found.version == "v1"
    assert found.v1["cpu"] == found.v1["cpuacct"] == "/cg/cpu,cpuacct"
    assert not {"rw", "name=systemd"} & found.v1.keys()


def test_missing_controllers_are_no_version(tmp_path: Path) -> None:
    found = detect(
        table(tmp_path, "31 24 0:27 / /cg/cpu rw - cgroup cgroup rw,cpu", "1 0 0:1 / / rw - ext4 /dev/vda rw")
    )
    assert found.version == ""
