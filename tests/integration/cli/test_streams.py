"""Standard streams that are closed, full, broken, or of another encoding than UTF-8."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

GALAXY = (sys.executable, "-m", "galaxy.cli.main")
JOB = "name: web\npod: {tasks: [{cpu: 1, memory: 64M, start: 'true'}]}\n"
COMMANDS = {
    ("--version",): 0,
    ("job", "-h"): 0,
    ("job", "schema"): 0,
    ("context", "list", "-o", "json"): 0,
    ("job", "validate", "-"): 0,
    ("job", "lsit"): 64,
    ("status",): 1,
}
"""Commands without a cluster, and their exit codes."""


def shell(
    line: str, *arguments: str, input: bytes = b"", **environ: str
) -> subprocess.CompletedProcess[bytes]:
    """Run ``line`` in bash, in which ``$@`` is the galaxy command with ``arguments``."""
    return subprocess.run(
        ["bash", "-c", line, "bash", *GALAXY, *arguments],
        input=input, capture_output=True, timeout=60, env=clean_environ() | environ, check=False,
    )  # fmt: skip


def clean_environ() -> dict[str, str]:
    """Return the environment without what chooses a cluster or an encoding."""
    chosen = ("GALAXY_", "LC_", "PYTHONIOENCODING", "PYTHONUTF8")
    return {name: value for name, value in os.environ.items() if not name.startswith(chosen)}


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}


@pytest.fixture(scope="session")
def latin_locale(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of a locale whose encoding is ISO-8859-1."""
    folder = tmp_path_factory.mktemp("locales")
    made = subprocess.run(
        ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(folder / "en_US.ISO-8859-1")],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("no sources of locales here")
    return {"LOCPATH": str(folder), "LC_ALL": "en_US.ISO-8859-1"}


@pytest.mark.parametrize("arguments", COMMANDS)
def test_closed_streams_are_dev_null_and_exit_codes_stay(
    arguments: tuple[str, ...], home: dict[str, str]
) -> None:
    input = JOB.encode()
    for closed in ("<&-", ">&-", "<&- >&- 2>&-"):
        done = shell(f'"$@" {closed}', *arguments, input=input, **home)
        expected = 64 if "validate" in arguments and "<&-" in closed else COMMANDS[arguments]
        assert (done.returncode, b"Traceback" in done.stderr) == (expected, False), (closed, done.stderr)


@pytest.mark.parametrize("arguments", COMMANDS)
@pytest.mark.parametrize("redirection", [">/dev/full", "1</dev/null"])
def test_output_that_cannot_be_written_costs_one_line(
    arguments: tuple[str, ...], redirection: str, home: dict[str, str]
) -> None:
    done = shell(f'"$@" {redirection}', *arguments, input=JOB.encode(), **home)
    lines = [line for line in done.stderr.decode().splitlines() if "standard output" in line]
    assert b"Traceback" not in done.stderr and b"internal" not in done.stderr
    if COMMANDS[arguments]:
        assert (done.returncode, lines) == (COMMANDS[arguments], [])
    else:
        assert len(lines) == 1 and done.stderr.count(b"\n") == 1, done.stderr
        assert done.returncode == (0 if "validate" in arguments else 1)


def test_broken_pipe_costs_one_line() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*GALAXY, "job", "schema"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == b"galaxy: cannot write to standard output: Broken pipe\n"


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2</dev/null", ">/dev/full 2>/dev/full"])
def test_errors_that_cannot_be_written_leave_the_exit_code(redirection: str, home: dict[str, str]) -> None:
    assert shell(f'"$@" {redirection}', "job", "lsit", **home).returncode == 64


