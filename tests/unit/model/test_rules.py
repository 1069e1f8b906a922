"""Rules over several fields, each with the path of the field that breaks it."""

from __future__ import annotations

from typing import Any

import pytest

from galaxy.model.jobspec import parsing, rules


def task(**fields: Any) -> dict[str, Any]:
    return {"cpu": "250m", "memory": "64M", "start": "run"} | fields


def broken(*tasks: dict[str, Any], pod: dict[str, Any] | None = None, **top: Any) -> list[str]:
    tree = {"name": "web", "pod": {"tasks": list(tasks or (task(),))} | (pod or {})} | top
    return [str(diagnostic) for diagnostic in parsing.parse(tree).diagnostics]


def volumes(*paths: str) -> dict[str, Any]:
    return {"volumes": [{"path": path, "size": "1M"} for path in paths]}


@pytest.mark.parametrize("path", ["/etc", "/usr/local", "/proc/x", "/tmp", "/dev/shm"])
def test_volume_over_a_system_directory_is_refused(path: str) -> None:
    assert "taken by the container's own" in broken(pod=volumes(path))[0]


@pytest.mark.parametrize("path", ["/", "/a/../b", "/a//b", "/a/", "/a b", "/a\nb", "/./a"])
def test_volume_path_must_be_plain(path: str) -> None:
    assert "is not a plain absolute path" in broken(pod=volumes(path))[0]


def test_volumes_at_one_place_are_refused() -> None:
    assert broken(pod=volumes("/data", "/data")) == [
        '`pod.volumes[1].path`: "/data" is taken by `pod.volumes[0]`'
    ]


def test_volume_inside_another_is_refused_but_inside_the_workspace_is_not() -> None:
    assert "overlap" in broken(pod=volumes("/data", "/data/x"))[0]
    assert "overlap" in broken(pod=volumes("/home"))[0]
    assert broken(pod=volumes("/home/galaxy/cache", "/database", "/data")) == []


def test_port_names_that_make_one_variable_are_refused_over_the_pod() -> None:
    diagnostics = broken(task(name="a", ports=["http-1"]), task(name="b", ports=["HTTP_1"]))
    assert len(diagnostics) == 1
    assert "both would be GALAXY_PORT_HTTP_1" in diagnostics[0]


def test_static_ports_are_unique_over_the_pod_and_unprivileged() -> None:
    def port(number: int) -> dict[str, Any]:
        return {"name": f"p{number % 7}", "port": number}

    assert broken(task(ports=[{"name": "a", "port": 12300}, {"name": "b", "port": "12300"}])) == [
        "`pod.tasks[0].ports[1].port`: 12300 is taken by `pod.tasks[0].ports[0]`"
    ]
    assert "privileged" in broken(task(ports=[port(1024)]))[0]
    assert broken(task(ports=[port(1025), port(65535)])) == []
    assert "above the maximum of 65535" in broken(task(ports=[port(65536)]))[0]


def test_cpu_out_of_range_gives_the_limit_in_written_units() -> None:
    assert broken(task(cpu=9999)) == [
        "`pod.tasks[0].cpu.millicores`: 9999 cores is above the maximum of 1000 cores"
    ]
    assert broken(task(cpu="5m")) == ["`pod.tasks[0].cpu.millicores`: 5m is below the minimum of 10m"]


def test_service_names_are_unique_over_the_pod() -> None:
    diagnostics = broken(
        task(name="a", ports=["x"], services=["s"]), task(name="b", ports=["y"], services=["s"])
    )
    assert diagnostics == ['`pod.tasks[1].services[0].name`: "s" is taken by `pod.tasks[0].services[0]`']


def test_service_and_health_name_a_port_of_their_own_task() -> None:
    diagnostics = broken(
        task(name="a", ports=["x"]),
        task(name="b", services=[{"name": "s", "port": "x"}], health={"type": "tcp", "port": "x"}),
    )
    assert diagnostics == [
        '`pod.tasks[1].services[0].port`: task "b" has no port "x"; it has no ports',
        '`pod.tasks[1].health.port`: task "b" has no port "x"; it has no ports',
    ]


