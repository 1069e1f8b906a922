"""A cluster and its programs do not depend on the shell that starts the cluster."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support.waiting import until

from .conftest import GALAXY, Cluster, job_file

HOSTILE = """
umask 077
ulimit -S -n 256; ulimit -S -s 1024; ulimit -S -f 200; ulimit -S -c 0
trap '' PIPE CHLD USR2 HUP INT
exec 9>leaked
exec nice -n 10 "$@" <&- >&- 2>errors
"""
ENVIRONMENT = {
    "PYTHONWARNINGS": "error",
    "PYTHONIOENCODING": "ascii",
    "PYTHONSTARTUP": "/nowhere",
    "MALLOC_PERTURB_": "165",
    "LD_BIND_NOW": "1",
    "LC_ALL": "C",
    "FOREIGN": "1",
}
STATE = """
umask; nice; ulimit -Sn; ulimit -Ss; ulimit -Sf; ulimit -Sc; cat /proc/self/oom_score_adj
grep -hE 'Sig(Blk|Ign)' /proc/self/status; env | grep -cE '^(PYTHON|LD_|MALLOC_|LC_|FOREIGN)'
echo named > /dev/stdout; touch file; ls -l /proc/self/fd | grep -c leaked; echo end
exec sleep 1000
"""


def test_programs_and_parts_have_documented_values_whatever_the_shell_has(
    new_cluster: Callable[[], Cluster], tmp_path: Path
) -> None:
    own = new_cluster()
    command = [*GALAXY, "up", "--detach", "--no-web", "--dir", str(own.folder)]
    up = subprocess.run(
        ["/bin/sh", "-c", HOSTILE, "sh", *command], cwd=tmp_path, env=own.environ | ENVIRONMENT, timeout=100
    )
    assert up.returncode == 0, (tmp_path / "errors").read_text() + own.log_tails()
    own.run("job", "run", str(job_file(tmp_path, "state", task={"start": STATE})))
    (log,) = own.outputs("state")
    text = until("the program has shown its state", lambda: "end" in log.read_text() and log.read_text())
    lines = text.split()
    assert lines[:2] == ["0022", "0"], text
    assert int(lines[2]) > 256 and lines[3:7] == ["8192", "unlimited", str(256 << 11), "1000"], text
    assert lines[7:11] == ["SigBlk:", 16 * "0", "SigIgn:", 16 * "0"], text
    assert lines[11:] == ["0", "named", "0", "end"], text
    for part in ("resman", "appmaster", "agent"):
        assert state_of(own.pid(part)) == {"umask": "0022", "nice": "0", "leaked": "0", "cwd": "/"}, part
    assert own.down().returncode == 0


def state_of(pid: int) -> dict[str, str]:
    """Return what a process has inherited."""
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    opened = [os.readlink(each) for each in (process / "fd").iterdir() if os.path.lexists(each)]
    return {
        "umask": status["Umask"].strip(),
        "nice": str(os.getpriority(os.PRIO_PROCESS, pid)),
        "leaked": str(sum(target.endswith("/leaked") for target in opened)),
        "cwd": os.readlink(process / "cwd"),
    }
