"""Import of Galaxy 3's job files."""

from __future__ import annotations

from typing import Any

from galaxy.model.jobspec import galaxy3, parsing
from galaxy.model.jobspec.diagnostics import write_path
from galaxy.model.jobspec.spec import PackageSpec, PortSpec, VolumeSpec

LOST = {
    "pod.workspace_volum.use_symlink", "pod.data_volums[0].use_symlink",
    "pod.tasks[0].tcp.recv_bps_quota", "pod.tasks[0].tcp.recv_bps_excess",
    "pod.tasks[0].tcp.send_bps_quota", "pod.tasks[0].tcp.send_bps_excess",
    "pod.tasks[0].services[0].user_bns", "pod.tasks[0]",
}  # fmt: skip


def example() -> dict[str, Any]:
    """Return a file with every peculiarity of Galaxy 3's own example."""
    volume = {"type": "kEmptyDir", "medium": "kDisk", "readonly": False, "use_symlink": True}
    package = {"source_path": "ftp://host/a.tar.gz", "dest_path": "/home/spider/0", "version": "1.0.0"}
    task = {
        "cpu": {"millicores": 1000, "excess": False},
        "mem": {"size": "800M", "excess": False},
        "tcp": {
            "recv_bps_quota": "30M", "recv_bps_excess": False,
            "send_bps_quota": "30M", "send_bps_excess": False,
        },
        "blkio": {"weight": 500},
        "ports": [{"name": "port00", "port": "12300"}],
        "exec_package": {"start_cmd": "sh start.sh", "stop_cmd": "sh stop.sh", "package": package},
        "services": [{"service_name": "service00", "port_name": "port00", "user_bns": False}],
    }  # fmt: skip
    return {
        "name": "example",
        "type": "kJobService",
        "deploy": {"replica": 1, "step": 1, "interval": 1, "pools": "example1,test"},
        "pod": {
            "workspace_volum": volume | {"size": "300M", "dest_path": "/home/work"},
            "data_volums": [volume | {"size": "800M", "dest_path": "/home/data/0"}],
            "tasks": [task],
        },
    }


def test_example_of_galaxy_3_becomes_a_valid_job() -> None:
    spec = parsing.load(galaxy3.import_galaxy3(example()).tree)
    task = spec.pod.tasks[0]
    assert (spec.type.value, spec.deploy.pools) == ("service", ("example1", "test"))
    assert spec.pod.workspace == VolumeSpec(path="/home/work", size=300 * 2**20)
    assert (task.cpu.millicores, task.memory.size) == (1000, 800 * 2**20)
    assert task.ports == (PortSpec(name="port00", port=12300),)
    assert (task.start, task.stop) == ("sh start.sh", "sh stop.sh")
    assert task.package == PackageSpec(source="ftp://host/a.tar.gz", version="1.0.0", path="/home/spider/0")


def test_dropped_field_gives_a_warning_with_its_path() -> None:
    warnings = galaxy3.import_galaxy3(example()).warnings
    assert {write_path(diagnostic.path) for diagnostic in warnings} == LOST


def test_misspelled_field_gives_a_warning_with_the_likely_name() -> None:
    texts = [str(diagnostic) for diagnostic in galaxy3.import_galaxy3(example()).warnings]
    assert any("`pod.tasks[0].services[0].user_bns`" in text and "`use_bns`" in text for text in texts)


def test_package_outside_every_volume_gets_a_volume() -> None:
    spec = parsing.load(galaxy3.import_galaxy3(example()).tree)
    assert VolumeSpec(path="/home/spider", size=300 * 2**20) in spec.pod.volumes


def test_shared_volumes_are_dropped_with_a_warning() -> None:
    adopted = galaxy3.import_galaxy3(example() | {"volum_jobs": "a,b"})
    assert any("not supported yet" in diagnostic.text for diagnostic in adopted.warnings)
    parsing.load(adopted.tree)


def test_health_command_becomes_a_health_check() -> None:
    tree = example()
    tree["pod"]["tasks"][0]["exec_package"]["health_cmd"] = "sh health.sh"
    health = parsing.load(galaxy3.import_galaxy3(tree).tree).pod.tasks[0].health
    assert health is not None
    assert (health.type, health.command) == ("command", "sh health.sh")


def test_data_package_becomes_data_with_reload() -> None:
    tree = example()
    package = {"source_path": "ftp://host/d.tar.gz", "dest_path": "/home/spider/1", "version": "2"}
    tree["pod"]["tasks"][0]["data_package"] = {"reload_cmd": "sh reload.sh", "packages": [package]}
    data = parsing.load(galaxy3.import_galaxy3(tree).tree).pod.tasks[0].data
    assert data is not None
    assert (data.reload, data.packages[0].version) == ("sh reload.sh", "2")


def test_file_of_another_shape_gives_diagnostics_and_does_not_raise() -> None:
    for tree in (None, [], "x", {"pod": 3}, {"pod": {"tasks": [3, {"ports": 3, "cpu": 1}]}}):
        assert parsing.parse(galaxy3.import_galaxy3(tree).tree).diagnostics
