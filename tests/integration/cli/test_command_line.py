"""The ``galaxy`` command as a process, for what needs no cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FIVE_PROBLEMS = """\
name: web
type: servce
deploy:
  replcia: 3
pod:
  tasks:
    - cpu: 250x
      memory: 64M
      start: run
      ports: [http]
      services:
        - {name: a, port: htp}
      env:
        GALAXY_X: "1"
"""


def galaxy(*arguments: str, input: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GALAXY_")}
    return subprocess.run(
        [sys.executable, "-m", "galaxy.cli.main", *arguments],
        input=input, capture_output=True, text=True, timeout=60, env=clean | environ, check=False,
    )  # fmt: skip


def test_version_is_one_line() -> None:
    done = galaxy("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "galaxy")


def test_help_has_examples_before_options() -> None:
    for arguments in ((), ("job",), ("job", "run"), ("logs",), ("exec",), ("agent",)):
        text = galaxy(*arguments, "-h").stdout
        assert 0 < text.index("Examples:") < text.index("Options:")


@pytest.mark.parametrize("arguments", [("down", "--dir"), ("up", "--redis"), ("job", "list", "--context")])
def test_empty_value_of_an_option_is_refused_and_not_ignored(arguments: tuple[str, ...]) -> None:
    done = galaxy(*arguments, "")
    assert done.returncode == 64
    assert f"'{arguments[-1]}': it is empty" in done.stderr


@pytest.mark.parametrize("time", ["0", "500ms", "1d", "soon"])
def test_timeout_of_up_outside_its_bounds_is_refused(time: str, tmp_path: Path) -> None:
    done = galaxy("up", "--dir", str(tmp_path / "none"), "--timeout", time)
    assert done.returncode == 64
    assert "'--timeout'" in done.stderr
    assert ("from 1s to 1h" if time != "soon" else "not a duration") in done.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("jb",), "did you mean `job`?"),
        (("job", "lsit"), "did you mean `list`?"),
        (("job", "logs"), "did you mean `galaxy logs`?"),
        (("job", "lgos"), "did you mean `galaxy logs`?"),
        (("job", "exec"), "did you mean `galaxy exec`?"),
        (("job", "lss"), "did you mean `list`?"),
        (("validate",), "did you mean `galaxy job validate`?"),
        (("job", "grant"), "did you mean `galaxy user grant`?"),
        (("ps",), "did you mean `galaxy job list`?"),
        (("job", "delete"), "did you mean `galaxy job remove`?"),
        (("logs", "web", "--fllow"), 'no option "--fllow"; did you mean `--follow`?'),
        (("up", "--no-wbe"), "did you mean `--no-web`?"),
        (("logs", "web", "--zzzzz"), 'no option "--zzzzz"\n'),
        (("job", "run"), "init"),
        (("exec", "web", "--task", "a", "--", "ls"), "put options before the pod: galaxy exec --task"),
        (("redis", "url"), "resman, appmaster, agent"),
        (("context", "add", "far", "--redis", "far"), "redis://"),
    ],
)
def test_wrong_usage_has_its_exit_code_and_a_hint(arguments: tuple[str, ...], hint: str) -> None:
    done = galaxy(*arguments)
    assert done.returncode == 64
    assert done.stderr.startswith("galaxy: ")
    assert hint in done.stderr


def test_five_problems_are_reported_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(FIVE_PROBLEMS)
    done = galaxy("job", "validate", str(path))
    first, *lines = done.stderr.splitlines()
    assert done.returncode == 64
    assert first == f'galaxy: cannot use job file "{path}": 5 problems'
    assert [line.strip().removeprefix(f"{path}:").split(":")[0] for line in lines] == [
        "2",
        "4",
        "7",
        "12",
        "14",
    ]


def test_invalid_job_file_is_reported_without_connecting_to_a_cluster(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(FIVE_PROBLEMS)
    for verb in ("run", "update"):
        done = galaxy("job", verb, str(path), GALAXY_REDIS="redis://127.0.0.1:1/0")
        assert (done.returncode, "5 problems" in done.stderr) == (64, True)


def test_problems_of_every_file_are_reported(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(FIVE_PROBLEMS)
    done = galaxy("job", "validate", str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"))
    assert done.stderr.count("5 problems") == 2


@pytest.mark.parametrize("type_", ["monitor", "service", "batch"])
def test_template_of_each_type_is_valid(type_: str) -> None:
    text = galaxy("job", "init", "web", "--type", type_).stdout
    done = galaxy("job", "validate", "-", input=text)
    assert (done.returncode, done.stdout) == (0, "-: job web is valid\n")


def test_init_with_a_file_name_writes_that_file(tmp_path: Path) -> None:
    target = tmp_path / "web.yaml"
    assert galaxy("job", "init", str(target)).returncode == 0
    assert galaxy("job", "validate", str(target)).stdout == f"{target}: job web is valid\n"


def test_init_with_another_format_is_refused_with_the_yaml_name(tmp_path: Path) -> None:
    done = galaxy("job", "init", str(tmp_path / "web.toml"))
    assert done.returncode == 64
    assert "YAML" in done.stderr and "galaxy job init web.yaml" in done.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [("init",), ("import", "-")])
def test_output_format_given_as_a_file_name_is_refused(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = galaxy("job", *arguments, "-o", "json", input='{"name": "a"}', PWD=str(tmp_path))
    assert done.returncode == 64
    assert not Path("json").exists()


def test_init_does_not_overwrite_a_file(tmp_path: Path) -> None:
    target = tmp_path / "job.yaml"
    assert galaxy("job", "init", "-o", str(target)).returncode == 0
    before = target.read_text()
    assert galaxy("job", "init", "other", "-o", str(target)).returncode == 64
    assert target.read_text() == before


def test_job_file_of_galaxy_3_imports_with_warnings_and_validates(tmp_path: Path) -> None:
    volume = {
        "size": "300M",
        "type": "kEmptyDir",
        "medium": "kDisk",
        "dest_path": "/home/work",
        "use_symlink": True,
    }
    task = {
        "cpu": {"millicores": 1000}, "mem": {"size": "800M"}, "ports": [{"name": "p", "port": "12300"}],
        "exec_package": {"start_cmd": "sh start.sh"},
        "services": [{"service_name": "s", "port_name": "p", "user_bns": False}],
    }  # fmt: skip
    app = {"name": "example", "type": "kJobService", "pod": {"workspace_volum": volume, "tasks": [task]}}
    path = tmp_path / "app.json"
    path.write_text(json.dumps(app, indent="\t"))
    done = galaxy("job", "import", str(path))
    assert done.returncode == 0
    warnings = done.stderr.splitlines()
    assert len(warnings) == 2
    assert all(line.startswith(f"galaxy: warning: {path}:") for line in warnings)
    assert "user_bns" in warnings[1]
    assert galaxy("job", "validate", "-", input=done.stdout).returncode == 0


def test_unknown_cluster_is_one_message_without_a_traceback(tmp_path: Path) -> None:
    env = {"XDG_CONFIG_HOME": str(tmp_path), "GALAXY_DIR": str(tmp_path / "none")}
    done = galaxy("job", "list", **env)
    assert done.returncode == 1
    assert done.stderr.startswith("galaxy: no cluster runs in")
    assert "Traceback" not in done.stderr


def test_contexts_are_added_chosen_and_listed_without_passwords(tmp_path: Path) -> None:
    env = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert galaxy("context", "add", "far", "--redis", "redis://:s3cret@h/0", **env).returncode == 0
    assert galaxy("context", "add", "near", "--dir", str(tmp_path), **env).returncode == 0
    assert galaxy("context", "use", "far", **env).returncode == 0
    listed = galaxy("context", "list", **env).stdout
    assert "s3cret" not in listed
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [["*", "far"], ["near", str(tmp_path)]]
    assert galaxy("context", "use", "nowhere", **env).returncode == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_printed_for_every_shell(shell: str) -> None:
    assert "_GALAXY_COMPLETE" in galaxy("completion", shell).stdout


def test_shell_completes_commands(tmp_path: Path) -> None:
    env = {"_GALAXY_COMPLETE": "bash_complete", "COMP_WORDS": "galaxy job sh", "COMP_CWORD": "2"}
    assert galaxy(**env).stdout.split() == ["plain,show"]


def test_internal_error_has_a_traceback_only_with_galaxy_debug(tmp_path: Path) -> None:
    code = "import galaxy.cli.main as m, galaxy.cli.job.files as f, sys\n" \
           "f.print_out = None\nsys.exit(m.run(['job', 'schema']))"  # fmt: skip
    env = os.environ | {"GALAXY_DEBUG": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 2)
    assert "internal error" in done.stderr
    debug = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=env | {"GALAXY_DEBUG": "1"},
        check=False,
    )
    assert "Traceback" in debug.stderr


def test_slow_packages_are_not_imported_for_commands_without_a_cluster() -> None:
    code = (
        "import sys; from galaxy.cli.main import run; run(['job', 'init'])\n"
        "slow = {'redis', 'celery', 'kombu', 'numpy', 'rich', 'yaml'} & set(sys.modules)\n"
        "sys.exit(' '.join(sorted(slow)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_doctor_prints_its_checks_in_columns() -> None:
    done = galaxy("doctor")
    assert done.returncode == 0
    names = ("kernel", "cgroups", "cgroup-latency", "user-namespace", "server")
    rows = [line for line in done.stdout.splitlines() if line[5:].split(" ")[0] in names]
    assert len(rows) >= 3
    starts = {len(line) - len(line[5:].split(" ", 1)[1].lstrip()) for line in rows}
    assert len(starts) == 1, done.stdout


def test_doctor_says_what_is_not_enforced() -> None:
    report = json.loads(galaxy("doctor", "-o", "json").stdout)
    enforced, missing = set(report["enforced"]), set(report["not_enforced"])
    assert not enforced & missing
    assert enforced | missing == {"cpu", "memory", "pids", "io", "disk", "namespaces", "seccomp", "user"}
    line = next(line for line in galaxy("doctor").stdout.splitlines() if line.startswith("not enforced: "))
    assert set(line.removeprefix("not enforced: ").split(", ")) - {"nothing"} == missing


def test_doctor_names_the_limits_that_an_agent_started_here_cannot_raise() -> None:
    code = (
        "import os, resource; from galaxy.container import host_probes;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)); os.nice(5);"
        "os.geteuid() or os.setuid(65534);"
        "host_probes.limits()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nofile 256 (documented: 524288)" in done.stderr
    assert "nice 5 (documented: 0)" in done.stderr
