"""The exit codes of all commands, as docs/commands.md lists them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from galaxy import errors
from galaxy.cli.lazy import Action, LazyGroup
from galaxy.cli.main import cli, run
from galaxy.model.api.answers import error_of, problem_of

ROOT = Path(__file__).parents[3]
LOCAL = {
    ("completion",), ("doctor",), ("down",), ("up",), ("job", "validate"), ("job", "init"), ("job", "import"),
    ("job", "schema"), ("json",), ("context", "list"), ("context", "use"), ("context", "add"),
    ("context", "remove"), ("user", "key"), ("redis", "secret"), ("redis", "acl"), ("redis", "password"),
    ("redis", "url"),
}  # fmt: skip
"""Commands that ask no cluster."""
PROCESSES = {("resman",), ("appmaster",), ("web",)}
REQUIRED = {
    "file": "{job}", "files": "{job}", "name": "x", "job": "x", "jobs": "x", "service": "x", "pool": "main",
    "action": "clear", "command": "true", "user": "x", "limits": "cpu=1", "shell": "bash",
    "login": "sentinel", "role": "client", "words": "x k=v",
}  # fmt: skip
"""Values of arguments; `x` for the others."""
JOB = "name: web\ntype: batch\npod: {tasks: [{cpu: 1, memory: 64M, start: 'true'}]}\n"


def commands(
    group: click.Command = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command, hidden ones included, with its words."""
    if not isinstance(group, LazyGroup):
        yield path, group
        return
    context = click.Context(group)
    for name in sorted({*group.lazy, *group.list_commands(context)}):
        command = group.get_command(context, name)
        assert command is not None
        yield from commands(command, (*path, name))


ALL = dict(commands())


def arguments_of(command: click.Command, job: Path) -> list[str]:
    return [
        word.format(job=job)
        for param in command.params
        if isinstance(param, click.Argument) and (param.required or param.name in ("file", "hosts"))
        for word in REQUIRED.get(str(param.name), "x").split()
    ]


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the commands of this process a user without contexts."""
    for name in ("GALAXY_REDIS", "GALAXY_DIR", "GALAXY_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    job = tmp_path / "job.yaml"
    job.write_text(JOB)
    return job


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_wrong_usage_is_64(path: tuple[str, ...], alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*path, "--no-such-option"]) == errors.USAGE
    assert run([*path, *["x"] * 9]) == errors.USAGE or any(
        param.nargs == -1 for param in ALL[path].params if isinstance(param, click.Argument)
    )
    assert capsys.readouterr().err.startswith("galaxy: ")


@pytest.mark.parametrize("path", [p for p in ALL if p not in LOCAL | PROCESSES], ids=" ".join)
def test_unknown_and_unreachable_cluster_is_1(
    path: tuple[str, ...], alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = arguments_of(ALL[path], alone)
    if "yes" in [param.name for param in ALL[path].params]:
        arguments = ["--yes", *arguments]
    if path == ("secret", "set"):
        arguments += ["--from-file", str(alone)]
    if path == ("bill",):
        (alone.parent / "prices.yaml").write_text("cpu: 1\n")
        arguments += ["--prices", str(alone.parent / "prices.yaml")]
    assert run([*path, "--dir", str(alone.parent), *arguments]) == errors.FAILED
    assert "no cluster runs in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["bill", "--prices", "/none/x.yaml"], 'cannot read price file "/none/x.yaml"'),
        (["agent", "cordon", "--file", "/none/x"], "cannot read /none/x"),
        (["tag", "add", "ssd", "--file", "/none/x"], "cannot read /none/x"),
        (["pool", "move", "far", "--file", "/none/x"], "cannot read /none/x"),
        (["agent", "label", "rack=1", "--file", "/none/x"], "cannot read /none/x"),
        (["redis", "acl", "--secret", "/none/x"], "cannot read /none/x"),
        (["job", "run", "/none/x.yaml"], 'cannot read job file "/none/x.yaml"'),
        (["tag", "remove", "ssd", "--file", "/none/x"], "cannot read /none/x"),
        (["secret", "set", "x", "--from-file", "/none/x"], "/none/x"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_input_file_that_is_missing_is_wrong_usage_before_a_cluster_is_asked(
    arguments: list[str],
    text: str,
    alone: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # No cluster answers either; the file is read first.
    monkeypatch.setenv("GALAXY_REDIS", "redis://127.0.0.1:1/0")
    assert run(arguments) == errors.USAGE
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("path", [p for p in ALL if "yes" in [q.name for q in ALL[p].params]], ids=" ".join)
def test_commands_that_ask_for_confirmation_change_something(path: tuple[str, ...]) -> None:
    assert isinstance(ALL[path], Action)


def test_errors_have_the_codes_of_the_table() -> None:
    codes = {kind.__name__: kind.exit_code for kind in errors.GalaxyError.__subclasses__()}
    assert {name for name, code in codes.items() if code == errors.REFUSED} == {"Refused", "Conflict"}
    assert {name for name, code in codes.items() if code == errors.USAGE} == {"UsageError", "SpecError"}
    assert errors.KeyConflict.exit_code == errors.FAILED
    text = (ROOT / "docs" / "commands.md").read_text()
    table = re.findall(r"^\| (\d+) \|", text, re.MULTILINE)
    assert [int(code) for code in table] == [
        errors.DONE, errors.FAILED, errors.NOT_ALL_RUNNING, errors.REFUSED, errors.USAGE, errors.INTERRUPTED,
    ]  # fmt: skip


def test_answer_of_no_cluster_is_64_where_a_confirmation_is_missing(
    alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (alone.parent / "plan.json").touch()
    assert run(["down", "--purge", "--dir", str(alone.parent)]) == errors.USAGE
    assert "without confirmation" in capsys.readouterr().err


def test_agents_lists_and_agent_joins_only_a_cluster_that_is_named(
    alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["agents"], ["agents", "-o", "json"], ["agents", "list"], ["agent", "ls"]):
        assert run([*arguments, "--dir", str(alone.parent)]) == errors.FAILED
        assert "no cluster runs in" in capsys.readouterr().err
    assert run(["agent"]) == run(["agent", "--pool", "main"]) == errors.USAGE
    assert "no cluster is named" in capsys.readouterr().err


@pytest.mark.parametrize("leader", ["resman", "appmaster"])
def test_leader_joins_only_a_cluster_that_is_named(
    alone: Path, capsys: pytest.CaptureFixture[str], leader: str
) -> None:
    assert run([leader]) == run([leader, "--name", "h1"]) == errors.USAGE
    assert "no cluster is named" in capsys.readouterr().err
    assert run([leader, "--dir", str(alone.parent)]) == errors.FAILED


def test_agent_that_is_typed_at_a_terminal_without_an_option_does_not_start(
    alone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GALAXY_DIR", str(alone.parent))
    main, terminal = os.openpty()
    with os.fdopen(main), os.fdopen(terminal) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert run(["agent"]) == errors.USAGE
        assert "galaxy agent list" in capsys.readouterr().err
        assert run(["agent", "--name", "h1"]) == errors.FAILED  # No cluster runs there.


@pytest.mark.parametrize("name", ["host", "hosts", "node", "nodes", "machine", "machines"])
def test_other_names_of_agents_lead_to_their_list(
    alone: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert run([name, "list"]) == errors.USAGE
    assert "did you mean `galaxy agent list`" in capsys.readouterr().err


def test_exit_code_of_an_error_survives_the_answer() -> None:
    for error in (errors.KeyConflict("a"), errors.Conflict("b"), errors.NotFound("c")):
        assert error_of(problem_of(error)).exit_code == error.exit_code
