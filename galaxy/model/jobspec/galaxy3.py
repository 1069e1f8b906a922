"""Import of Galaxy 3's job files (JSON), with a warning for everything that is not imported.

Misspelled fields, fields without a meaning here and fields that are not supported yet each become a
warning with the field's path. The result is a tree for ``galaxy.model.jobspec.parsing``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from galaxy.model.jobspec.diagnostics import Diagnostic, Path
from galaxy.model.jobspec.shorthand import WORKSPACE_BYTES, WORKSPACE_PATH
from galaxy.suggest import nearest

TYPES: Final = {
    "kJobMonitor": "monitor", "kJobService": "service", "kJobBatch": "batch",
    "kJobBestEffort": "best-effort",
}  # fmt: skip
MEDIA: Final = {"kDisk": "disk", "kSsd": "ssd", "kTmpfs": "tmpfs"}
CHECKS: Final = {"kHealthCheckTcp": "tcp", "kHealthCheckHttp": "http", "kHealthCheckScript": "command"}

_LINK: Final = "has no meaning here: a volume is mounted, never linked; dropped"
_RATE: Final = "has no meaning yet: traffic is not limited in this version; dropped"
_BNS: Final = "has no meaning here: Galaxy's own discovery names services; dropped"

DROPPED_FIELDS: Final[Mapping[str, Mapping[str, str]]] = {
    "job": {"volum_jobs": "not supported yet: sharing the volumes of other jobs; dropped"},
    "volume": {"use_symlink": _LINK},
    "memory": {"use_galaxy_killer": "has no meaning here: the kernel's OOM killer does it; dropped"},
    "tcp": {
        "recv_bps_quota": _RATE, "recv_bps_excess": _RATE, "send_bps_quota": _RATE, "send_bps_excess": _RATE,
    },
    "service": {
        "use_bns": _BNS,
        "tag": "has no meaning here: services have no tags; dropped",
        "token": "has no meaning here: requests are not signed by service; dropped",
    },
}  # fmt: skip
"""Fields that are dropped, by part of the file, and why."""

KNOWN_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "job": ("name", "type", "deploy", "pod", "version"),
    "deploy": ("replica", "step", "interval", "max_per_host", "pools", "tag", "stop_timeout"),
    "pod": ("workspace_volum", "data_volums", "tasks"),
    "volume": ("size", "type", "medium", "dest_path", "readonly", "exclusive"),
    "task": (
        "id", "cpu", "mem", "tcp", "blkio", "ports", "exec_package", "data_package", "services",
    ),
    "cpu": ("millicores", "excess"),
    "memory": ("size", "excess"),
    "tcp": (),
    "blkio": ("weight",),
    "port": ("name", "port", "real_port"),
    "exec": ("start_cmd", "stop_cmd", "health_cmd", "package"),
    "package": ("source_path", "dest_path", "version"),
    "data": ("reload_cmd", "packages"),
    "service": ("service_name", "port_name", "health_check_type", "health_check_script"),
}  # fmt: skip
"""Fields that are imported, by part of the file."""


class Galaxy3Import(NamedTuple):
    """The tree of a job file, and a warning for everything that was not imported."""

    tree: dict[str, Any]
    warnings: tuple[Diagnostic, ...]


def import_galaxy3(tree: Any) -> Galaxy3Import:
    """Convert a job file of Galaxy 3. ``parsing`` validates the result."""
    importer = _Importer()
    return Galaxy3Import(importer.job(tree), tuple(importer.warnings))


class _Importer:
    def __init__(self) -> None:
        self.warnings: list[Diagnostic] = []

    def warn(self, path: Path, text: str) -> None:
        self.warnings.append(Diagnostic(path, text))

    def fields(self, value: Any, part: str, path: Path) -> dict[str, Any]:
        """Return the known fields of ``value``; each other field becomes a warning."""
        if not isinstance(value, dict):
            if value is not None:
                self.warn(path, "should have fields of its own; dropped")
            return {}
        kept = {}
        dropped = DROPPED_FIELDS.get(part, {})
        for name, item in value.items():
            if name in KNOWN_FIELDS[part]:
                kept[name] = item
            elif name in dropped:
                self.warn((*path, name), dropped[name])
            else:
                self.warn((*path, name), self._unknown_field(name, part))
        return kept

    @staticmethod
    def _unknown_field(name: str, part: str) -> str:
        dropped = DROPPED_FIELDS.get(part, {})
        guess = nearest(name, (*KNOWN_FIELDS[part], *dropped))
        if not guess:
            return "unknown to Galaxy 3 as well; dropped"
        why = f", which {dropped[guess]}" if guess in dropped else "; dropped"
        return f"unknown to Galaxy 3 as well; it probably meant `{guess}`{why}"

    def items(self, value: Any, path: Path) -> list[Any]:
        if isinstance(value, list):
            return value
        if value is not None:
            self.warn(path, "should be a list; dropped")
        return []

    def job(self, value: Any) -> dict[str, Any]:
        old = self.fields(value, "job", ())
        new: dict[str, Any] = {}
        _copy(old, new, "name")
        if "type" in old:
            new["type"] = TYPES.get(str(old["type"]), old["type"])
        if "version" in old:
            self.warn(("version",), "has no meaning here: revisions are counted; dropped")
        if "deploy" in old:
            new["deploy"] = self.fields(old["deploy"], "deploy", ("deploy",))
        new["pod"] = self.pod(old.get("pod"), ("pod",))
        return new

    def pod(self, value: Any, path: Path) -> dict[str, Any]:
        old = self.fields(value, "pod", path)
        new: dict[str, Any] = {}
        if "workspace_volum" in old:
            new["workspace"] = self.volume(old["workspace_volum"], (*path, "workspace_volum"))
        data = self.items(old.get("data_volums"), (*path, "data_volums"))
        volumes = [self.volume(item, (*path, "data_volums", at)) for at, item in enumerate(data)]
        tasks = self.items(old.get("tasks"), (*path, "tasks"))
        new["tasks"] = [self.task(item, (*path, "tasks", at)) for at, item in enumerate(tasks)]
        if len(tasks) > 1:
            for at, task in enumerate(new["tasks"]):
                task.setdefault("name", f"task{at}")
        volumes += self.missing_volumes(new, volumes, path)
        if volumes:
            new["volumes"] = volumes
        return new

    def volume(self, value: Any, path: Path) -> dict[str, Any]:
        old = self.fields(value, "volume", path)
        new: dict[str, Any] = {}
        _copy(old, new, "size", "readonly", "exclusive")
        _copy(old, new, dest_path="path")
        if old.get("type", "kEmptyDir") != "kEmptyDir":
            self.warn(
                (*path, "type"), f"{old['type']} has no meaning here: every volume begins empty; dropped"
            )
        medium = old.get("medium", "kDisk")
        if medium == "kBfs":
            self.warn((*path, "medium"), "kBfs has no meaning here: the volume lies on disk")
        new["medium"] = "disk" if medium == "kBfs" else MEDIA.get(str(medium), medium)
        return new

    def missing_volumes(self, pod: dict[str, Any], volumes: list[dict[str, Any]], path: Path) -> list[Any]:
        """Return a volume for every package outside all volumes, because only volumes are writable here."""
        space = pod.get("workspace", {})
        size = space.get("size", WORKSPACE_BYTES)
        places = [space.get("path", WORKSPACE_PATH), *(volume.get("path") for volume in volumes)]
        added: list[Any] = []
        for at, task in enumerate(pod["tasks"]):
            data = task.get("data", {}).get("packages", [])
            for package in (task.get("package", {}), *data):
                target = package.get("path")
                if not isinstance(target, str) or not target.startswith("/"):
                    continue
                if any(isinstance(p, str) and f"{target}/".startswith(f"{p}/") for p in places):
                    continue
                top = "/".join(target.split("/")[:3])
                places.append(top)
                added.append({"path": top, "size": size})
                where = (*path, "tasks", at)
                self.warn(where, f"unpacks to {target}, outside every volume; added volume {top} of {size}")
        return added

    def task(self, value: Any, path: Path) -> dict[str, Any]:
        old = self.fields(value, "task", path)
        new: dict[str, Any] = {}
        if isinstance(old.get("id"), str):
            new["name"] = old["id"]
        if "cpu" in old:
            new["cpu"] = self.fields(old["cpu"], "cpu", (*path, "cpu"))
        if "mem" in old:
            new["memory"] = self.fields(old["mem"], "memory", (*path, "mem"))
        self.fields(old.get("tcp"), "tcp", (*path, "tcp"))
        if "blkio" in old:
            new["blkio"] = self.fields(old["blkio"], "blkio", (*path, "blkio"))
        ports = self.items(old.get("ports"), (*path, "ports"))
        if ports:
            new["ports"] = [self.port(item, (*path, "ports", at)) for at, item in enumerate(ports)]
        self.programs(old, new, path)
        services = self.items(old.get("services"), (*path, "services"))
        if services:
            new["services"] = [
                self.service(item, new, (*path, "services", at)) for at, item in enumerate(services)
            ]
        return new

    def port(self, value: Any, path: Path) -> dict[str, Any]:
        old = self.fields(value, "port", path)
        old.pop("real_port", None)
        return old

    def programs(self, old: dict[str, Any], new: dict[str, Any], path: Path) -> None:
        if "exec_package" in old:
            where = (*path, "exec_package")
            program = self.fields(old["exec_package"], "exec", where)
            if "package" in program:
                new["package"] = self.package(program["package"], (*where, "package"))
            _copy(program, new, start_cmd="start", stop_cmd="stop")
            if program.get("health_cmd"):
                new["health"] = {"type": "command", "command": program["health_cmd"]}
        if "data_package" in old:
            where = (*path, "data_package")
            data = self.fields(old["data_package"], "data", where)
            packages = self.items(data.get("packages"), (*where, "packages"))
            if packages:
                new["data"] = {
                    "packages": [
                        self.package(item, (*where, "packages", at)) for at, item in enumerate(packages)
                    ]
                }
                _copy(data, new["data"], reload_cmd="reload")

    def package(self, value: Any, path: Path) -> dict[str, Any]:
        old = self.fields(value, "package", path)
        new: dict[str, Any] = {}
        _copy(old, new, source_path="source", version="version", dest_path="path")
        return new

    def service(self, value: Any, task: dict[str, Any], path: Path) -> dict[str, Any]:
        old = self.fields(value, "service", path)
        new: dict[str, Any] = {}
        _copy(old, new, service_name="name", port_name="port")
        check = old.get("health_check_type")
        if check is None:
            return new
        if check not in CHECKS:
            self.warn((*path, "health_check_type"), f"{check} is not known; dropped")
        elif "health" in task:
            self.warn((*path, "health_check_type"), "a task has one health check here, the first; dropped")
        elif CHECKS[check] == "command":
            task["health"] = {"type": "command", "command": old.get("health_check_script", "")}
        else:
            task["health"] = {"type": CHECKS[check], "port": old.get("port_name", "")}
        return new


def _copy(old: Mapping[str, Any], new: dict[str, Any], *same: str, **renamed: str) -> None:
    for before, after in (*((name, name) for name in same), *renamed.items()):
        if before in old:
            new[after] = old[before]