@pytest.mark.parametrize(
    ("health", "field", "cause"),
    [
        ({"type": "tcp"}, "port", "is missing"),
        ({"type": "command"}, "command", "is missing"),
        ({"type": "command", "command": "true", "port": "x"}, "port", "no meaning"),
        ({"type": "http", "port": "x", "path": "health"}, "path", 'does not begin with "/"'),
        ({"type": "http", "port": "x", "path": "/a\r\nHost: x"}, "path", "control characters"),
    ],
)
def test_health_has_what_its_type_needs(health: dict[str, Any], field: str, cause: str) -> None:
    diagnostics = broken(task(ports=["x", "y"], health=health))
    assert any(
        diagnostic.startswith(f"`pod.tasks[0].health.{field}`") and cause in diagnostic
        for diagnostic in diagnostics
    )


@pytest.mark.parametrize("name", ["1A", "A-B", "", "A B", "GALAXY_PORT_X", "A=B"])
def test_bad_or_reserved_variable_name_is_refused(name: str) -> None:
    assert len(broken(task(env={name: "x"}))) == 1


def test_task_names_are_unique() -> None:
    assert "is the name of another task" in broken(task(name="a"), task(name="a"))[0]


@pytest.mark.parametrize("path", ["/opt/app", "../x", "a/../../b", "/home/galaxyx"])
def test_package_outside_every_writable_volume_is_refused(path: str) -> None:
    package = {"source": "a.tar.gz", "version": "1", "path": path}
    assert "`pod.tasks[0].package.path`" in broken(task(package=package))[0]


def test_package_into_a_read_only_volume_is_refused() -> None:
    package = {"source": "a.tar.gz", "version": "1", "path": "/data/x"}
    pod = {"volumes": [{"path": "/data", "size": "1M", "readonly": True}]}
    assert "no writable volume" in broken(task(package=package), pod=pod)[0]


def test_two_packages_at_one_place_are_refused_unless_they_are_the_same() -> None:
    def two(second: str) -> list[str]:
        first = {"source": "a.tar.gz", "version": "1"}
        return broken(task(name="a", package=first), task(name="b", package=first | {"source": second}))

    assert "is where `pod.tasks[0].package` is unpacked" in two("b.tar.gz")[0]
    assert two("a.tar.gz") == []


def test_unknown_scheme_of_a_package_is_refused() -> None:
    assert "packages come by" in broken(task(package={"source": "gopher://x/a", "version": "1"}))[0]


def test_appmaster_refuses_package_paths_on_the_client() -> None:
    package = {"source": "build/a.tar.gz", "version": "1"}
    spec = parsing.load({"name": "web", "pod": {"tasks": [task(package=package)]}})
    assert "a path on the client" in rules.check(spec)[0]


def test_batch_that_always_restarts_is_refused() -> None:
    assert "exits 0 is finished" in broken(task(restart="always"), type="batch")[0]
    assert broken(task(restart="on-failure"), type="batch") == []


def test_maximum_restart_delay_below_the_first_delay_is_refused() -> None:
    assert "is less than delay" in broken(task(restart={"delay": "10s", "delay_max": "1s"}))[0]


def test_tasks_that_exceed_the_size_of_an_order_are_refused() -> None:
    env = {f"V{n}": "x" * 4000 for n in range(50)}
    assert "together when encoded" in broken(task(env=env))[0]


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        ({"type": "best-effort"}, "type"),
        ({"pod": {"workspace": {"medium": "ssd"}}}, "pod.workspace.medium"),
        ({"pod": {"workspace": {"exclusive": True}}}, "pod.workspace.exclusive"),
        ({"task": {"network": "private"}}, "pod.tasks[0].network.mode"),
        ({"task": {"network": {"recv_bps": "30M"}}}, "pod.tasks[0].network.recv_bps"),
    ],
)
def test_field_of_a_later_version_is_refused(tree: dict[str, Any], path: str) -> None:
    rest = {name: value for name, value in tree.items() if name == "type"}
    diagnostics = broken(task(**tree.get("task", {})), pod=tree.get("pod"), **rest)
    assert len(diagnostics) == 1
    assert diagnostics[0].startswith(f"`{path}`: not supported yet")


