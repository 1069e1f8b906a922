"""Leftovers of a cluster are found and removed; other processes are left alone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from galaxy.cli.local import leftovers
from galaxy.container.cgroup import marks
from tests.support.waiting import until


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def _sleeper(*arguments: str) -> subprocess.Popen[bytes]:
    code = "import os, sys; sys.stdout.write('x'); sys.stdout.flush(); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.read(1)
    return process


def _named_sleeper(name: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a process that ``ps`` shows as ``name`` with ``arguments``."""
    code = "import sys; sys.stdout.write('x'); sys.stdout.flush(); sys.stdin.read()"
    process = subprocess.Popen(
        [name, "-c", code, *arguments],
        executable=sys.executable,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.read(1)
    return process


def _roots(root: str) -> list[Path]:
    """Return a directory ``root`` in two hierarchies of this host, or in the only one."""
    top = Path("/sys/fs/cgroup")
    if (top / "cgroup.controllers").exists():
        return [top / root]
    return [top / "pids" / root, top / "memory" / root]


def _removed(path: Path) -> bool:
    with contextlib.suppress(OSError):
        path.rmdir()
    return not path.exists()


def test_process_of_galaxy_that_names_the_folder_is_found_and_killed(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    part = _sleeper("galaxy.container.launcher.server", "--state", f"{tmp_path}/agent/h")
    started.append(part)
    assert part.pid in leftovers.find(tmp_path, []).processes
    left = leftovers.remove(tmp_path, [], timeout_s=5)
    assert not left
    assert part.wait(5) == -signal.SIGKILL


def test_child_of_a_process_that_names_the_folder_is_found_and_killed(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    code = (
        "import subprocess, sys; p = subprocess.Popen(['sleep', '60']);"
        "sys.stdout.write(f'{p.pid}\\n'); sys.stdout.flush(); p.wait()"
    )
    part = subprocess.Popen(
        [sys.executable, "-c", code, "galaxy.cli.main", f"{tmp_path}"], stdout=subprocess.PIPE
    )
    started.append(part)
    assert part.stdout is not None
    grandchild = int(part.stdout.readline())
    assert {part.pid, grandchild} <= set(leftovers.find(tmp_path, []).processes)
    assert not leftovers.remove(tmp_path, [], timeout_s=5)
    assert not os.path.exists(f"/proc/{grandchild}") or not leftovers.start_ticks(grandchild)


def test_other_program_with_the_folder_in_its_arguments_is_left_alone(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    near = _sleeper(f"{tmp_path}/logs/agent.log")
    started.append(near)
    other = _sleeper("galaxy.container.launcher.server", "--state", f"{tmp_path}-2/agent/h")
    started.append(other)
    assert not leftovers.find(tmp_path, [])
    leftovers.remove(tmp_path, [], timeout_s=1)
    assert near.poll() is None
    assert other.poll() is None


def test_process_that_looks_for_leftovers_does_not_find_itself_or_its_ancestors(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from galaxy.cli.local import leftovers;"
        "print(bool(leftovers.find(Path(sys.argv[2]), [])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "galaxy.cli.main", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"


def test_await_end_returns_when_all_processes_have_ended() -> None:
    process = subprocess.Popen(["sleep", "60"])
    assert not leftovers.await_end([process.pid], 0.05)
    process.kill()
    assert leftovers.await_end([process.pid], 5)
    process.wait()


def test_commands_of_people_that_name_the_folder_are_left_alone(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    folder = str(tmp_path)
    started += [
        _sleeper("-m", "galaxy.cli.main", "logs", "-f", "web", "--dir", folder),
        _sleeper("-m", "galaxy.cli.main", "agent", "list", "--dir", folder),
        _sleeper(f"{folder}/redis/server.conf"),
        _named_sleeper("rsync", f"{folder}/agent", "/backup/galaxy"),
        _named_sleeper("tail", f"{folder}/redis/server.conf", "galaxy.cli.main"),
    ]
    assert not leftovers.find(tmp_path, [])
    leftovers.remove(tmp_path, [], timeout_s=1)
    assert [process.poll() for process in started] == [None] * len(started)


@pytest.mark.root
def test_cgroups_of_others_below_the_root_and_their_processes_are_left_alone(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    root = f"galaxy-test-{os.getpid()}"
    foreign = [path / "second_agent" / "web.0_1" for path in _roots(root)]
    process = _sleeper("of another program")
    started.append(process)
    try:
        for path in foreign:
            path.mkdir(parents=True)
            (path / "cgroup.procs").write_text(str(process.pid))
        found = leftovers.find(tmp_path, [root])
        assert not found, found
        assert not leftovers.remove(tmp_path, [root], timeout_s=1)
        assert process.poll() is None
        assert all(path.is_dir() for path in foreign)
    finally:
        process.kill()
        process.wait()
        for path in foreign:
            for each in (path, path.parent, path.parent.parent):
                until("its processes have left", lambda each=each: _removed(each))


@pytest.mark.root
def test_process_of_others_directly_in_the_root_is_left_alone_and_galaxys_container_is_removed(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    root = f"galaxy-test-root-{os.getpid()}"
    process, program = _sleeper("of another program"), _sleeper("a program in a container")
    started += [process, program]
    state = str(tmp_path / "agent" / "h1")
    containers = [path / "web-1.0_1" for path in _roots(root)]
    try:
        for path in containers:
            path.mkdir(parents=True)
            marks.set_mark(str(path.parent), marks.ROOT, state)
            marks.set_mark(str(path), marks.CONTAINER, state)
            (path / "cgroup.procs").write_text(str(program.pid))
            (path.parent / "cgroup.procs").write_text(str(process.pid))
        found = leftovers.find(tmp_path, [root])
        assert found.processes == (program.pid,)
        assert set(found.cgroups) == {str(path) for path in containers}
        assert not leftovers.remove(tmp_path, [root], timeout_s=5)
        assert program.wait(5) == -signal.SIGKILL
        assert process.poll() is None
        assert not any(path.exists() for path in containers)
        process.kill()
        process.wait()
        until(
            "only the root is left", lambda: len(leftovers.find(tmp_path, [root]).cgroups) == len(containers)
        )
        assert not leftovers.remove(tmp_path, [root], timeout_s=5)
        assert not any(path.parent.exists() for path in containers)
    finally:
        process.kill()
        process.wait()
        for path in containers:
            for each in (path, path.parent):
                until("its processes have left", lambda each=each: _removed(each))


@pytest.mark.root
def test_process_of_others_in_a_cgroup_whose_path_contains_a_containers_is_left_alone(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    root = f"galaxy-test-deep-{os.getpid()}"
    process = _sleeper("of another program")
    started.append(process)
    containers = [path / "web-1.0_1" for path in _roots(root)]
    foreign = [path / "other" / root / "web-1.0_1" for path in _roots(f"others-{root}")]
    try:
        for path in (*containers, *foreign):
            path.mkdir(parents=True)
        for path in containers:
            marks.set_mark(str(path), marks.CONTAINER, str(tmp_path / "agent" / "h1"))
        for path in foreign:
            (path / "cgroup.procs").write_text(str(process.pid))
        assert leftovers.find(tmp_path, [root]).processes == ()
        leftovers.remove(tmp_path, [root], timeout_s=5)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
        for path in (*containers, *foreign):
            for each in (path, *list(path.parents)[: len(path.parts) - 4]):
                if each.name not in ("pids", "memory", "cgroup"):
                    until("its processes have left", lambda each=each: _removed(each))


@pytest.mark.root
def test_root_that_galaxy_did_not_make_is_neither_a_leftover_nor_removed(tmp_path: Path) -> None:
    root = f"galaxy-test-given-{os.getpid()}"
    given = _roots(root)
    try:
        for path in given:
            path.mkdir()
        assert not leftovers.find(tmp_path, [root])
        leftovers.remove(tmp_path, [root], timeout_s=1)
        assert all(path.is_dir() for path in given)
    finally:
        for path in given:
            path.rmdir()
