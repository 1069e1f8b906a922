"""Standard streams of commands that are closed, full or broken, and bytes that are not UTF-8."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import GALAXY, Cluster, job_file

Shell = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="module")
def shell(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Run a line in bash in which ``$@`` is the galaxy command, beside a service ``streams``."""
    folder = tmp_path_factory.mktemp("streams")
    cluster.run("job", "run", str(job_file(folder, "streams")))

    def run(line: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["bash", "-c", line, "bash", *GALAXY, *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
            env=cluster.environ | environ,
        )  # fmt: skip

    yield run
    cluster.run("job", "remove", "--yes", "streams")


@pytest.mark.parametrize(
    "redirection", [">&-", ">/dev/full", ">&- 2>&- <&-", "| true; exit ${PIPESTATUS[0]}"]
)
def test_exit_code_of_the_work_survives(
    shell: Shell, redirection: str, tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    line = f'"$@" {redirection}'
    assert shell(line, "exec", "streams", "--", "sh", "-c", "echo x; exit 9").returncode == 9
    jobs("six")
    task = {"start": "echo x; exit 6", "restart": "never"}
    file = str(job_file(tmp_path, "six", type="batch", task=task))
    done = shell(line, "job", "run", "--wait", "--logs", file)
    assert done.returncode == 6, done.stderr
    assert done.stderr.count(b"standard output") <= 1
    done = shell(line, "job", "run", "--detach", str(job_file(tmp_path, "six", type="batch", task=task)))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(b"\n") <= 1


def test_closed_input_is_an_empty_input(shell: Shell) -> None:
    done = shell('"$@" <&-', "exec", "-i", "streams", "--", "sh", "-c", "cat; echo end")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"end\n", b"")


def test_command_that_does_not_read_its_input_ends_while_that_stays_open(shell: Shell) -> None:
    line = 'exec 3< <(sleep 20); "$@" <&3'
    done = shell(line, "exec", "-i", "streams", "--", "sh", "-c", "exit 9")
    assert (done.returncode, done.stderr) == (9, b"")


def test_input_that_cannot_be_read_is_an_end_of_input(shell: Shell) -> None:
    done = shell('"$@" 0>/dev/null', "exec", "-i", "streams", "--", "sh", "-c", "cat; exit 9")
    assert (done.returncode, done.stderr.count(b"cannot read standard input")) == (9, 1)


@pytest.mark.parametrize("environ", [{}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_bytes_pass_through_arguments_input_and_output_unchanged(
    shell: Shell, environ: dict[str, str]
) -> None:
    argument = 'printf "a\\xffb\\xc3\\xc3\\xa9"'
    line = f'printf "\\xfe\\xc3\\xa8" | "$@" "$({argument})"'
    done = shell(line, "exec", "-i", "streams", "--", "sh", "-c", 'cat; printf %s "$0"', **environ)
    assert (done.returncode, done.stdout) == (0, b"\xfe\xc3\xa8a\xffb\xc3\xc3\xa9"), done.stderr


@pytest.mark.parametrize("environ", [{}, {"PYTHONIOENCODING": "ascii"}])
def test_logs_are_the_bytes_that_programs_wrote(
    shell: Shell, environ: dict[str, str], tmp_path: Path, jobs: Callable[[str], None]
) -> None:
    jobs("bytes")
    task = {"start": r"printf 'a\377b\303 \303\251\n'", "restart": "never"}
    file = str(job_file(tmp_path, "bytes", type="batch", task=task))
    expected = b"a\xffb\xc3 \xc3\xa9\n"
    done = shell('"$@"', "job", "run", "--wait", "--logs", file, **environ)
    assert (done.returncode, done.stdout) == (0, expected), done.stderr
    assert shell('"$@"', "logs", "bytes", **environ).stdout == expected


def test_command_whose_reader_is_gone_ends(shell: Shell) -> None:
    done = shell('"$@" | head -1; exit ${PIPESTATUS[0]}', "exec", "streams", "--", "yes")
    assert (done.returncode, done.stdout) == (141, b"y\n")
    assert done.stderr.count(b"\n") == 1


def test_names_that_are_not_utf8_are_refused(shell: Shell) -> None:
    for command in (("job", "show"), ("logs",), ("job", "remove", "--yes"), ("discover",)):
        done = shell("\"$@\" $'\\xff'", *command)
        assert done.returncode == 64
        assert done.stderr.startswith(b'galaxy: "\\xff" is not text in UTF-8')
