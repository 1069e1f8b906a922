"""A full disk for state, logs, packages or containers is reported, and work continues once there is space."""

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


def test_full_disk_of_the_state_is_reported_and_accepted_jobs_run_once_there_is_space(
    parts: Parts,
) -> None:
    disk = small_disk(parts.state / "h1", "48m")
    start_all(parts)
    before = parts.run(tiny("kept"))
    fill(disk)
    parts.change("submit", tiny("late"))
    texts = until(
        "it is reported", lambda: [text for kind, text in parts.events("h1") if kind == "agent.trouble"]
    )
    assert "agent.db: database or disk is full; free disk space" in texts[0]
    assert "in trouble" in parts.cli("agent", "list")
    assert f"Trouble   {texts[0]}" in parts.cli("agent", "show", "h1")
    # An agent started now says why it cannot start; the programs continue.
    parts.stop("agent")
    log_bytes = parts.log("agent").stat().st_size
    parts.start("agent")
    assert parts.processes["agent"].wait(60) == 1
    assert "full" in parts.log("agent").read_bytes()[log_bytes:].decode().splitlines()[-2]
    assert alive(before)
    (disk / "filler").unlink()
    parts.start("agent")
    until("the accepted job runs", lambda: parts.job("late").settled, 60)
    until("no agent is in trouble", lambda: "in trouble" not in parts.cli("agent", "list"))
    assert parts.run(tiny("kept", env={"A": "2"}))[0].pid == before[0].pid
    remove_jobs(parts, "kept", "late")


def test_full_disk_of_the_logs_drops_output_and_logs_how_much_while_the_program_continues(
    parts: Parts,
) -> None:
    disk = small_disk(parts.state / "h1/logs", "1m")
    start_all(parts)
    lines = "i=0; while :; do i=$((i+1)); echo line $i; echo $i > /home/work/at; sleep 0.02; done"
    (pod,) = parts.run(tiny("logged", start=lines))
    fill(disk)
    until(
        "output is dropped",
        lambda: "output of main.stdout is dropped: " + FULL in parts.log("agent").read_text(),
    )

    def counted() -> int:
        return int(parts.cli("exec", pod.pod, "--", "cat", "at") or 0)  # Empty while it is being rewritten.

    at = until("it has counted", counted)
    until("the program continues", lambda: counted() > at + 50)
    (disk / "filler").unlink()
    (log,) = disk.glob("logged-*/main.stdout")
    note = until(
        "the log has a note",
        lambda: re.search(r"\[galaxy: (\d+) bytes were dropped: .*\]\n", log.read_text()),
    )
    until("output is kept", lambda: log.read_text().rstrip().splitlines()[-1].startswith("line "))
    text = log.read_text()
    # Exactly as many bytes are missing as the note says.
    kept = text.replace("\n" + note[0], "").replace(note[0], "")
    last = int(kept.split()[-1]) if kept.endswith("\n") else int(kept.splitlines()[-2].split()[1])
    full = "".join(f"line {number}\n" for number in range(1, last + 1))
    missing = len(full) - len(kept[: kept.rindex(f"line {last}\n") + len(f"line {last}\n")])
    assert missing == int(note[1])
    assert [view.pid for view in parts.pods("logged")] == [pod.pid]
    remove_jobs(parts, "logged")


def test_full_disk_of_packages_is_the_pods_reason_and_it_is_deployed_once_there_is_space(
    parts: Parts,
) -> None:
    disk = small_disk(parts.state / "h1/packages", "1m")
    start_all(parts)
    package = {"source": f"file://{archive(parts.folder)}", "version": "1"}
    parts.change("submit", tiny("packed", package=package))
    until("it is reported", lambda: FULL in str(parts.pods("packed")), 40)
    until("the command shows it", lambda: FULL in parts.cli("job", "show", "packed"))
    assert [path.name for path in disk.iterdir() if not path.name.startswith("tmp.")] == []
    subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
    until("it runs", lambda: parts.job("packed").settled, 60)
    remove_jobs(parts, "packed")


def test_disk_without_inodes_is_the_pods_reason_and_its_container_is_created_once_there_are_some(
    parts: Parts,
) -> None:
    disk = small_disk(parts.state / "h1", "48m,nr_inodes=500")
    start_all(parts)
    (kept,) = parts.run(tiny("kept"))
    fillers = disk / "fillers"
    fillers.mkdir()
    with suppress(OSError):
        for number in range(1000):
            (fillers / str(number)).touch()
    parts.change("submit", tiny("late"))
    until("it is reported", lambda: FULL in str(parts.job("late")), 40)
    assert alive([kept])
    shutil.rmtree(fillers)
    until("it runs", lambda: parts.job("late").settled, 90)
    remove_jobs(parts, "kept", "late")


def start_all(parts: Parts) -> None:
    for part in ("resman", "appmaster", "agent"):
        parts.start(part)


def remove_jobs(parts: Parts, *jobs: str) -> None:
    """Remove the jobs and wait until no container is left, which a damaged record would prevent."""
    for name in jobs:
        parts.change("remove", name)
    until("no container is left", lambda: not list((parts.state / "h1/c").iterdir()))


def tiny(name: str, **task: Any) -> dict[str, Any]:
    job = witness(name, **task)
    job["deploy"]["replica"] = 1
    job["pod"]["workspace"] = {"path": "/home/work", "size": "16M", "medium": "tmpfs"}
    return job


def small_disk(place: Path, size: str) -> Path:
    """Mount a file system of ``size`` at ``place``; the fixture unmounts it."""
    place.mkdir(parents=True, mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(place)], check=True)
    return place


def fill(disk: Path) -> None:
    """Write until not one more byte fits."""
    with open(disk / "filler", "wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while file.write(os.urandom(size)):
                    pass


def alive(pods: Any) -> bool:
    return all(Path(f"/proc/{pod.pid}").exists() for pod in pods)


def archive(folder: Path) -> Path:
    """Build a package of 3 MB that does not compress."""
    (folder / "data").write_bytes(os.urandom(3_000_000))
    path = folder / "package.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder / "data", arcname="data")
    return path
