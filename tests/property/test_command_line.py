"""``galaxy`` with any arguments and no cluster ends quickly, with a known exit code and no traceback.

Commands and options are found by walking click's own tree, so new ones are tested as well.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxy.cli.main import cli, run
from galaxy.client import transport
from tests.property.effort import PROCESSES_S, examples
from tests.property.hostile_messages import NASTY

CODES = {0, 1, 2, 3, 64}
ENDS_WITHIN_S = 20.0
"""A few seconds, plus a margin for a busy machine."""
NOWHERE = "redis://127.0.0.1:1/0"

JOB = "name: web\npod:\n  tasks:\n    - {cpu: 100m, memory: 64M, start: 'true'}\n"
VALUES = (
    "web",
    "web-abc123.0",
    "job.yaml",
    "bad.yaml",
    "job.json",
    "job.toml",
    "directory",
    "none.yaml",
    "-",
    "--",
    "-h",
    "--help",
    "--version",
    "/dev/null",
    "/dev/zero",
    "/",
    "1",
    "0",
    "-1",
    "99999999999999999999",
    "1e308",
    "nan",
    "inf",
    "-inf",
    "1e-400",
    "0x10",
    "٣",
    "1.5h",
    "10",
    "5m",
    "9" * 400,
    "true",
    "json",
    "a=b",
    "\udcff\udcfe",
    "💥",
    "a" * 5000,
    "\n",
    "\x1b[31m",
    "${HOME}",
    "`id`",
    "$(id)",
    "'",
    '"',
    "\\",
    "*",
    "..",
    "web.yaml/x",
    "20000-10000",
    "1-70000",
    "1-2-3",
    "-5--1",
    ",",
    ":",
    "::1",
    "[::1]:1",
    "localhost:1",
)
URLS = (
    NOWHERE,
    "rediss://127.0.0.1:1/0",
    "redis://:pass@127.0.0.1:1/0",
    "redis://[",
    "redis://[::1",
    "redis://",
    "redis:",
    "redis://127.0.0.1:99999/0",
    "redis://127.0.0.1:x/0",
    "redis://127.0.0.1:1/x",
    "redis://127.0.0.1:1/0?db=x",
    "redis://127.0.0.1:1/0?socket_timeout=x",
    "redis://127.0.0.1:1/0?nonsense=1",
    "redis://127.0.0.1:-1",
    "http://x",
    "unix:///nowhere",
    "",
    " ",
    "redis://\udcff@127.0.0.1:1",
    "redis://a b@127.0.0.1:1/0",
    "redis+sentinel://x",
    "redis://%zz:%00@127.0.0.1:1/0",
    "redis://127.0.0.1:1/0#x",
    "redis://127.0.0.1:1/-1",
)
NASTY_VALUES = tuple(value for value in NASTY if "\0" not in value and len(value) < 5000)


class Done(NamedTuple):
    code: int
    out: str
    err: str


def commands(
    command: click.Command = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with the arguments that select it."""
    yield path, command
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in sorted({*command.list_commands(ctx), *getattr(command, "lazy", ())}):
            inner = command.get_command(ctx, name)
            assert inner is not None
            yield from commands(inner, (*path, name))


