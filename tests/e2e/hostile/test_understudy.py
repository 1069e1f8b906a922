"""The child that is made ahead of a container's first program: no wall is lower for it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.support.hostile import NEVER, Contained, World
from tests.support.waiting import until


def children(pid: int) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(process.name))
    return found


def from_a_spare(world: World) -> Contained:
    """Make a container whose first process was made ahead of time, and has a child that waits."""
    first = world.container("first")
    launcher = int(Path(f"/proc/{first.pid}/stat").read_text().rpartition(")")[2].split()[1])
    ours = {one.pid for one in world.runtime.running()}
    until("a spare", lambda: [pid for pid in children(launcher) if pid not in ours and children(pid)])
    made = world.container("made", start="")
    first.destroy()
    until("its child", lambda: len(children(made.pid)) == 1)
    return made


def facts(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t") for line in lines if ":\t" in line)


def cgroups(pid: int) -> dict[str, str]:
    """Return a process' cgroup by hierarchy."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {line.split(":", 2)[1]: line.split(":", 2)[2] for line in lines}


def strays(program: int, init: int) -> list[str]:
    """Return the hierarchies in which ``program`` is outside the cgroup of PID 1's container."""
    own, containers = cgroups(program), cgroups(init)
    base = {name: path.removesuffix("/init").rstrip("/") for name, path in containers.items()}
    return [name for name, path in base.items() if not f"{own[name]}/".startswith(f"{path}/")]


def test_child_that_waits_has_no_more_rights_than_pid_1_and_becomes_the_program(world) -> None:
    made = from_a_spare(world)
    (child,) = children(made.pid)
    until("it has given up its rights", lambda: facts(child)["CapPrm"] == facts(made.pid)["CapPrm"])
    assert facts(child)["CapBnd"] == facts(made.pid)["CapBnd"]
    for kind in ("mnt", "pid", "uts", "ipc", "cgroup"):
        assert os.readlink(f"/proc/{child}/ns/{kind}") == os.readlink(f"/proc/{made.pid}/ns/{kind}")
    made.order(start="exec sleep 1000", restart=NEVER)
    made.until_state("running")
    until("it is the program", lambda: "sleep" in Path(f"/proc/{child}/comm").read_text())
    program = facts(child)
    assert program["Uid"].split() == [str(made.plan.run_uid)] * 4
    assert [int(program[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [0] * 5
    assert (program["NoNewPrivs"], program["Seccomp"]) == ("1", "2")
    assert len(os.listdir(f"/proc/{child}/fd")) == 3
    assert os.readlink(f"/proc/{child}/root") == os.readlink(f"/proc/{made.pid}/root")
    assert str(child) in (made.cgroup("pids") / "cgroup.procs").read_text().split()
    assert strays(child, made.pid) == []  # The guard of devices is only there.
    assert os.getsid(child) == child
    assert Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[16] == "0"  # Its nice value.
    made.destroy()


def test_child_that_died_while_it_waited_is_not_missed(world) -> None:
    made = from_a_spare(world)
    (child,) = children(made.pid)
    os.kill(child, signal.SIGKILL)
    until("it is gone", lambda: not children(made.pid))
    made.order(start="echo alive; exec sleep 1000", restart=NEVER)
    made.until_state("running")
    made.await_log("alive")
    made.destroy()


def test_program_that_is_started_again_runs_as_the_first_time(world) -> None:
    made = from_a_spare(world)
    made.order(start="echo $$ $(id -u) $(cat /proc/self/oom_score_adj); exec sleep 1000", restart=NEVER)
    made.until_state("running")
    first = made.await_log("1000\n").split()
    made.order(run=False)
    made.until_state("stopped")
    made.order(run=True)
    made.until_state("running")
    again = made.await_log("1000\n", times=2).split()[3:]
    assert first[1:] == again[1:] == [str(made.plan.run_uid), "1000"]
    assert first[0] == "2"
    made.destroy()


def test_container_with_a_child_that_waits_leaves_nothing(world) -> None:
    made = from_a_spare(world)
    (child,) = children(made.pid)
    made.destroy()
    assert not Path(f"/proc/{child}").exists()
