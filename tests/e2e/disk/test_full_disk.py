"""A full disk under state, logs, packages and containers: told, survived, and over when there is room."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.support.parts import Parts, witness
from tests.support.waiting import until

FULL = "No space left on device"


def test_full_disk_under_the_state_is_told_and_what_was_accepted_happens_when_there_is_room(
    parts: Parts,
) -> None:
    disk = small_disk(parts.state / "h1", "48m")
    begin(parts)
    before = parts.run(tiny("kept"))
    fill(disk)
    parts.change("submit", tiny("late"))
    said = until("it is told", lambda: [text for kind, text in parts.events("h1") if kind == "agent.trouble"])
    assert "agent.db: database or disk is full; free disk space" in said[0]
    assert "in trouble" in parts.cli("agent", "list")
    assert f"Trouble   {said[0]}" in parts.cli("agent", "show", "h1")
    # An agent that comes now says why it cannot, too; the programs do not care.
    parts.stop("agent")
    before_it = parts.log("agent").stat().st_size
    parts.start("agent")
    assert parts.processes["agent"].wait(60) == 1
    assert "full" in parts.log("agent").read_bytes()[before_it:].decode().splitlines()[-2]
    assert alive(before)
    (disk / "filler").unlink()
    parts.start("agent")
    until("what was accepted runs", lambda: parts.job("late").settled, 60)
    until("all is well", lambda: "in trouble" not in parts.cli("agent", "list"))
    assert parts.run(tiny("kept", env={"A": "2"}))[0].pid == before[0].pid
    end(parts, "kept", "late")


def test_full_disk_under_a_log_drops_output_and_says_how_much_and_the_program_goes_on(parts: Parts) -> None:
    disk = small_disk(parts.state / "h1/logs", "1m")
    begin(parts)
    lines = "i=0; while :; do i=$((i+1)); echo line $i; echo $i > /home/work/at; sleep 0.02; done"
    (pod,) = parts.run(tiny("logged", start=lines))
    fill(disk)
    until(
        "output is dropped",
        lambda: "output of main.stdout is dropped: " + FULL in parts.log("agent").read_text(),
    )

    def counted() -> int:
        return int(parts.cli("exec", pod.pod, "--", "cat", "at") or 0)  # Empty while it is written anew.

    at = until("it has counted", counted)
    until("the program goes on", lambda: counted() > at + 50)
    (disk / "filler").unlink()
    (log,) = disk.glob("logged-*/main.stdout")
    note = until(
        "the log says so", lambda: re.search(r"\[galaxy: (\d+) bytes were dropped: .*\]\n", log.read_text())
    )
    until("output is kept", lambda: log.read_text().rstrip().splitlines()[-1].startswith("line "))
    text = log.read_text()
    # What is missing is just what the note says, to the byte.
    kept = text.replace("\n" + note[0], "").replace(note[0], "")
    last = int(kept.split()[-1]) if kept.endswith("\n") else int(kept.splitlines()[-2].split()[1])
    whole = "".join(f"line {number}\n" for number in range(1, last + 1))
    missing = len(whole) - len(kept[: kept.rindex(f"line {last}\n") + len(f"line {last}\n")])
    assert missing == int(note[1])
    assert [view.pid for view in parts.pods("logged")] == [pod.pid]
    end(parts, "logged")


def test_full_disk_under_packages_is_the_pods_reason_and_it_deploys_when_there_is_room(parts: Parts) -> None:
    disk = small_disk(parts.state / "h1/packages", "1m")
    begin(parts)
    package = {"source": f"file://{archive(parts.folder)}", "version": "1"}
    parts.change("submit", tiny("packed", package=package))
    until("it is told", lambda: FULL in str(parts.pods("packed")), 40)
    until("it is shown", lambda: FULL in parts.cli("job", "show", "packed"))
    assert [path.name for path in disk.iterdir() if not path.name.startswith("tmp.")] == []
    subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
    until("it runs", lambda: parts.job("packed").settled, 60)
    end(parts, "packed")


def test_disk_without_inodes_is_the_pods_reason_and_its_container_is_made_when_there_are_some(
    parts: Parts,
) -> None:
    disk = small_disk(parts.state / "h1", "48m,nr_inodes=500")
    begin(parts)
    (kept,) = parts.run(tiny("kept"))
    fillers = disk / "fillers"
    fillers.mkdir()
    with suppress(OSError):
        for number in range(1000):
            (fillers / str(number)).touch()
    parts.change("submit", tiny("late"))
    until("it is told", lambda: FULL in str(parts.job("late")), 40)
    assert alive([kept])
    shutil.rmtree(fillers)
    until("it runs", lambda: parts.job("late").settled, 90)
    end(parts, "kept", "late")


def begin(parts: Parts) -> None:
    for part in ("resman", "appmaster", "agent"):
        parts.start(part)


def end(parts: Parts, *jobs: str) -> None:
    """Remove the jobs: nothing of their containers is left, so no record was damaged."""
    for name in jobs:
        parts.change("remove", name)
    until("no container is left", lambda: not list((parts.state / "h1/c").iterdir()))


def tiny(name: str, **task: Any) -> dict[str, Any]:
    job = witness(name, **task)
    job["deploy"]["replica"] = 1
    job["pod"]["workspace"] = {"path": "/home/work", "size": "16M", "medium": "tmpfs"}
    return job


def small_disk(place: Path, size: str) -> Path:
    """Mount a file system of ``size`` there; it goes with the test's folder."""
    place.mkdir(parents=True, mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(place)], check=True)
    return place


def fill(disk: Path) -> None:
    """Write until there is no room for a single byte more."""
    with open(disk / "filler", "wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while file.write(os.urandom(size)):
                    pass


def alive(pods: Any) -> bool:
    return all(Path(f"/proc/{pod.pid}").exists() for pod in pods)


def archive(folder: Path) -> Path:
    """Make a package that is 3 MB large, compressed or not."""
    (folder / "data").write_bytes(os.urandom(3_000_000))
    path = folder / "package.tar.gz"
    with tarfile.open(path, "w:gz") as made:
        made.add(folder / "data", arcname="data")
    return path
