"""The child that is forked ahead of a container's first program is isolated like any other program."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from galaxy.container.kernel import processes
from tests.support.hostile import NEVER, ContainerHost, HostileContainer
from tests.support.waiting import until


def children(pid: int) -> list[int]:
    return [stat.pid for stat in processes.process_table().values() if stat.parent == pid]


def container_with_prefork(host: ContainerHost) -> HostileContainer:
    """Return a container whose PID 1 was a warm process with a child that waits."""
    first = host.container("first")
    launcher = processes.parent(first.pid)
    inits = {init.pid for init in host.runtime.running()}
    until("a warm process", lambda: [p for p in children(launcher) if p not in inits and children(p)])
    made = host.container("made", start="")
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


def outside(program: int, init: int) -> list[str]:
    """Return the hierarchies in which ``program`` is outside the cgroup of its container."""
    own, containers = cgroups(program), cgroups(init)
    base = {name: path.removesuffix("/init").rstrip("/") for name, path in containers.items()}
    return [name for name, path in base.items() if not f"{own[name]}/".startswith(f"{path}/")]


def test_waiting_child_has_the_rights_of_pid_1_and_becomes_the_program(host) -> None:
    made = container_with_prefork(host)
    (child,) = children(made.pid)
    until("it has given up capabilities", lambda: facts(child)["CapPrm"] == facts(made.pid)["CapPrm"])
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
    assert outside(child, made.pid) == []  # Device rules apply only inside it.
    assert os.getsid(child) == child
    assert os.getpriority(os.PRIO_PROCESS, child) == 0
    made.destroy()


def test_program_starts_although_the_waiting_child_died(host) -> None:
    made = container_with_prefork(host)
    (child,) = children(made.pid)
    os.kill(child, signal.SIGKILL)
    until("it is gone", lambda: not children(made.pid))
    made.order(start="echo alive; exec sleep 1000", restart=NEVER)
    made.until_state("running")
    made.await_log("alive")
    made.destroy()


def test_restarted_program_runs_like_the_first(host) -> None:
    made = container_with_prefork(host)
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


def test_destroying_a_container_kills_its_waiting_child(host) -> None:
    made = container_with_prefork(host)
    (child,) = children(made.pid)
    made.destroy()
    assert not Path(f"/proc/{child}").exists()
