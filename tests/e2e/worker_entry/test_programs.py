"""Programs are started, restarted and stopped with all their processes, and their exits are reported."""

from __future__ import annotations

import itertools
import os
import resource
import signal

import pytest

from galaxy.container.kernel.inherited import at_most
from galaxy.model.jobspec.spec import HealthSpec, RestartSpec, Ulimit
from galaxy.model.messages.pod import PodOrder, PodState, TaskState
from galaxy.model.messages.worker import Order, Quit, TaskCgroup, WorkerLog


def same(value):
    return Ulimit(soft=value, hard=value)


def test_program_gets_its_environment_and_workspace(launch, spec):
    container = launch(ports={"http-main": 21007})
    names = ["PWD", "HOME", "GALAXY_PORT_HTTP_MAIN", "GALAXY_JOB_ID", "GALAXY_POD_ID", "GALAXY_POD_INDEX"]
    names += ["GALAXY_TASK_ID", "GALAXY_WORKSPACE", "GALAXY_HOST", "MINE"]
    start = f'echo "{"|".join(f"${name}" for name in names)}" > env; exec sleep 60'
    container.order(spec(start, env={"MINE": "yes", "GALAXY_HOST": "forged"}))
    container.until_task(lambda task: task.state == TaskState.RUNNING)
    where = str(container.workspace)
    text = container.until_true(lambda: container.text("env"))
    assert text.strip().split("|") == [
        where, where, "21007", "web-abc", "web-abc.0", "0", "web-abc.0/main", where, "h1", "yes",
    ]  # fmt: skip


def test_killed_program_is_restarted_with_reason_and_count(container, spec):
    container.order(spec("echo $$ > pid; exec sleep 60", restart=RestartSpec(delay=0.05)))
    container.until_task(lambda task: task.state == TaskState.RUNNING)
    pid = int(container.until_true(lambda: container.text("pid")))
    os.kill(pid, signal.SIGKILL)
    task = container.until_task(lambda task: task.state == TaskState.RUNNING and task.restarts == 1)
    assert task.last_exit.signal == signal.SIGKILL
    assert not task.last_exit.oom
    assert container.until_true(lambda: container.text("pid").strip() not in ("", str(pid)))


def test_failing_program_is_restarted_with_growing_delays_and_then_fails(container, spec):
    rule = RestartSpec(policy="on-failure", attempts=3, delay=0.1, delay_max=0.2)
    container.order(spec("date +%s.%N >> starts; exit 3", restart=rule))
    task = container.until_task(lambda task: task.state == TaskState.FAILED)
    assert task.restarts == 3
    assert task.last_exit.code == 3
    assert "3 restarts are used up" in task.reason.message
    starts = [float(line) for line in container.text("starts").split()]
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert gaps[0] >= 0.1 and gaps[1] >= 0.2 and gaps[2] >= 0.2


def test_exit_is_reported_with_its_code_or_signal_and_whether_it_dumped_core(container, spec):
    never = RestartSpec(policy="never")
    container.order(spec("exit 7", restart=never))
    assert container.until_task(lambda task: task.state == TaskState.FAILED).last_exit.code == 7
    container.order(spec("kill -TERM $$", restart=never))
    ended = container.until_task(lambda task: task.state == TaskState.FAILED).last_exit
    assert (ended.code, ended.signal, ended.core) == (None, signal.SIGTERM, False)
    container.order(spec("kill -SEGV $$", restart=never))
    ended = container.until_task(lambda task: task.state == TaskState.FAILED).last_exit
    assert (ended.code, ended.signal, ended.core) == (None, signal.SIGSEGV, True)


def test_finished_batch_program_never_runs_again(container, spec):
    batch = spec("echo once >> runs")
    container.order(batch, batch=True)
    container.until(lambda pod: pod.state == PodState.FINISHED)
    container.order(batch, batch=True, generation=1)
    container.order(batch, batch=True, generation=2, revision=1)
    container.until(lambda pod: pod.generation == 2)
    container.order(batch, batch=True, run=False)
    container.order(batch, batch=True)
    found = container.until(lambda pod: pod.generation == 4)
    assert found.state == PodState.FINISHED
    assert container.text("runs") == "once\n"


