"""AppWorker as PID 1 with real cgroups and an unprivileged user: limits hold, and no process escapes."""

from __future__ import annotations

import base64
import os
import signal
import struct
import sys
import time

import msgspec
import pytest

from galaxy.model.jobspec.spec import PackageSpec, RestartSpec
from galaxy.model.messages.pod import PodState, TaskState
from galaxy.model.messages.worker import Exec, ExecEnded, ExecStarted, TaskCgroup
from tests.support.archives import make_tar
from tests.support.timeouts import TIMEOUT_FACTOR

pytestmark = pytest.mark.root

NOBODY = 65534
NEVER = RestartSpec(policy="never")


@pytest.fixture
def contained(launch, cgroups):
    """Make a container with a PID namespace and a cgroup for its task; programs run as nobody."""

    def make(*, limits=None, **config):
        cgroup = cgroups(**(limits or {}))
        container = launch(
            pid_namespace=True, tasks=(cgroup.task("main"),), run_uid=NOBODY, run_gid=NOBODY, **config
        )
        container.cgroup = cgroup
        return container

    return make


def test_program_runs_without_rights_in_its_cgroup(contained, spec):
    container = contained()
    facts = "cat /proc/self/status /proc/self/cgroup /proc/self/oom_score_adj > facts"
    start = f"{facts}; ls /proc/self/fd > fds; echo > done; exec sleep 60"
    container.order(spec(start))
    container.until_true(lambda: container.text("done"))
    facts = container.text("facts")
    status = dict(line.split(":\t", 1) for line in facts.splitlines() if ":\t" in line)
    assert status["Uid"].split() == status["Gid"].split() == [str(NOBODY)] * 4
    assert status["Groups"].strip() == ""
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert int(status["SigBlk"], 16) == int(status["SigIgn"], 16) == 0
    assert container.cgroup.paths[0].name in facts
    assert facts.splitlines()[-1] == "1000"
    assert container.text("fds").split() == ["0", "1", "2", "3"]  # 3 is ls's own.
    assert len(container.cgroup.pids()) == 1


def test_program_over_its_memory_limit_has_oom_in_its_exit_by_the_cgroups_count(contained, spec):
    container = contained(limits={"memory_bytes": 32 * 1024 * 1024})
    eater = f"exec {sys.executable} -S -c 'x = bytearray(200 << 20)'"
    container.order(spec(eater, restart=NEVER))
    task = container.until_task(lambda task: task.state == TaskState.FAILED)
    assert task.last_exit.oom and task.last_exit.signal == signal.SIGKILL
    assert "OOM" in task.reason.message
    container.order(spec(f"{eater.removeprefix('exec ')}; exit $?", restart=NEVER))
    task = container.until_task(lambda task: task.state == TaskState.FAILED)
    assert task.last_exit.oom and task.last_exit.code == 137


EAT = "tail /dev/zero"
"""Takes more and more memory."""


@pytest.mark.parametrize(
    ("end", "code", "number"),
    [("exit 7", 7, None), ("sleep 1; kill -9 $$", None, 9), ("exec sleep 60", None, None)],
)
def test_kill_of_a_child_is_told_with_its_process_and_does_not_change_how_the_program_ends(
    contained, spec, end, code, number
):
    container = contained(limits={"memory_bytes": 32 * 1024 * 1024})
    container.order(spec(f"{EAT}; {EAT}; {end}", restart=NEVER))
    task = container.until_task(lambda task: task.oom_kills is not None and task.oom_kills.count == 2)
    # The names are those of processes that are seen dying; a slow host may see none.
    assert not task.oom_kills.processes or task.oom_kills.processes.startswith("tail (")
    if code or number:
        ended = container.until_task(lambda task: task.state == TaskState.FAILED).last_exit
        assert (ended.code, ended.signal, ended.oom) == (code, number, False)
    else:
        assert task.state == TaskState.RUNNING


@pytest.mark.parametrize("how", ["exit 137", "kill -9 $$"])
def test_exit_that_looks_like_an_oom_kill_is_not_reported_as_one(contained, spec, how):
    container = contained()
    container.order(spec(how, restart=NEVER))
    assert not container.until_task(lambda task: task.state == TaskState.FAILED).last_exit.oom


