"""Cgroup trees in a temporary directory; a fake kernel creates the files of each new cgroup."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from galaxy.container.cgroup.detect import Hierarchies
from galaxy.container.cgroup.files import Files, field
from galaxy.container.cgroup.tree import CgroupTree
from galaxy.container.limits import ContainerLimits, limits_of
from galaxy.errors import HostError
from galaxy.model.messages.container import Demand, TaskDemand, VolumeDemand
from galaxy.units import MIB

KEY = "hello-3f9a2c.0_1"
V1 = {
    "cpu": ("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us"),
    "cpuacct": ("cpuacct.usage",),
    "memory": (
        "memory.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.oom_control", "memory.usage_in_bytes",
        "memory.stat", "memory.swappiness",
    ),
    "pids": ("pids.max", "pids.current"),
    "devices": ("devices.allow", "devices.deny", "devices.list"),
    "blkio": ("blkio.bfq.weight",),
}  # fmt: skip
V2 = (
    "cgroup.controllers", "cgroup.subtree_control", "cgroup.kill", "cgroup.type", "cpu.weight", "cpu.max",
    "cpu.stat", "memory.max", "memory.low", "memory.swap.max", "memory.current", "memory.stat",
    "memory.events.local", "pids.max", "pids.current", "io.weight",
)  # fmt: skip
FIRST = {
    "cgroup.controllers": "cpu io memory pids",
    "devices.list": "a *:* rwm",
    "cpu.max": "max 100000",
    "memory.max": "max",
    "memory.current": "0",
    "memory.stat": "inactive_file 0",
}
"""Initial contents of some files of a new cgroup; the others are empty."""


class FakeKernel(Files):
    """Creates the files of a new cgroup, and deletes them with it, as cgroupfs does."""

    def __init__(self, root: Path, files: dict[str, tuple[str, ...]]) -> None:
        self._root, self._files = str(root), files
        self.guarded: dict[str, bytes] = {}
        self.marks: dict[tuple[str, str], str] = {}
        self.keeps_marks = True

    def guard_devices(self, path: str, program: bytes) -> None:
        self.guarded[os.path.relpath(path, self._root)] = program

    def set_mark(self, path: str, name: str, owner: str) -> bool:
        if self.keeps_marks:
            self.marks[path, name] = owner
        return self.keeps_marks

    def mark_of(self, path: str, name: str) -> str | None:
        return self.marks.get((path, name)) if os.path.exists(path) else None

    def make(self, path: str) -> bool:
        created = super().make(path)
        hierarchy = os.path.relpath(path, self._root).split("/")[0]
        for name in ("cgroup.procs", *self._files[hierarchy]):
            if not os.path.exists(f"{path}/{name}"):
                Path(f"{path}/{name}").write_text(FIRST.get(name, ""))
        return created

    def write(self, path: str, value: str | int) -> None:
        if not os.path.exists(path):
            raise FileNotFoundError(2, "No such file or directory", path)
        Path(path).write_text(str(value))

    def remove(self, path: str) -> None:
        if not os.path.exists(path):
            return
        if any(entry.is_dir() for entry in os.scandir(path)):
            raise OSError(16, "Device or resource busy", path)
        self.marks = {key: owner for key, owner in self.marks.items() if key[0] != path}
        shutil.rmtree(path)


def limits(**changes: object) -> ContainerLimits:
    task = TaskDemand(**{"name": "web", "cpu_milli": 250, "memory_bytes": 64 * MIB, "pids_max": 32} | changes)  # type: ignore[arg-type]
    return limits_of(Demand(tasks=(task,), workspace=VolumeDemand(path="/w", size_bytes=MIB)))


@pytest.fixture
def v1(tmp_path: Path) -> CgroupTree:
    return make_v1(tmp_path)


def make_v1(tmp_path: Path, *, given: str = "") -> CgroupTree:
    """Return a prepared tree; the cgroup ``given`` was made by another program before."""
    kernel = FakeKernel(tmp_path, V1)
    for name in V1:
        kernel.make(str(tmp_path / name))
        if given:
            kernel.make(str(tmp_path / name / given))
    tree = CgroupTree(Hierarchies(v1={name: str(tmp_path / name) for name in V1}), "galaxy-t", files=kernel)
    tree.prepare()
    return tree


@pytest.fixture
def v2(tmp_path: Path) -> CgroupTree:
    kernel = FakeKernel(tmp_path, {"unified": V2})
    kernel.make(str(tmp_path / "unified"))
    controllers = frozenset({"cpu", "io", "memory", "pids"})
    tree = CgroupTree(
        Hierarchies(v2=str(tmp_path / "unified"), v2_controllers=controllers), "a/b", files=kernel
    )
    tree.prepare()
    return tree


def read(path: Path) -> str:
    return path.read_text().strip()


def test_v1_task_gets_quota_shares_memory_and_pids(v1: CgroupTree, tmp_path: Path) -> None:
    v1.make(KEY, limits())
    assert read(tmp_path / "cpu/galaxy-t" / KEY / "web/cpu.cfs_quota_us") == "25000"
    assert read(tmp_path / "cpu/galaxy-t" / KEY / "web/cpu.shares") == "256"
    assert read(tmp_path / "memory/galaxy-t" / KEY / "web/memory.limit_in_bytes") == str(64 * MIB)
    assert read(tmp_path / "memory/galaxy-t" / KEY / "memory.limit_in_bytes") == str(96 * MIB)
    assert read(tmp_path / "pids/galaxy-t" / KEY / "web/pids.max") == "32"
    assert read(tmp_path / "blkio/galaxy-t" / KEY / "web/blkio.bfq.weight") == "500"


def test_v1_task_with_excess_has_no_quota_and_no_hard_limit(v1: CgroupTree, tmp_path: Path) -> None:
    v1.make(KEY, limits(cpu_excess=True, memory_excess=True))
    assert read(tmp_path / "cpu/galaxy-t" / KEY / "web/cpu.cfs_quota_us") == ""
    assert read(tmp_path / "memory/galaxy-t" / KEY / "web/memory.limit_in_bytes") == ""
    assert read(tmp_path / "memory/galaxy-t" / KEY / "web/memory.soft_limit_in_bytes") == str(64 * MIB)


def test_v1_root_allows_only_harmless_devices(v1: CgroupTree, tmp_path: Path) -> None:
    assert read(tmp_path / "devices/galaxy-t/devices.deny").startswith("a")
    assert (
        read(tmp_path / "devices/galaxy-t/devices.allow") == "c 136:* rw"
    )  # A file keeps only the last line written.


def test_v2_controllers_are_delegated_to_every_level(v2: CgroupTree, tmp_path: Path) -> None:
    v2.make(KEY, limits())
    for place in (".", "a", "a/b", f"a/b/{KEY}"):
        assert read(tmp_path / "unified" / place / "cgroup.subtree_control") == "+cpu +io +memory +pids"
    assert read(tmp_path / "unified/a/b" / KEY / "web/cgroup.subtree_control") == ""


def test_v2_task_gets_max_weight_memory_no_swap_and_pids(v2: CgroupTree, tmp_path: Path) -> None:
    v2.make(KEY, limits())
    task = tmp_path / "unified/a/b" / KEY / "web"
    assert read(task / "cpu.max") == "25000 100000"
    assert read(task / "cpu.weight") == "25"
    assert read(task / "memory.max") == str(64 * MIB)
    assert read(task / "memory.swap.max") == "0"
    assert read(task / "pids.max") == "32"
    assert read(task / "io.weight") == "default 500"


def test_v2_task_with_excess_has_a_weight_and_protected_memory(v2: CgroupTree, tmp_path: Path) -> None:
    v2.make(KEY, limits(cpu_excess=True, memory_excess=True))
    task = tmp_path / "unified/a/b" / KEY / "web"
    assert (read(task / "cpu.max"), read(task / "memory.max")) == ("max 100000", "max")
    assert read(task / "memory.low") == str(64 * MIB)


def test_v2_device_program_is_attached_to_the_root_only(v2: CgroupTree) -> None:
    v2.make(KEY, limits())
    assert isinstance(v2.files, FakeKernel)
    assert list(v2.files.guarded) == ["unified/a/b"]
    assert v2.devices_refused == ""


def test_v2_without_permission_for_a_device_program_works_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "bpf: Operation not permitted")

    monkeypatch.setattr(FakeKernel, "guard_devices", refuse)
    kernel = FakeKernel(tmp_path, {"unified": V2})
    kernel.make(str(tmp_path / "unified"))
    controllers = frozenset({"cpu", "memory", "pids"})
    tree = CgroupTree(
        Hierarchies(v2=str(tmp_path / "unified"), v2_controllers=controllers), "a", files=kernel
    )
    tree.prepare()
    tree.make(KEY, limits())
    assert "not permitted" in tree.devices_refused


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_opened_files_belong_to_the_task(version: str, request: pytest.FixtureRequest) -> None:
    tree: CgroupTree = request.getfixturevalue(version)
    tree.make(KEY, limits())
    opened = tree.open(KEY, limits())
    try:
        (task,) = opened.tasks
        assert all(
            os.readlink(f"/proc/self/fd/{fd}").endswith(f"{KEY}/web/cgroup.procs") for fd in task.procs_fds
        )
        assert os.readlink(f"/proc/self/fd/{task.pids_fd}").endswith("web/pids.max")
        assert "memory" in os.readlink(f"/proc/self/fd/{task.oom_fd}")
        assert len(opened.init) == (len(V1) if version == "v1" else 1)
    finally:
        for fd in opened.fds:
            os.close(fd)


def test_usage_excludes_droppable_cache_and_adds_up_oom_kills(v2: CgroupTree, tmp_path: Path) -> None:
    v2.make(KEY, limits())
    base = tmp_path / "unified/a/b" / KEY
    (base / "cpu.stat").write_text("usage_usec 1500\nuser_usec 1000\n")
    (base / "memory.current").write_text("5000\n")
    (base / "memory.stat").write_text("anon 4000\ninactive_file 1000\n")
    (base / "pids.current").write_text("7\n")
    (base / "web/memory.events.local").write_text("oom 3\noom_kill 2\n")
    (base / "memory.events.local").write_text("oom_kill 1\n")
    usage = v2.usage(KEY)
    assert (usage.cpu_ns, usage.memory_bytes, usage.pids, usage.oom_kills) == (1_500_000, 4000, 7, 3)


def test_v1_usage_reads_cpu_time_and_memory_without_droppable_cache(v1: CgroupTree, tmp_path: Path) -> None:
    v1.make(KEY, limits())
    (tmp_path / "cpuacct/galaxy-t" / KEY / "cpuacct.usage").write_text("1500000\n")
    memory = tmp_path / "memory/galaxy-t" / KEY
    (memory / "memory.usage_in_bytes").write_text("5000\n")
    (memory / "memory.stat").write_text("cache 3000\ntotal_inactive_file 1000\n")
    (memory / "web/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    (tmp_path / "pids/galaxy-t" / KEY / "pids.current").write_text("7\n")
    usage = v1.usage(KEY)
    assert (usage.cpu_ns, usage.memory_bytes, usage.pids, usage.oom_kills) == (1_500_000, 4000, 7, 2)


def test_remove_deletes_every_cgroup_and_is_idempotent(v1: CgroupTree, tmp_path: Path) -> None:
    v1.make(KEY, limits())
    assert v1.container_keys() == [KEY]
    assert v1.remove(KEY)
    assert v1.remove(KEY)
    assert v1.container_keys() == []
    v1.remove_root()
    assert not (tmp_path / "cpu/galaxy-t").exists()


def test_partly_created_container_is_listed_and_removed(v1: CgroupTree, tmp_path: Path) -> None:
    v1.make(KEY, limits())
    for name in V1.keys() - {"memory"}:
        for path in sorted((tmp_path / name / "galaxy-t" / KEY).rglob("cgroup.procs"), reverse=True):
            v1.files.remove(str(path.parent))
    assert v1.container_keys() == [KEY]
    assert v1.remove(KEY)
    assert v1.container_keys() == []


FOREIGN = ("second_agent", "h_2", "notes_2024", KEY)
"""Names of cgroups that another program may make below the root of an agent."""


@pytest.mark.parametrize("name", FOREIGN)
def test_cgroup_that_galaxy_did_not_make_is_not_listed_killed_or_removed(
    v1: CgroupTree, tmp_path: Path, name: str
) -> None:
    foreign = tmp_path / "pids/galaxy-t" / name
    v1.files.make(str(foreign))
    (foreign / "cgroup.procs").write_text("4194305\n")  # Above every pid.
    assert v1.container_keys() == [] and not v1.has(name)
    assert v1.pids(name) == []
    v1.kill(name)
    assert v1.remove(name)  # Nothing of a container is left.
    v1.remove_root()
    assert foreign.is_dir()


def test_root_that_galaxy_did_not_make_is_kept(tmp_path: Path) -> None:
    tree = make_v1(tmp_path, given="galaxy-t")
    tree.remove_root()
    assert all((tmp_path / name / "galaxy-t").is_dir() for name in V1)


def test_process_outside_the_pid_namespace_is_not_signalled(v1: CgroupTree, tmp_path: Path) -> None:
    v1.make(KEY, limits())
    (tmp_path / "pids/galaxy-t" / KEY / "cgroup.procs").write_text("0\n4194305\n")
    assert v1.pids(KEY) == [4194305]


@pytest.mark.parametrize("hierarchy", V1)
def test_container_is_refused_where_another_program_has_its_cgroup(
    v1: CgroupTree, tmp_path: Path, hierarchy: str
) -> None:
    foreign = tmp_path / hierarchy / "galaxy-t" / KEY
    v1.files.make(str(foreign))
    with pytest.raises(HostError, match="exists already, and Galaxy did not make it"):
        v1.make(KEY, limits())
    assert v1.remove(KEY)
    assert list(tmp_path.glob(f"*/galaxy-t/{KEY}")) == [foreign]


def test_containers_of_two_agents_below_one_root_are_told_apart(tmp_path: Path) -> None:
    kernel = FakeKernel(tmp_path, V1)
    for name in V1:
        kernel.make(str(tmp_path / name))
    hierarchies = Hierarchies(v1={name: str(tmp_path / name) for name in V1})
    trees = [CgroupTree(hierarchies, "galaxy-t", owner=owner, files=kernel) for owner in ("/var/a", "/var/b")]
    for tree, key in zip(trees, ("a.0_1", "b.0_1"), strict=True):
        tree.prepare()
        tree.make(key, limits())
    assert [tree.container_keys() for tree in trees] == [["a.0_1"], ["b.0_1"]]
    assert trees[1].remove("a.0_1") and trees[0].has("a.0_1")
    with pytest.raises(HostError, match="exists already"):
        trees[1].make("a.0_1", limits())


def test_recorded_container_without_marks_gets_them_when_it_is_claimed(
    v1: CgroupTree, tmp_path: Path
) -> None:
    v1.make(KEY, limits())
    kernel = v1.files
    assert isinstance(kernel, FakeKernel)
    kernel.marks.clear()
    assert not v1.has(KEY)
    v1.claim(KEY)
    assert v1.container_keys() == [KEY] and v1.remove(KEY)
    assert not list(tmp_path.glob(f"*/galaxy-t/{KEY}"))


def test_without_marks_only_what_the_launcher_has_recorded_is_removed(tmp_path: Path) -> None:
    kernel = FakeKernel(tmp_path, V1)
    kernel.keeps_marks = False
    for name in V1:
        kernel.make(str(tmp_path / name))
    tree = CgroupTree(Hierarchies(v1={name: str(tmp_path / name) for name in V1}), "galaxy-t", files=kernel)
    tree.prepare()
    tree.make(KEY, limits())
    kernel.make(str(tmp_path / "pids/galaxy-t/h_2"))
    assert tree.container_keys() == []
    assert tree.remove(KEY)
    assert [path.name for path in (tmp_path / "pids/galaxy-t").iterdir() if path.is_dir()] == ["h_2"]


def test_kill_writes_to_cgroup_kill_on_v2(v2: CgroupTree, tmp_path: Path) -> None:
    v2.make(KEY, limits())
    v2.kill(KEY)
    assert read(tmp_path / "unified/a/b" / KEY / "cgroup.kill") == "1"


def test_host_without_controllers_is_an_error_with_a_hint() -> None:
    with pytest.raises(HostError, match="no cgroup controllers"):
        CgroupTree(Hierarchies(), "galaxy")


def test_missing_field_is_zero() -> None:
    assert field("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n", "oom_kill") == 4
    assert field("oom_kill_disable 0\n", "oom_kill") == 0


class RecordingKernel(FakeKernel):
    """A fake v2 kernel that records writes of memory limits, below one root."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, {"unified": (*V2, "memory.high")})
        self.written: list[tuple[str, str]] = []

    def write(self, path: str, value: str | int) -> None:
        super().write(path, value)
        if path.endswith("memory.max") and KEY in path:
            self.written.append((path.partition(KEY)[2], str(value)))