def test_daemon_in_its_own_session_is_killed_on_stop(container, spec):
    daemon = "setsid sh -c 'trap \"\" TERM; echo $$ > daemon; while :; do sleep 1; done' & exec sleep 60"
    running = spec(daemon)
    container.order(running, stop_timeout=0.3)
    container.until_task(lambda task: task.state == TaskState.RUNNING)
    pid = int(container.until_true(lambda: container.text("daemon")))
    container.order(running, run=False, stop_timeout=0.3)
    container.until(lambda pod: pod.state == PodState.STOPPED)
    assert not os.path.exists(f"/proc/{pid}")


def test_graceful_stop_lets_a_child_of_the_shell_finish(container, spec):
    child = 'trap "sleep 0.3; echo drained > out; exit 0" TERM; echo up > up; while :; do sleep 0.05; done'
    program = f"sh -c '{child}' & wait"
    container.order(spec(program))
    container.until_true(lambda: container.text("up"))
    container.order(spec(program), run=False)
    container.until(lambda pod: pod.state == PodState.STOPPED)
    assert container.text("out") == "drained\n"


def test_stop_command_is_used_instead_of_sigterm(container, spec):
    program = spec(
        "trap 'echo term >> how; exit 0' TERM; trap 'echo usr1 >> how; exit 0' USR1; echo $$ > pid; "
        "while :; do sleep 0.05; done",
        stop="kill -USR1 $(cat pid)",
    )
    container.order(program)
    container.until_true(lambda: container.text("pid"))
    container.order(program, run=False)
    container.until(lambda pod: pod.state == PodState.STOPPED)
    assert container.text("how") == "usr1\n"


def test_failing_stop_command_falls_back_to_sigterm(container, spec):
    program = spec(
        "trap 'echo term > how; exit 0' TERM; echo > up; while :; do sleep 0.05; done", stop="exit 9"
    )
    container.order(program)
    container.until_true(lambda: container.text("up"))
    container.order(program, run=False)
    container.until(lambda pod: pod.state == PodState.STOPPED)
    assert container.text("how") == "term\n"


def test_program_that_ignores_sigterm_is_killed_after_the_timeout(container, spec):
    program = spec("trap '' TERM; echo > up; while :; do sleep 0.05; done")
    container.order(program)
    container.until_true(lambda: container.text("up"))
    container.order(program, run=False, stop_timeout=0.2)
    found = container.until(lambda pod: pod.state == PodState.STOPPED)
    assert found.tasks[0].last_exit.signal == signal.SIGKILL


def test_stopped_pod_starts_again_in_the_same_container(container, spec):
    program = spec("echo up >> ups; exec sleep 60")
    container.order(program)
    container.until_true(lambda: container.text("ups"))
    container.order(program, run=False)
    found = container.until(lambda pod: pod.state == PodState.STOPPED)
    assert found.pid == container.pid
    container.order(program)
    assert container.until(lambda pod: pod.state == PodState.RUNNING).pid == container.pid
    container.until_true(lambda: container.text("ups") == "up\nup\n")


def test_same_order_again_changes_nothing(container, spec):
    program = spec("echo up >> ups; exec sleep 60")
    container.order(program)
    container.until_true(lambda: container.text("ups"))
    container.order(program, generation=1)
    container.order(spec("echo other >> ups"), generation=0)
    container.order(program, generation=2)
    found = container.until(lambda pod: pod.generation == 2)
    assert found.state == PodState.RUNNING
    assert container.text("ups") == "up\n"


