"""A real agent creates real containers, finds them again after a crash, and leaves nothing behind."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from galaxy.container.kernel.uid_ranges import list_claims
from galaxy.model.api.sessions import ExecIn, ExecSession, LogSession, ReadLogs, unpack_chunks
from galaxy.model.jobspec.spec import PackageSpec
from galaxy.model.messages.container import HOST_FAILED, ObservedContainerState, PortDemand
from galaxy.model.messages.digest import digest_of_container
from galaxy.model.messages.pod import PodState
from galaxy.nexus.session import Frame, FrameHead
from tests.e2e.agent.harness import SCRIPT, Agent, gone, leftovers_of, pod_order, task
from tests.support.archives import make_tar
from tests.support.timeouts import TIMEOUT_FACTOR
from tests.support.waiting import within_limit

POD = "web-abc123.0"
SLEEP = "exec sleep 1000"


def running(agent: Agent, start: str = SLEEP, pod: str = POD) -> int:
    """Create a container and run a program in it; return the pid of its PID 1."""
    agent.create(pod)
    agent.deploy(pod_order(pod, task(start)))
    agent.await_state(pod, ObservedContainerState.READY)
    return agent.await_pod(pod, PodState.RUNNING).pid


def test_created_container_runs_its_program_and_destroy_leaves_nothing(agent: Agent) -> None:
    pid = running(agent)
    assert Path(f"/proc/{pid}/comm").read_text().strip() == "galaxy-appworke"  # The kernel keeps 15 letters.
    agent.destroy(POD)
    agent.await_state(POD, ObservedContainerState.GONE)
    assert gone(pid)
    assert leftovers_of(agent) == []


def test_killed_agent_finds_its_container_again_with_the_same_pid_1(agent: Agent) -> None:
    pid = running(agent)
    agent.kill()
    assert not gone(pid)
    agent.start()
    agent.await_state(POD, ObservedContainerState.READY)
    assert agent.await_pod(POD, PodState.RUNNING).pid == pid
    assert [report.full for report in agent.reports][:2] == [True, True]
    agent.deploy(pod_order(POD, task("exec sleep 999"), generation=2))
    assert agent.await_pod(POD, PodState.RUNNING, generation=2).pid == pid


def test_container_that_died_while_no_agent_ran_is_reported_with_its_signal(agent: Agent) -> None:
    pid = running(agent)
    agent.kill()
    os.kill(pid, signal.SIGKILL)
    agent.start()
    ended = agent.await_state(POD, ObservedContainerState.ENDED)
    assert ended.reason is not None
    assert ended.reason.code == "signal"


def test_container_whose_pid_1_is_killed_has_ended_and_a_later_incarnation_replaces_it(agent: Agent) -> None:
    pid = running(agent)
    os.kill(pid, signal.SIGKILL)
    agent.await_state(POD, ObservedContainerState.ENDED)
    agent.create(POD, 2)
    agent.deploy(pod_order(POD, task(SLEEP), incarnation=2))
    agent.await_state(POD, ObservedContainerState.READY, 2)
    assert agent.await_pod(POD, PodState.RUNNING, incarnation=2).pid != pid


def test_package_from_a_package_root_is_deployed_and_one_from_elsewhere_is_refused(agent: Agent) -> None:
    archive = make_tar(agent.packages / "app.tar.gz", {"run.sh": "#!/bin/sh\nexec sleep 1000\n"})
    sha = hashlib.sha256(archive.read_bytes()).hexdigest()
    package = PackageSpec(source=f"file://{archive}", version="1", sha256=sha)
    agent.create(POD)
    agent.deploy(pod_order(POD, task("exec ./run.sh", package=package)))
    agent.await_pod(POD, PodState.RUNNING)
    outside = make_tar(agent.folder / "app.tar.gz", {"run.sh": "#!/bin/sh\nexec sleep 1000\n"})
    package = PackageSpec(source=f"file://{outside}", version="2")
    agent.deploy(pod_order(POD, task("exec ./run.sh", package=package), generation=2))
    pod = agent.await_pod(POD, PodState.FAILED, generation=2)
    reason = pod.tasks[0].reason
    assert reason is not None
    assert reason.code == HOST_FAILED  # AppMaster tries another host.
    assert "not below a package root" in reason.message


def test_chosen_port_reaches_the_program(agent: Agent) -> None:
    agent.create(POD, ports=(PortDemand(name="http"),))
    start = "exec python3 -m http.server $GALAXY_PORT_HTTP --bind 127.0.0.1"
    agent.deploy(pod_order(POD, task(start)))
    port = agent.await_pod(POD, PodState.RUNNING).ports["http"]
    assert 19100 <= port <= 19999

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    eventually(answers)


def test_finished_batch_pod_is_not_run_again_by_a_later_incarnation_on_this_host(agent: Agent) -> None:
    batch = task("echo ran; exit 0", restart="never")
    agent.create(POD)
    agent.deploy(pod_order(POD, batch, batch=True))
    agent.await_pod(POD, PodState.FINISHED)
    agent.destroy(POD)
    agent.await_state(POD, ObservedContainerState.GONE)
    agent.kill()
    agent.start()
    agent.create(POD, 2)
    agent.deploy(pod_order(POD, batch, 2, incarnation=2, batch=True))
    agent.await_state(POD, ObservedContainerState.READY, 2)
    assert agent.await_pod(POD, PodState.FINISHED, generation=2).incarnation == 2
    assert list((agent.state / "logs" / f"{POD}_2").glob("*.stdout*")) == []


def test_heartbeat_contains_the_digest_of_the_ready_containers(agent: Agent) -> None:
    running(agent)
    eventually(
        lambda: (
            [beat.containers for beat in agent.nexus.heartbeats().heartbeats] == [digest_of_container(POD, 1)]
        )
    )


def test_next_report_contains_the_usage_of_the_container(agent: Agent) -> None:
    running(agent, "exec sh -c 'while :; do :; done'")

    def measured() -> bool:
        agent.deploy(pod_order(POD, task("exec sh -c 'while :; do :; done'")))
        agent.until("a report", lambda: agent.reports)
        agent.reports.clear()
        return agent.pods[POD].cpu_milli > 50 and agent.pods[POD].memory_bytes > 0

    eventually(measured)


def test_logs_are_read_while_the_container_runs_and_after_it_is_destroyed(agent: Agent) -> None:
    running(agent, "echo one; echo two >&2; exec sleep 1000")
    eventually(lambda: {"one", "two"} <= set(logs(agent, "live").split()))
    agent.destroy(POD)
    agent.await_state(POD, ObservedContainerState.GONE)
    assert logs(agent, "after") == "one\ntwo\n"


def test_followed_log_sends_lines_as_they_are_written(agent: Agent) -> None:
    running(agent, "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.1; done")
    read = ReadLogs(target=POD, follow=True, tail=0)
    agent.send("log", LogSession(session="follow", pod=POD, read=read))
    session, text = agent.nexus.session("follow"), ""
    while text.count("\n") < 5:
        item = session.read("out", 30.0)
        assert item
        text += "".join(chunk.text for chunk in unpack_chunks(item))
    lines = text[: text.rindex("\n")]
    numbers = [int(line.split()[1]) for line in lines.splitlines()]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    session.close("out")


def test_exec_runs_a_command_with_input_output_and_status(agent: Agent) -> None:
    running(agent)
    session = agent.nexus.session("exec")
    for frame in (Frame(head=FrameHead(kind="stdin"), data=b"hello\n"), Frame(head=FrameHead(kind="eof"))):
        session.send("in", frame)
    output, status = execute(agent, "exec", ("sh", "-c", "tr a-z A-Z; echo err >&2; exit 7"))
    assert (output, status) == ({"stdout": b"HELLO\n", "stderr": b"err\n"}, 7)


def test_exec_with_a_terminal_has_one_of_the_requested_size(agent: Agent) -> None:
    running(agent)
    output, status = execute(agent, "tty", ("sh", "-c", "test -t 0 && stty size"), tty=True)
    assert (output["stdout"].strip(), status) == (b"33 99", 0)


def test_exec_passes_five_megabytes_of_output_completely(agent: Agent) -> None:
    running(agent)
    output, status = execute(agent, "much", ("sh", "-c", "head -c 5000000 /dev/zero"))
    assert (len(output["stdout"]), status) == (5_000_000, 0)


def test_exec_ends_when_its_client_closes_the_session(agent: Agent) -> None:
    running(agent)
    seconds = unique_duration()
    order = ExecIn(pod=POD, argv=("sleep", seconds))
    agent.send("exec", ExecSession(session="away", pod=POD, exec=order))
    eventually(lambda: sleepers(seconds))
    agent.nexus.session("away").close("out")
    eventually(lambda: not sleepers(seconds))


def test_exec_in_an_unknown_pod_is_answered_with_an_error(agent: Agent) -> None:
    order = ExecIn(pod="none-1.0", argv=("true",))
    agent.until("the first report", lambda: agent.reports)
    agent.send("exec", ExecSession(session="none", pod="none-1.0", exec=order))
    frame = agent.nexus.session("none").receive("out", 30.0)
    assert frame is not None
    assert frame.head.kind == "error"
    assert "not running" in frame.head.message


def test_container_keeps_running_when_its_agent_stops(agent: Agent) -> None:
    pid = running(agent)
    agent.stop()
    assert not gone(pid)


def test_ephemeral_agent_that_stops_leaves_nothing(agent: Agent) -> None:
    agent.until("the first report", lambda: agent.reports)
    agent.stop()
    agent.start("--ephemeral")
    pid = running(agent)
    launcher = parent(pid)
    agent.stop()
    assert gone(pid)
    assert gone(launcher)
    assert leftovers_of(agent) == []


# ---- users


def users(pid_1: int) -> set[int]:
    """Return the uids and gids of a container's programs, once they are no longer those of PID 1."""
    eventually(lambda: users_now(pid_1) - {0})
    return users_now(pid_1) - {0}


