"""Passwords on command lines are hidden from other users; URLs come from files and the environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from galaxy.cli import environment
from galaxy.cli.hidden_arguments import without_passwords
from galaxy.cli.main import run
from galaxy.client.contexts import given_url, url_from_environment, url_in_file
from galaxy.errors import UsageError

ROOT = Path(__file__).parents[3]
PASSWORD = "pw-of-this-test"
NOWHERE = f"redis://ann:{PASSWORD}@127.0.0.1:1/0"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["up", "--redis", "redis://:pw@h:1/0"], ["up", "--redis", "redis://***@h:1/0"]),
        (["up", "--redis=redis://a:p@w/x@h:1/0"], ["up", "--redis=redis://***@h:1/0"]),
        (["url", "--at", "rediss://a:pw@h"], ["url", "--at", "rediss://***@h"]),
        (
            ["--redis", "sentinel://a:b@h:1,i:2/0?master=m&sentinel_password=s&replicas=1"],
            ["--redis", "sentinel://***@h:1,i:2/0?master=m&sentinel_password=***&replicas=1"],
        ),
        (["up", "--redis", "redis://h:1/0"], ["up", "--redis", "redis://h:1/0"]),
        (["exec", "web", "curl", "http://a:pw@h"], ["exec", "web", "curl", "http://a:pw@h"]),
        (["up", "--redis"], ["up", "--redis"]),
    ],
)
def test_passwords_in_urls_are_replaced(given: list[str], shown: list[str]) -> None:
    assert without_passwords(given) == shown


def clean_environ(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GALAXY_")}
    return kept | {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_STATE_HOME": str(home)}


@pytest.mark.parametrize("form", [["--redis", NOWHERE], [f"--redis={NOWHERE}"]])
@pytest.mark.parametrize("command", [["resman"], ["agent", "--name", "h"], ["web", "--port", "0"]])
def test_password_does_not_stay_on_a_command_line(
    form: list[str], command: list[str], tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "galaxy.cli.main", *command, *form],
        env=clean_environ(tmp_path), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        end_s = time.monotonic() + 30
        line = b""
        while b"***" not in line and process.poll() is None and time.monotonic() < end_s:
            line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert PASSWORD.encode() not in line
        assert b"***@127.0.0.1:1/0" in line
    finally:
        process.kill()
        _, errors = process.communicate()
    assert "a password on the command line" in errors
    assert PASSWORD not in errors


def test_hidden_arguments_are_used_and_not_passed_on(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "galaxy.cli.main", "context", "add", "far", "--redis", NOWHERE],
        env=clean_environ(tmp_path), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr.count("\n") == 2
    assert PASSWORD in (tmp_path / "galaxy/contexts.json").read_text()


def test_url_comes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(f"{NOWHERE}\n")
    assert url_in_file(str(file)) == given_url("", str(file)) == NOWHERE
    assert url_from_environment({"GALAXY_REDIS_FILE": str(file)}) == (NOWHERE, "GALAXY_REDIS_FILE")
    assert url_from_environment({"GALAXY_REDIS": NOWHERE}) == (NOWHERE, "GALAXY_REDIS")
    assert url_from_environment({"GALAXY_REDIS": "", "GALAXY_REDIS_FILE": ""}) == ("", "")


@pytest.mark.parametrize("content", [None, b"", b"\n", b"redis://a\nredis://b\n", b"\xff", b"x" * 5000])
def test_file_without_one_url_is_refused_without_quoting_it(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "url"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        url_in_file(str(file))
    assert str(file) in str(caught.value)
    assert "redis://a" not in str(caught.value)


def test_two_names_of_a_cluster_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="both name a cluster"):
        given_url("redis://h", "file")
    with pytest.raises(UsageError, match="are both set"):
        url_from_environment({"GALAXY_REDIS": "a", "GALAXY_REDIS_FILE": "b"})


@pytest.mark.parametrize(
    ("arguments", "variables", "problem"),
    [
        (["--redis", NOWHERE, "--server", "redis"], {}, "--server redis is for a server that"),
        (["--server", "redis"], {"GALAXY_REDIS": NOWHERE}, "GALAXY_REDIS names your own"),
        (["--redis-port", "7000"], {"GALAXY_REDIS": NOWHERE}, "--redis-port 7000 is for a server"),
        (["--web-port", "80", "--no-web"], {}, "contradict each other"),
        (["--redis", NOWHERE, "--redis-file", "x"], {}, "both name a cluster"),
    ],
)
def test_up_refuses_options_that_it_cannot_use_together(
    arguments: list[str], variables: dict[str, str], problem: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name in ("GALAXY_REDIS", "GALAXY_REDIS_FILE", "GALAXY_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run(["up", "--dir", str(tmp_path / "none"), *arguments]) == 64
    errors = capsys.readouterr().err
    assert problem in errors
    assert PASSWORD not in errors
    assert not (tmp_path / "none").exists()


def test_unknown_variable_is_named_with_the_near_miss() -> None:
    assert environment.warnings(["GALAXY_REDSI", "GALAXY_DIR", "GALAXY_PORT_HTTP", "PATH"]) == [
        "GALAXY_REDSI is set, and Galaxy knows no such variable; did you mean GALAXY_REDIS?"
    ]
    assert environment.warnings(["GALAXY_ZZZZZZZZZZZZZZ"]) == [
        "GALAXY_ZZZZZZZZZZZZZZ is set, and Galaxy knows no such variable"
    ]


def test_every_variable_that_galaxy_reads_is_known() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "galaxy").rglob("*.py"))
    names = {name for name in re.findall(r"\bGALAXY_[A-Z_]*[A-Z]\b", text) if name != "GALAXY_X"}
    assert environment.warnings(names) == []


def test_documented_variables_are_those_that_galaxy_reads() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    assert set(re.findall(r"^\| `(GALAXY_[A-Z_]+)` \|", text, re.MULTILINE)) == set(environment.SETTINGS)


def test_command_warns_of_an_unknown_variable(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "galaxy.cli.main", "--version"],
        env=clean_environ(tmp_path) | {"GALAXY_TOKN": "x"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == (
        "galaxy: warning: GALAXY_TOKN is set, and Galaxy knows no such variable; did you mean GALAXY_TOKEN?\n"
    )