def test_update_replaces_the_changed_program_and_leaves_pid_1_and_the_other_program(launch, spec):
    container = launch(tasks=(TaskCgroup(name="main"), TaskCgroup(name="side")))
    side = spec("echo $$ >> side; exec sleep 60", name="side")
    container.order(spec("echo one $$ >> main; exec sleep 60"), side)
    container.until(lambda pod: pod.state == PodState.RUNNING)
    before = container.until_true(lambda: container.text("main") and container.text("side"))
    container.order(spec("echo two $$ >> main; exec sleep 60"), side)
    found = container.until(lambda pod: pod.generation == 2 and pod.state == PodState.RUNNING)
    assert found.pid == container.pid
    lines = container.until_true(lambda: (t := container.text("main").splitlines())[1:] and t)
    assert [line.split()[0] for line in lines] == ["one", "two"]
    assert not os.path.exists(f"/proc/{lines[0].split()[1]}")
    assert container.text("side") == before


def test_order_for_another_container_is_refused(container, spec):
    order = PodOrder(
        pod="other-abc.0",
        incarnation=1,
        generation=5,
        job="o",
        index=0,
        revision=1,
        run=True,
        tasks=(spec("true"),),
    )
    container.send(Order(order=order))
    assert container.until_packet(WorkerLog)[0].reason.code == "foreign-order"
    assert container.report.generation == 0


def test_task_that_the_container_does_not_have_fails_with_a_reason(container, spec):
    container.order(spec("sleep 60", name="stranger"))
    task = container.until(lambda pod: pod.generation == 1).tasks[0]
    assert (task.state, task.reason.code) == (TaskState.FAILED, "unknown-task")
    container.order(spec("sleep 60", name="stranger"), run=False)
    container.until(lambda pod: pod.state == PodState.STOPPED)


@pytest.mark.parametrize("how", ["packet", "signal"])
def test_quit_stops_programs_gracefully_and_ends_the_container(container, spec, how):
    container.order(spec("trap 'echo bye > bye; exit 0' TERM; echo > up; while :; do sleep 0.05; done"))
    container.until_true(lambda: container.text("up"))
    if how == "packet":
        container.send(Quit(stop_timeout=5.0))
    else:
        os.kill(container.pid, signal.SIGTERM)
    assert container.ended() == 0
    assert container.text("bye") == "bye\n"


def test_container_without_a_program_quits_at_once(container):
    container.send(Quit())
    assert container.ended(timeout_s=20.0) == 0  # With a program it could wait for the stop timeout of 30 s.


def test_program_its_check_and_exec_have_the_limits_of_the_task_and_documented_ones(container, spec):
    shown = "ulimit -Sn; ulimit -Hn; ulimit -Sc"
    health = HealthSpec(type="command", command=f"({shown}) > checked", interval=0.1)
    own = {"nofile": Ulimit(soft=1000, hard=2000), "core": same(0)}
    container.order(spec(f"({shown}) > shown; exec sleep 60", ulimits=own, health=health))
    container.until_task(lambda task: task.healthy)
    assert container.text("shown").split() == container.text("checked").split() == ["1000", "2000", "0"]
    container.order(spec(f"({shown}) > shown; echo > again; exec sleep 60", health=health))
    container.until_true(lambda: container.text("again"))
    hard = str(at_most(524_288, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    assert container.text("shown").split()[:2] == [str(min(65_536, int(hard))), hard]


def test_limit_above_what_the_host_gives_fails_the_task(container, spec):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    container.order(spec("exec sleep 60", ulimits={"nofile": same(most + 1)}))
    task = container.until_task(lambda task: task.state == TaskState.FAILED)
    assert f"nofile {most + 1} (at most {most})" in task.reason.message


def test_program_opens_its_standard_streams_by_name(container, spec):
    names = ("/dev/stdout", "/dev/stderr", "/dev/fd/1", "/proc/self/fd/2")
    writes = "; ".join(f"echo {name} >> {name}" for name in names)
    container.order(spec(f"{writes}; cat < /dev/stdin; echo > done; exec sleep 60"))
    container.until_true(lambda: container.text("done"))
    container.until_true(lambda: container.log().split() == ["/dev/stdout", "/dev/fd/1"])
    container.until_true(lambda: container.log("main.stderr").split() == ["/dev/stderr", "/proc/self/fd/2"])