def users_now(pid_1: int) -> set[int]:
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            lines = (process / "status").read_text().splitlines()
            facts = dict(line.split(":\t") for line in lines if ":\t" in line)
            if facts["PPid"] == str(pid_1):
                found |= {int(uid) for uid in (*facts["Uid"].split(), *facts["Gid"].split())}
    return found


def test_each_container_has_its_own_user_which_has_a_name_and_home_inside(agent: Agent) -> None:
    one = users(running(agent))
    output, _ = execute(agent, "me", ("sh", "-c", "cd ~; id; pwd; ls -nd ."))
    two = users(running(agent, pod="db-abc123.0"))
    claims = [claim for claim in list_claims() if claim.owner == str(agent.state.resolve())]
    assert len(one) == len(two) == len(claims) == 1
    assert one != two
    (uid,) = one
    assert all(claims[0].low <= uid <= claims[0].high for uid in one | two)
    name, home, listed = output["stdout"].decode().splitlines()
    assert name == f"uid={uid}(galaxy) gid={uid}(galaxy) groups={uid}(galaxy)"
    assert home == "/home/work"
    assert f" {uid} {uid} " in listed


def test_container_keeps_its_user_when_the_agent_is_killed(agent: Agent) -> None:
    pid = running(agent)
    before = users(pid)
    agent.kill()
    agent.start()
    agent.await_state(POD, ObservedContainerState.READY)
    assert users(pid) == before
    assert users(running(agent, pod="db-abc123.0")).isdisjoint(before)