@pytest.mark.parametrize("pools", [["a b"], ["a", "a"], [""], ["x" * 64]])
def test_bad_or_repeated_pool_is_refused(pools: list[str]) -> None:
    assert len(broken(deploy={"pools": pools})) == 1


@pytest.mark.parametrize(
    ("deploy", "path", "says"),
    [
        ({"require": ["a b"]}, "deploy.require[0]", "neither a tag nor label=value"),
        ({"prefer": ["rack="]}, "deploy.prefer[0]", "neither a tag nor label=value"),
        ({"forbid": "ssd, rack=a|b, ssd"}, "deploy.forbid[2]", "named twice"),
        ({"require": ["ssd"], "forbid": ["ssd"]}, "deploy.forbid[0]", "required already"),
        ({"require": ["ssd"], "prefer": ["ssd"]}, "deploy.prefer[0]", "required already"),
        ({"spread": "rack=a"}, "deploy.spread", "not the name of a label"),
        ({"affinity": ["No!"]}, "deploy.affinity[0]", "not the name of a job"),
        ({"affinity": ["web"]}, "deploy.affinity[0]", "this job itself; leave it out"),
        ({"anti_affinity": ["web"]}, "deploy.anti_affinity[0]", "use `max_per_host: 1`"),
        ({"affinity": "db", "anti_affinity": "db"}, "deploy.anti_affinity[0]", "in `affinity` too"),
        ({"anti_affinity": "db, db"}, "deploy.anti_affinity[1]", "named twice"),
        ({"require": [f"t{n}" for n in range(17)]}, "deploy.require", "16 are allowed"),
    ],
)
def test_impossible_constraint_is_refused_by_field(deploy: dict[str, Any], path: str, says: str) -> None:
    (diagnostic,) = broken(deploy=deploy)
    assert diagnostic.startswith(f"`{path}`:")
    assert says in diagnostic


def test_likely_mistakes_are_reported() -> None:
    tree = {
        "name": "web",
        "deploy": {"replica": 3, "step": 3},
        "pod": {
            "tasks": [task(ports=["x"], services=["s"], package={"source": "http://h/a", "version": "1"})]
        },
    }
    assert len(rules.likely_mistakes(parsing.load(tree))) == 3
    assert rules.likely_mistakes(parsing.load({"name": "web", "pod": {"tasks": [task()]}})) == []


@pytest.mark.parametrize(
    ("ulimits", "cause"),
    [
        ({"nofiles": 1024}, "did you mean nofile?"),
        ({"zzz": 1}, "these are: as, core, cpu"),
        ({"rtprio": 5}, "is not a limit that a task can set"),
        ({"nofile": {"soft": 2000, "hard": 1000}}, "soft limit (2000) above its hard limit (1000)"),
        ({"core": {"soft": -1, "hard": 1000}}, "soft limit (unlimited) above its hard limit (1000)"),
        ({"nofile": -1}, "cannot be unlimited"),
        ({"nofile": 3}, "at least 16"),
    ],
)
def test_limit_that_no_program_can_have_is_refused(ulimits: dict[str, Any], cause: str) -> None:
    (problem,) = broken(task(ulimits=ulimits))
    assert cause in problem and f"pod.tasks[0].ulimits.{next(iter(ulimits))}" in problem


def test_limits_have_one_value_or_two() -> None:
    ulimits = {"nofile": 1024, "core": {"soft": 0, "hard": -1}, "nproc": -1, "stack": 8 << 20}
    assert broken(task(ulimits=ulimits)) == []


@pytest.mark.parametrize("value", [-2, "1024", 1.5, True, None, {"soft": 5}, {"soft": 1, "hard": 2, "x": 3}])
def test_limit_of_another_form_is_refused(value: object) -> None:
    assert broken(task(ulimits={"nofile": value}))
