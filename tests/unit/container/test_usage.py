"""Containers without cgroups are measured by their processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from galaxy.container.kernel import processes
from galaxy.container.launcher.directory import INIT_RECORD
from galaxy.container.launcher.protocol import InitRecord
from galaxy.container.usage import UsageMeter
from galaxy.model.base import encode

EATER = """
import subprocess, sys
data = bytearray(64 << 20)
child = "import time; end = time.process_time() + 0.3\\nwhile time.process_time() < end: pass"
subprocess.run([sys.executable, "-S", "-c", child])
print("up", flush=True)
sys.stdin.read()
"""


def test_memory_and_cpu_time_of_the_process_tree_are_measured(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", EATER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == b"up\n"
    directory = tmp_path / "web-1.0_1"
    directory.mkdir()
    record = InitRecord(
        container="web-1.0",
        incarnation=1,
        pid=process.pid,
        start_ticks=processes.start_ticks(process.pid),
        boot=processes.boot_id(),
        mode="process",
        cgroup_root="",
    )
    (directory / INIT_RECORD).write_bytes(encode(record))
    usage = UsageMeter(tmp_path, None).measure("web-1.0", 1)
    assert 64 << 20 <= usage.memory_bytes < 256 << 20
    assert usage.cpu_ns >= 0.25e9  # Its child has ended, and counts.
    assert usage.pids == 1
    process.stdin.close()
    process.wait()
    process.stdout.close()
    gone = UsageMeter(tmp_path, None).measure("web-1.0", 1)
    assert (gone.memory_bytes, gone.cpu_ns) == (0, 0)


def test_process_of_the_same_pid_that_started_later_is_not_measured(tmp_path: Path) -> None:
    directory = tmp_path / "web-1.0_1"
    directory.mkdir()
    record = InitRecord(
        container="web-1.0",
        incarnation=1,
        pid=1,
        start_ticks=time.monotonic_ns(),
        boot="",
        mode="",
        cgroup_root="",
    )
    (directory / INIT_RECORD).write_bytes(encode(record))
    assert UsageMeter(tmp_path, None).measure("web-1.0", 1).memory_bytes == 0