def test_container_with_the_shared_user_keeps_it_under_an_agent_with_a_user_per_container(
    agent: Agent,
) -> None:
    agent.kill()
    agent.start("--shared")
    pid = running(agent)
    assert users(pid) == {65534}
    agent.stop()
    agent.start()
    agent.await_state(POD, ObservedContainerState.READY)
    agent.deploy(pod_order(POD, task("exec sleep 999"), generation=2))
    assert agent.await_pod(POD, PodState.RUNNING, generation=2).pid == pid
    assert users(pid) == {65534}
    assert min(users(running(agent, pod="db-abc123.0"))) >= 65536


def test_killed_launcher_leaves_its_containers_running_and_is_replaced(agent: Agent) -> None:
    pid = running(agent)
    os.kill(parent(pid), signal.SIGKILL)
    agent.create("b-2.0")
    agent.await_state("b-2.0", ObservedContainerState.READY)
    assert not gone(pid)
    agent.destroy(POD)
    agent.await_state(POD, ObservedContainerState.GONE)
    assert gone(pid)


def test_agent_and_launcher_killed_together_leave_the_container_running_and_the_next_agent_finds_it(
    agent: Agent,
) -> None:
    pid = running(agent)
    os.kill(parent(pid), signal.SIGKILL)
    agent.kill()
    agent.start()
    agent.await_state(POD, ObservedContainerState.READY)
    assert agent.await_pod(POD, PodState.RUNNING).pid == pid


def test_second_agent_over_the_same_state_is_refused(agent: Agent) -> None:
    agent.until("the first report", lambda: agent.reports)
    command = [sys.executable, str(SCRIPT), "h2", str(agent.state), agent.cgroup_root, agent.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30 * TIMEOUT_FACTOR, check=False)
    assert "another agent uses the state directory" in done.stderr