def recording(tmp_path: Path) -> tuple[CgroupTree, RecordingKernel]:
    kernel = RecordingKernel(tmp_path)
    kernel.make(str(tmp_path / "unified"))
    controllers = frozenset({"cpu", "io", "memory", "pids"})
    tree = CgroupTree(
        Hierarchies(v2=str(tmp_path / "unified"), v2_controllers=controllers), "a/b", files=kernel
    )
    tree.prepare()
    tree.make(KEY, limits())
    kernel.written.clear()
    return tree, kernel


def test_v2_larger_memory_is_given_to_the_container_before_the_task(tmp_path: Path) -> None:
    tree, kernel = recording(tmp_path)
    assert tree.resize(KEY, limits(memory_bytes=128 * MIB)) == ()
    assert kernel.written == [("/memory.max", str(160 * MIB)), ("/web/memory.max", str(128 * MIB))]


def test_v2_smaller_memory_is_taken_from_the_task_before_the_container(tmp_path: Path) -> None:
    tree, kernel = recording(tmp_path)
    assert tree.resize(KEY, limits(memory_bytes=32 * MIB)) == ()
    assert kernel.written == [("/web/memory.max", str(32 * MIB)), ("/memory.max", str(64 * MIB))]


def test_v2_memory_is_not_lowered_below_what_is_in_use(tmp_path: Path) -> None:
    tree, kernel = recording(tmp_path)
    base = tmp_path / "unified/a/b" / KEY
    (base / "web/memory.current").write_text(str(48 * MIB))
    (held,) = tree.resize(KEY, limits(memory_bytes=32 * MIB, cpu_milli=500, pids_max=64))
    assert "task web uses 48 MiB, more than its new memory limit of 32 MiB" in held
    assert kernel.written == [] and read(base / "web/memory.high") == "max"
    assert read(base / "web/cpu.max") == "50000 100000" and read(base / "web/pids.max") == "64"


def test_v2_limits_become_soft_and_hard_again(tmp_path: Path) -> None:
    tree, _ = recording(tmp_path)
    base = tmp_path / "unified/a/b" / KEY
    tree.resize(KEY, limits(cpu_excess=True, memory_excess=True))
    assert read(base / "web/memory.max") == "max" and read(base / "web/memory.low") == str(64 * MIB)
    assert read(base / "web/cpu.max") == "max 100000"
    tree.resize(KEY, limits())
    assert read(base / "web/memory.max") == str(64 * MIB) and read(base / "web/memory.low") == "0"
    assert read(base / "web/cpu.max") == "25000 100000"


def test_resize_of_a_container_that_is_gone_raises(v2: CgroupTree) -> None:
    with pytest.raises(FileNotFoundError):
        v2.resize("gone_1", limits())