def test_daemon_in_another_session_is_found_by_its_cgroup_and_killed_on_stop(contained, spec):
    container = contained()
    daemon = (
        "env -i setsid sh -c 'trap \"\" TERM; (setsid sleep 1000 &) ; echo > up; sleep 1000' & exec sleep 60"
    )
    container.order(spec(daemon))
    container.until_true(lambda: (container.workspace / "up").exists())
    assert len(container.cgroup.pids()) >= 3
    container.order(spec(daemon), run=False, stop_timeout=0.2)
    container.until(lambda pod: pod.state == PodState.STOPPED)
    assert container.cgroup.pids() == []


def test_fork_bomb_is_stopped_and_the_pids_limit_is_restored_afterwards(contained, spec):
    container = contained(limits={"pids_max": 48})
    bomb = f"exec {sys.executable} -S -c 'import os\nwhile 1:\n try: os.fork()\n except OSError: pass'"
    container.order(spec(bomb, restart=NEVER))
    container.until_true(lambda: len(container.cgroup.pids()) >= 48)
    container.order(spec(bomb), run=False, stop_timeout=0.1)
    container.until(lambda pod: pod.state == PodState.STOPPED)
    assert container.cgroup.pids() == []
    assert (container.cgroup.paths[0] / "pids.max").read_text() == "48\n"


def test_children_of_a_crashed_program_are_killed_before_it_starts_again(contained, spec):
    container = contained()
    start = "setsid sleep 1000 & echo $$ >> pids; test $(wc -l < pids) -ge 2 && wait; kill -9 $$"
    container.order(spec(start, restart=RestartSpec(delay=0.05)))
    container.until_task(lambda task: task.restarts == 1 and task.state == TaskState.RUNNING)
    container.until_true(lambda: len(container.text("pids").split()) == 2)
    container.until_true(lambda: len(container.cgroup.pids()) == 2)


def test_a_thousand_orphans_are_reaped(contained, spec):
    container = contained(limits={"pids_max": 4000, "memory_bytes": 512 * 1024 * 1024})
    program = f"""exec {sys.executable} -S -c '
import os, time
for n in range(1000):
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.2)
        os._exit(0)
    os.wait()
open("done", "w").close()
time.sleep(1000)'"""
    container.order(spec(program))
    container.until_true(lambda: (container.workspace / "done").exists(), timeout_s=60 * TIMEOUT_FACTOR)

    def zombies():
        with open(f"/proc/{container.pid}/task/{container.pid}/children") as file:
            pids = file.read().split()
        return [pid for pid in pids if state_of(pid) == "Z"]

    container.until_true(lambda: not zombies() and len(container.cgroup.pids()) == 1)
    assert container.until(lambda pod: True).tasks[0].restarts == 0


def state_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # It ended while we read.
        return ""


def test_package_is_unpacked_with_the_programs_rights(contained, root, spec):
    container = contained()
    container.packages["http://x/a"] = make_tar(root / "a", {"bin/run": "exec sleep 60"})
    container.order(spec("exec sh bin/run", package=PackageSpec(source="http://x/a", version="1")))
    container.until_task(lambda task: task.state == TaskState.RUNNING)
    assert (container.workspace / "bin/run").stat().st_uid == NOBODY
    outside = root / "outside"
    outside.mkdir()
    package = PackageSpec(source="http://x/a", version="1", path=str(outside))
    container.order(spec("exec sleep 60", package=package))
    task = container.until_task(lambda task: task.state == TaskState.FAILED)
    assert "Permission denied" in task.reason.message
    assert list(outside.iterdir()) == []


def test_exec_runs_in_the_tasks_cgroup_as_its_user_and_its_daemons_are_killed_at_its_end(contained, spec):
    container = contained()
    container.order(spec("exec sleep 60"))
    container.until_task(lambda task: task.state == TaskState.RUNNING)
    script = "id -u > who; cat /proc/self/cgroup > cgroup; echo > /dev/tty; (setsid sleep 1000 &); exit 0"
    container.send(Exec(request=1, task="main", argv=("sh", "-c", script), tty=True))
    _, files = container.until_packet(ExecStarted)
    assert container.until_packet(ExecEnded)[0].status == 0
    os.close(files[0])
    assert container.text("who") == f"{NOBODY}\n"
    assert container.cgroup.paths[0].name in container.text("cgroup")
    assert len(container.cgroup.pids()) == 1


