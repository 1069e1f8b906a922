"""Commands in a container, with streams or a terminal, end together with all that they started."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import time

from galaxy.model.jobspec.spec import RestartSpec
from galaxy.model.messages.pod import PodState, TaskState
from galaxy.model.messages.worker import Exec, ExecEnded, ExecKill, ExecResize, ExecStarted


def start(container, spec, **more):
    container.order(spec("exec sleep 60", env={"MINE": "yes"}, **more))
    container.until_task(lambda task: task.state == TaskState.RUNNING)


def run(container, *argv, request=1, stdin=b"", env=None):
    """Run a command without a terminal and return (status, stdout, stderr)."""
    pipes = [os.pipe() for _ in range(3)]
    container.send(
        Exec(request=request, task="main", argv=argv, env=env or {}), (pipes[0][0], pipes[1][1], pipes[2][1])
    )
    for fd in (pipes[0][0], pipes[1][1], pipes[2][1]):
        os.close(fd)
    os.write(pipes[0][1], stdin)
    os.close(pipes[0][1])
    assert container.until_packet(ExecStarted)[0].error == ""
    ended = container.until_packet(ExecEnded)[0]
    texts = []
    for fd, _ in pipes[1:]:
        with open(fd) as file:
            texts.append(file.read())
    return ended.status, *texts


def read_until(terminal, expected, timeout_s=30.0):
    text = b""
    deadline = time.monotonic() + timeout_s
    while expected not in text:
        assert select.select([terminal], [], [], max(deadline - time.monotonic(), 0))[0], text
        text += os.read(terminal, 4096)
    return text


def test_command_has_streams_environment_and_status(container, spec):
    start(container, spec)
    script = 'cat; echo "$MINE $GALAXY_TASK_ID $MORE $GALAXY_HOST" >&2; pwd; exit 5'
    status, out, err = run(
        container, "sh", "-c", script, stdin=b"in\n", env={"MORE": "x", "GALAXY_HOST": "no"}
    )
    assert status == 5
    assert out == f"in\n{container.workspace}\n"
    assert err == "yes web-abc.0/main x h1\n"


def test_killed_command_has_status_128_plus_signal_and_unknown_command_has_127(container, spec):
    start(container, spec)
    assert run(container, "sh", "-c", "kill -9 $$", request=1)[0] == 137
    status, _, err = run(container, "no-such-program", request=2)
    assert status == 127
    assert err == "galaxy: cannot start no-such-program: no such program\n"


def test_command_on_a_terminal_can_be_resized_and_its_exit_ends_the_session(container, spec):
    start(container, spec)
    container.send(Exec(request=7, task="main", argv=("sh",), tty=True, rows=31, columns=99))
    _, files = container.until_packet(ExecStarted)
    terminal = files[0]
    os.write(terminal, b"stty -echo; tty; stty size; echo TERM=$TERM\n")
    text = read_until(terminal, b"TERM=xterm")
    assert b"/dev/pts/" in text and b"31 99" in text
    container.send(ExecResize(request=7, rows=40, columns=120))
    container.until_true(
        lambda: struct.unpack("HHHH", fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8)))[:2] == (40, 120)
    )
    os.write(terminal, b"sleep 100 & echo ready; exit 3\n")
    assert container.until_packet(ExecEnded)[0].status == 3
    os.close(terminal)


def test_everything_a_command_started_ends_with_it(container, spec):
    start(container, spec)
    daemon = "setsid sh -c 'echo $$ > daemon; exec sleep 100' > /dev/null 2>&1"
    script = f"{daemon} & while ! test -s daemon; do :; done"
    assert run(container, "sh", "-c", script)[0] == 0
    assert not os.path.exists(f"/proc/{container.text('daemon').strip()}")


def test_kill_ends_a_command_and_its_daemons(container, spec):
    start(container, spec)
    script = "trap '' TERM HUP; setsid sh -c 'echo $$ > daemon; exec sleep 100' & sleep 100"
    container.send(Exec(request=3, task="main", argv=("sh", "-c", script), tty=True))
    _, files = container.until_packet(ExecStarted)
    pid = container.until_true(lambda: container.text("daemon").strip())
    container.send(ExecKill(request=3))
    assert container.until_packet(ExecEnded)[0].status == 137
    assert not os.path.exists(f"/proc/{pid}")
    os.close(files[0])


def test_commands_end_when_their_agent_is_gone(container, spec):
    start(container, spec)
    container.send(Exec(request=3, task="main", argv=("sh", "-c", "echo $$ > pid; exec sleep 100"), tty=True))
    _, files = container.until_packet(ExecStarted)
    os.close(files[0])
    pid = container.until_true(lambda: container.text("pid").strip())
    container.agent.close()
    container.connect()
    container.until_true(lambda: not os.path.exists(f"/proc/{pid}"))


def test_command_survives_a_restart_of_the_program_but_not_a_stop(container, spec):
    program = spec("echo $$ >> pids; exec sleep 60", restart=RestartSpec(delay=0.05))
    container.order(program)
    first = int(container.until_true(lambda: container.text("pids").strip()))
    container.send(
        Exec(request=4, task="main", argv=("sh", "-c", "echo $$ > mine; exec sleep 100"), tty=True)
    )
    _, files = container.until_packet(ExecStarted)
    mine = container.until_true(lambda: container.text("mine").strip())
    os.kill(first, 9)
    container.until_task(lambda task: task.restarts == 1 and task.state == TaskState.RUNNING)
    assert os.path.exists(f"/proc/{mine}")
    container.order(program, run=False)
    container.until(lambda pod: pod.state == PodState.STOPPED)
    container.until_packet(ExecEnded)
    assert not os.path.exists(f"/proc/{mine}")
    os.close(files[0])


def test_exec_in_an_unknown_task_is_refused(container, spec):
    start(container, spec)
    container.send(Exec(request=9, task="other", argv=("true",), tty=True))
    assert "no task 'other'" in container.until_packet(ExecStarted)[0].error
