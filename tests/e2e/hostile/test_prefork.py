"""The child that PID 1 forks before it has an order is isolated like any other program."""

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
    """Return a container whose PID 1 was a warm process with a preforked child."""
    first = host.container("first")
    launcher = processes.parent(first.pid)
    inits = {init.pid for init in host.runtime.running()}
    until("a warm process", lambda: [p for p in children(launcher) if p not in inits and children(p)])
    container = host.container("preforked", start="")
    first.destroy()
    until("its child", lambda: len(children(container.pid)) == 1)
    return container


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


def test_preforked_child_has_the_rights_of_pid_1_and_becomes_the_program(host) -> None:
    container = container_with_prefork(host)
    (child,) = children(container.pid)
    until("it has given up capabilities", lambda: facts(child)["CapPrm"] == facts(container.pid)["CapPrm"])
    assert facts(child)["CapBnd"] == facts(container.pid)["CapBnd"]
    for kind in ("mnt", "pid", "uts", "ipc", "cgroup"):
        assert os.readlink(f"/proc/{child}/ns/{kind}") == os.readlink(f"/proc/{container.pid}/ns/{kind}")
    container.order(start="exec sleep 1000", restart=NEVER)
    container.until_state("running")
    until("it is the program", lambda: "sleep" in Path(f"/proc/{child}/comm").read_text())
    program = facts(child)
    assert program["Uid"].split() == [str(container.plan.run_uid)] * 4
    assert [int(program[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [0] * 5
    assert (program["NoNewPrivs"], program["Seccomp"]) == ("1", "2")
    assert len(os.listdir(f"/proc/{child}/fd")) == 3
    assert os.readlink(f"/proc/{child}/root") == os.readlink(f"/proc/{container.pid}/root")
    assert str(child) in (container.cgroup("pids") / "cgroup.procs").read_text().split()
    assert outside(child, container.pid) == []  # Device rules apply only inside it.
    assert os.getsid(child) == child
    assert os.getpriority(os.PRIO_PROCESS, child) == 0
    container.destroy()


def test_program_starts_after_the_preforked_child_was_killed(host) -> None:
    container = container_with_prefork(host)
    (child,) = children(container.pid)
    os.kill(child, signal.SIGKILL)
    until("it is gone", lambda: not children(container.pid))
    container.order(start="echo alive; exec sleep 1000", restart=NEVER)
    container.until_state("running")
    container.await_log("alive")
    container.destroy()


def test_restarted_program_runs_like_the_first(host) -> None:
    container = container_with_prefork(host)
    container.order(start="echo $$ $(id -u) $(cat /proc/self/oom_score_adj); exec sleep 1000", restart=NEVER)
    container.until_state("running")
    first = container.await_log("1000\n").split()
    container.order(run=False)
    container.until_state("stopped")
    container.order(run=True)
    container.until_state("running")
    again = container.await_log("1000\n", times=2).split()[3:]
    assert first[1:] == again[1:] == [str(container.plan.run_uid), "1000"]
    assert first[0] == "2"
    container.destroy()


def test_destroying_a_container_kills_its_preforked_child(host) -> None:
    container = container_with_prefork(host)
    (child,) = children(container.pid)
    container.destroy()
    assert not Path(f"/proc/{child}").exists()