def test_order_that_a_full_disk_cannot_record_is_carried_out_once_there_is_space(agent: Agent) -> None:
    agent.until("the first report", lambda: agent.reports)
    agent.end()  # The launcher too: without its state directory no agent could connect to it.
    with small_disk(agent.state):
        agent.start()
        pid = running(agent)
        agent.until("quiet", lambda: agent.reports)
        filler = agent.state / "filler"
        fill(filler)
        agent.create("b-2.0")
        eventually(lambda: "event=agent.unwritable" in agent.log_end())
        assert "b-2.0_1" not in agent.containers
        assert not (agent.state / "c" / "b-2.0_1").exists()
        filler.unlink()
        agent.await_state("b-2.0", ObservedContainerState.READY)
        assert not gone(pid)
        agent.destroy("b-2.0")
        agent.destroy(POD)
        agent.await_state(POD, ObservedContainerState.GONE)
        agent.await_state("b-2.0", ObservedContainerState.GONE)
        agent.end()


def test_idle_agent_stops_within_two_seconds(agent: Agent) -> None:
    agent.until("the first report", lambda: agent.reports)

    def stop() -> float:
        began_s = time.monotonic()
        agent.stop()
        took_s = time.monotonic() - began_s
        agent.start()
        agent.until("the first report", lambda: agent.reports)
        return took_s

    within_limit("stopped", 2.0, stop)  # A second, plus one for a busy machine.


def test_agent_in_process_mode_runs_programs_reports_its_mode_and_leaves_nothing(agent: Agent) -> None:
    agent.until("the first report", lambda: agent.reports)
    agent.stop()
    agent.start("--ephemeral")
    agent.until("its first report", lambda: agent.reports)
    agent.stop()
    agent.start("--plain", "--ephemeral")
    seconds = unique_duration()
    pid = running(agent, f"exec sleep {seconds}")
    infos = [report.info for report in agent.reports if report.info is not None]
    assert {(info.mode, info.enforced, info.cgroup) for info in infos} == {("process", (), "")}
    eventually(lambda: len(sleepers(seconds)) == 1)
    agent.stop()
    assert gone(pid)
    assert sleepers(seconds) == []


def test_containers_run_and_are_created_while_redis_is_away(agent: Agent, redis_server: object) -> None:
    pid = running(agent)
    redis_server.stop()  # type: ignore[attr-defined]
    agent.create("b-2.0")
    agent.await_state("b-2.0", ObservedContainerState.READY)
    assert not gone(pid)
    redis_server.start()  # type: ignore[attr-defined]
    eventually(lambda: agent.nexus.heartbeats().heartbeats)


# ---- helpers


@contextmanager
def small_disk(state: Path) -> Iterator[None]:
    """Mount a file system of 48 MiB at ``state``; unmount it afterwards."""
    shutil.rmtree(state)
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m,mode=700", "tmpfs", str(state)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(state)], check=True)


def fill(path: Path) -> None:
    """Write until not one more byte fits."""
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while file.write(b"x" * size):
                    pass


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def eventually(condition: Callable[[], object], timeout_s: float = 40.0 * TIMEOUT_FACTOR) -> None:
    """Poll until ``condition()`` is true, for state of other processes that has no event."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "the condition did not become true"
        time.sleep(0.05)


def logs(agent: Agent, session: str) -> str:
    name = f"{session}-{time.monotonic_ns()}"
    agent.send("log", LogSession(session=name, pod=POD, read=ReadLogs(target=POD)))
    pipe, text = agent.nexus.session(name), ""
    while item := pipe.read("out", 30.0):
        chunks = unpack_chunks(item)
        assert not any(chunk.error for chunk in chunks)
        text += "".join(chunk.text for chunk in chunks)
        if chunks[-1].end:
            break
    return text


def execute(
    agent: Agent, session: str, argv: tuple[str, ...], *, tty: bool = False
) -> tuple[dict[str, bytes], int]:
    order = ExecIn(pod=POD, argv=argv, tty=tty, rows=33, columns=99)
    agent.send("exec", ExecSession(session=session, pod=POD, exec=order))
    pipe, output = agent.nexus.session(session), {}
    while True:
        frame = pipe.receive("out", 40.0)
        assert frame is not None, agent.log_end()
        assert frame.head.kind not in ("error", "eof"), frame.head.message
        if frame.head.kind == "exit":
            return output, frame.head.status
        output[frame.head.kind] = output.get(frame.head.kind, b"") + frame.data


def unique_duration() -> str:
    """Return a duration that no other test on this machine sleeps for."""
    return str(10**8 + secrets.randbelow(10**8))


def sleepers(seconds: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes() == f"sleep\0{seconds}\0".encode():
                found.append(process.name)
        except OSError:
            continue
    return found