def test_output_waits_for_a_reader_of_a_pipe_that_does_not_block() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = subprocess.Popen([*GALAXY, "job", "schema"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        text = file.read()
    assert (process.wait(30), text[-2:]) == (0, b"}\n")
    assert process.stderr is not None and process.stderr.read() == b""


def test_interpreter_ends_while_a_thread_waits_for_input() -> None:
    code = (
        "import threading\nfrom galaxy.cli import streams\nstreams.prepare()\n"
        "threading.Thread(target=streams.read_input, args=(9,), daemon=True).start()\n"
        "print('started')"
    )
    reader, writer = os.pipe()  # Nothing is written, and it stays open.
    done = subprocess.run([sys.executable, "-c", code], stdin=reader, capture_output=True, check=False)
    os.close(reader)
    os.close(writer)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"started\n", b"")


def test_confirmation_is_asked_on_a_terminal(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "plan.json").touch()
    for answer, code in ((b"n\n", 1), (b"\n", 1), (b"\x04", 1)):
        done, text = on_terminal("down", "--purge", "--dir", str(tmp_path), input=answer, **home)
        assert done == code
        assert b"remove its jobs, logs and history?" in text
        assert b"nothing was removed" in text
        assert (tmp_path / "plan.json").exists()


ENCODINGS = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    {"LC_ALL": "C"},
]


@pytest.mark.parametrize("environ", ENCODINGS)
def test_text_passes_unchanged_to_a_pipe_whatever_the_encoding(
    environ: dict[str, str], home: dict[str, str], tmp_path: Path
) -> None:
    _passes_unchanged(environ | home, tmp_path)


def test_text_passes_unchanged_to_a_pipe_in_a_latin_locale(
    latin_locale: dict[str, str], home: dict[str, str], tmp_path: Path
) -> None:
    _passes_unchanged(latin_locale | home, tmp_path)


def _passes_unchanged(environ: dict[str, str], folder: Path) -> None:
    for name in ("žluťoučký-🐎", "caf\udce9"):
        path = folder / f"{name}.yaml"
        path.write_text(JOB)
        done = shell('"$@"', "job", "validate", os.fsdecode(path), **environ)
        expected = os.fsencode(path) if "🐎" in name else os.fsencode(path).replace(b"\xe9", b"\\xe9")
        assert (done.returncode, done.stdout) == (0, expected + b": job web is valid\n"), done.stderr


def on_terminal(*arguments: str, input: bytes = b"", **environ: str) -> tuple[int, bytes]:
    """Return the exit code of a galaxy command on a terminal, and what it writes there."""
    ours, theirs = pty.openpty()
    text = bytearray()

    def read() -> None:
        try:
            while data := os.read(ours, 65536):
                text.extend(data)
        except OSError:
            pass  # EIO: the other side is closed.

    reader = threading.Thread(target=read)
    reader.start()
    os.write(ours, input)
    done = subprocess.run(
        [*GALAXY, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, timeout=60, check=False,
        env=clean_environ() | environ,
    )  # fmt: skip
    os.close(theirs)
    reader.join(10)
    os.close(ours)
    return done.returncode, bytes(text)


def test_terminal_shows_what_its_encoding_has_and_replaces_the_rest(
    latin_locale: dict[str, str], home: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "é-🐎.yaml"
    path.write_text(JOB)
    for environ, shown in (
        (latin_locale, b"/\xe9-?.yaml: job web is valid"),
        ({"PYTHONIOENCODING": "ascii"}, b"/?-?.yaml: job web is valid"),
        ({"LC_ALL": "C.UTF-8"}, "/é-🐎.yaml: job web is valid".encode()),
    ):
        code, text = on_terminal("job", "validate", str(path), **home, **environ)
        assert code == 0
        assert shown in text


@pytest.mark.parametrize(
    "arguments",
    [("job", "show"), ("context", "add", "--redis", "redis://127.0.0.1:1/0"), ("context", "use")],
)
def test_argument_that_is_not_utf8_is_refused_and_shown(
    arguments: tuple[str, ...], home: dict[str, str]
) -> None:
    environ = home | {"GALAXY_REDIS": "redis://127.0.0.1:1/0"}
    done = shell("\"$@\" $'a\\xff'", *arguments, **environ)
    assert done.returncode in (1, 64)
    assert b"internal error" not in done.stderr and b"Traceback" not in done.stderr