def test_program_runs_with_the_seccomp_filter_of_its_container(contained, spec):
    # BPF: load the system call's number; mkdir (83 on x86-64) gives EACCES, the rest is allowed.
    if os.uname().machine != "x86_64":
        pytest.skip("the filter below is for x86-64")
    rows = [(0x20, 0, 0, 0), (0x15, 0, 1, 83), (0x06, 0, 0, 0x0005000D), (0x06, 0, 0, 0x7FFF0000)]
    program = base64.b64encode(b"".join(struct.pack("HBBI", *row) for row in rows)).decode()
    container = contained(seccomp_program=program, seccomp=True)
    container.order(spec("mkdir no 2> why; echo > done; exec sleep 60"))
    container.until_true(lambda: container.text("done"))
    assert "Permission denied" in container.text("why")
    assert not (container.workspace / "no").exists()


def test_end_of_appworker_ends_the_container(contained, spec):
    container = contained()
    container.order(spec("setsid sleep 1000 & trap '' TERM; echo > up; while :; do sleep 0.1; done"))
    container.until_true(lambda: (container.workspace / "up").exists())
    os.kill(container.pid, signal.SIGKILL)
    container.ended()
    deadline = time.monotonic() + 30 * TIMEOUT_FACTOR
    while container.cgroup.pids():
        assert time.monotonic() < deadline


def test_processes_of_a_container_without_cgroups_are_found_by_ancestry_and_stopped(launch, spec):
    container = launch(pid_namespace=True, run_uid=NOBODY, run_gid=NOBODY, tasks=(TaskCgroup(name="main"),))
    daemon = "sh -c 'echo $$ > daemon; exec sleep 1000' & exec sleep 60"
    container.order(spec(daemon))
    container.until_true(lambda: container.text("daemon"))
    container.order(spec(daemon), run=False, stop_timeout=0.2)
    container.until(lambda pod: pod.state == PodState.STOPPED)
    assert msgspec.to_builtins(container.report)["tasks"][0]["state"] == "stopped"


def test_program_of_another_user_opens_its_standard_streams_by_name(contained, spec):
    container = contained()
    names = ("/dev/stdout", "/dev/stderr", "/dev/fd/1", "/proc/self/fd/2")
    writes = "; ".join(f"echo {name} > {name} && echo {name} >> {name}" for name in names)
    reads = "cat /dev/stdout < /dev/stdin && echo read > stolen"
    container.order(spec(f"{writes}; ({reads}) 2>/dev/null; echo > done; exec sleep 60"))
    container.until_true(lambda: container.text("done"))
    out, err = names[::2], names[1::2]
    container.until_true(lambda: sorted(container.log().split()) == sorted(2 * out))
    container.until_true(lambda: sorted(container.log("main.stderr").split()) == sorted(2 * err))
    assert not container.text("stolen")  # Its own output can be written, not read.


def test_command_of_another_user_opens_its_standard_streams_by_name(contained, spec):
    container = contained()
    container.order(spec("exec sleep 60"))
    container.until_task(lambda task: task.state == TaskState.RUNNING)
    pipes = [os.pipe() for _ in range(3)]
    script = "cat /dev/stdin > /dev/stdout; echo b > /dev/stderr"
    files = (pipes[0][0], pipes[1][1], pipes[2][1])
    container.send(Exec(request=1, task="main", argv=("sh", "-c", script)), files)
    for fd in files:
        os.close(fd)
    os.write(pipes[0][1], b"a\n")
    os.close(pipes[0][1])
    assert container.until_packet(ExecEnded)[0].status == 0
    for (fd, _), text in zip(pipes[1:], (b"a\n", b"b\n"), strict=True):
        assert os.read(fd, 100) == text
        os.close(fd)