COMMANDS = dict(commands())
FINAL_ARGUMENTS = {("web",): ("--address", "203.0.113.1")}
"""Arguments without which a command would start to serve; the address is reserved (RFC 5737)."""


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Yield a home folder with a few files and no cluster."""
    place = Path(tempfile.mkdtemp(prefix="galaxy-cli-"))
    (place / "job.yaml").write_text(JOB)
    (place / "bad.yaml").write_text("name: [\n")
    (place / "job.json").write_text('{"name": "web", "nmae": NaN}')
    (place / "job.toml").write_text('name = "web"\nname = "web"\n')
    (place / "directory").mkdir()
    yield place
    shutil.rmtree(place)


def galaxy(home: Path, arguments: Sequence[str]) -> Done:
    """Run the command line in a forked child; fail unless it ends in time."""
    out, err = (os.memfd_create(name) for name in ("out", "err"))
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            code = _child(home, arguments, out, err)
        finally:
            os._exit(code)
    watch = os.pidfd_open(pid)
    try:
        ended, _, _ = select.select([watch], [], [], ENDS_WITHIN_S)
        if not ended:
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        out_text, err_text = (os.pread(fd, 1 << 20, 0).decode(errors="replace") for fd in (out, err))
        assert ended, f"still running: galaxy {arguments}\n{err_text[-2000:]}"
        _end_group(pid)
        return Done(os.waitstatus_to_exitcode(status), out_text, err_text)
    finally:
        for fd in (out, err, watch):
            os.close(fd)


def _child(home: Path, arguments: Sequence[str], out: int, err: int) -> int:
    os.setsid()
    setattr(transport, "DEAD_S", 0.0)  # noqa: B010 - hundreds of runs must not wait two seconds each for a dead cluster.
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, standard in ((null, 0), (out, 1), (err, 2)):
        os.dup2(fd, standard)
    os.chdir(home)
    for name in [name for name in os.environ if name.startswith("GALAXY_")]:
        del os.environ[name]
    os.environ |= {"HOME": str(home), "XDG_CONFIG_HOME": f"{home}/config", "XDG_STATE_HOME": f"{home}/state"}
    os.environ["GALAXY_DIR"] = f"{home}/cluster"
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = (open(fd, "w", closefd=False, errors="backslashreplace") for fd in (1, 2))  # noqa: SIM115
    try:
        code = run(list(arguments))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code & 0xFF


def _end_group(pid: int) -> None:
    """Assert that no process of the group remains."""
    end_s = time.monotonic() + 30
    while True:
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return
        if time.monotonic() > end_s:
            os.killpg(pid, signal.SIGKILL)
            raise AssertionError(f"processes of group {pid} remain")
        select.select([], [], [], 0.01)


def check(done: Done, arguments: Sequence[str]) -> None:
    shown = f"galaxy {list(arguments)}\n{done.err[-3000:]}"
    assert "Traceback" not in done.err + done.out, shown
    assert "internal error" not in done.err, shown
    assert done.code in CODES, f"{done.code}: {shown}"
    assert done.code == 0 or done.err.strip(), f"{done.code} without a message: {shown}"


def values(parameter: click.Parameter) -> st.SearchStrategy[str]:
    """Return values for one option or argument, most of them invalid."""
    kind = parameter.type
    candidates: list[str] = list(VALUES) + list(NASTY_VALUES)
    if isinstance(kind, click.Choice):
        candidates += [str(choice) for choice in kind.choices] * 5
    strange = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
    if parameter.name == "redis":
        return st.sampled_from(URLS)
    return st.sampled_from(candidates) | strange


@st.composite
def lines(draw: st.DrawFn, path: tuple[str, ...]) -> list[str]:
    """Draw a command line for the command at ``path``, with some of its options and arguments."""
    command = COMMANDS[path]
    arguments: list[str] = []
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            arguments += draw(st.lists(values(parameter), min_size=int(draw(st.booleans())), max_size=2))
        elif isinstance(parameter, click.Option) and draw(st.integers(0, 3)) == 0:
            arguments.append(draw(st.sampled_from(parameter.opts)))
            if not parameter.is_flag and draw(st.integers(0, 9)):
                arguments.append(draw(values(parameter)))
    if draw(st.integers(0, 9)) == 0:
        arguments.append(draw(st.sampled_from(VALUES)))
    if draw(st.booleans()):
        arguments = draw(st.permutations(arguments))
    if any("--redis" in parameter.opts for parameter in command.params) and "--redis" not in arguments:
        arguments = ["--redis", NOWHERE, *arguments]
    return [*path, *arguments, *FINAL_ARGUMENTS.get(path, ())]


SAFE = sorted(path for path in COMMANDS if path not in ((), ("down",)))


@examples(60, slow_s=PROCESSES_S)
@given(st.sampled_from(SAFE).flatmap(lines))
def test_no_arguments_make_a_command_raise_or_hang(home: Path, arguments: list[str]) -> None:
    check(galaxy(home, arguments), arguments)


@pytest.mark.parametrize("path", SAFE, ids=" ".join)
def test_every_option_refuses_or_accepts_each_kind_of_value(home: Path, path: tuple[str, ...]) -> None:
    """Each option is tried alone, so that the error of one does not hide another."""
    command = COMMANDS[path]
    first = ["--redis", NOWHERE] if any("--redis" in one.opts for one in command.params) else []
    for parameter in command.params:
        if not isinstance(parameter, click.Option) or parameter.is_flag:
            continue
        chosen = (
            URLS
            if parameter.name == "redis"
            else ("", "-1", "99999999999999999999", "nan", "\udcff", "a" * 300)
        )
        for value in chosen:
            arguments = [*path, *([] if parameter.name == "redis" else first), parameter.opts[0], value]
            arguments += FINAL_ARGUMENTS.get(path, ())
            check(galaxy(home, arguments), arguments)


@pytest.mark.parametrize("path", [("web",), ("resman",), ("appmaster",), ("agent",)], ids=" ".join)
def test_unknown_log_level_is_wrong_usage(home: Path, path: tuple[str, ...]) -> None:
    assert galaxy(home, [*path, "--redis", NOWHERE, "--log-level", "loud"]).code == 64


@pytest.mark.parametrize("path", [path for path in SAFE if path not in (("up",), ("web",))], ids=" ".join)
def test_command_without_arguments_ends_cleanly_and_has_a_help(home: Path, path: tuple[str, ...]) -> None:
    check(galaxy(home, path), path)
    helped = galaxy(home, [*path, "--help"])
    assert (helped.code, helped.err) == (0, "")


@examples(40, slow_s=PROCESSES_S)
@given(
    st.lists(
        st.sampled_from(VALUES + NASTY_VALUES)
        | st.sampled_from(sorted({value for path in COMMANDS for value in path})),
        max_size=4,
    ).filter(lambda arguments: not {"up", "down", "web"} & set(arguments))
)
def test_no_sequence_of_words_makes_galaxy_raise(home: Path, arguments: list[str]) -> None:
    check(galaxy(home, arguments), arguments)


@examples(60, slow_s=PROCESSES_S)
@given(
    st.binary(max_size=300)
    | st.sampled_from([b"\0" * 100, b"\xff\xfe", b"{" * 9999, b"a: &a [*a]", JOB.encode()])
)
def test_no_file_makes_validate_or_import_raise(home: Path, data: bytes) -> None:
    for name in ("x.yaml", "x.json", "x.toml", "x"):
        (home / name).write_bytes(data)
        for verb in ("validate", "import"):
            check(galaxy(home, ["job", verb, name]), [verb, repr(data)])


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"contexts": 1}', '{"contexts": {"a": 1}, "current": []}', "\0", "[" * 9999],
)
def test_damaged_contexts_file_is_reported(home: Path, content: str) -> None:
    (home / "config/galaxy").mkdir(parents=True, exist_ok=True)
    path = home / "config/galaxy/contexts.json"
    path.write_text(content)
    try:
        for arguments in (
            ["context", "list"],
            ["context", "use", "a"],
            ["status"],
            ["context", "add", "b", "--redis", NOWHERE],
        ):
            check(galaxy(home, arguments), arguments)
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"redis": 1}', '{"redis": "http://x"}', "\0", "[" * 9999]
)
def test_damaged_cluster_file_is_reported(home: Path, content: str) -> None:
    (home / "cluster").mkdir(exist_ok=True)
    path = home / "cluster/cluster.json"
    path.write_text(content)
    try:
        for arguments in (["status"], ["job", "list"], ["down"]):
            check(galaxy(home, arguments), arguments)
    finally:
        shutil.rmtree(home / "cluster")
