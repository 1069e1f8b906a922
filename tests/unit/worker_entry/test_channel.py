"""AppWorker's socket: malformed packets are answered or dropped, and the channel goes on."""

import array
import contextlib
import os
import socket
from pathlib import Path

from galaxy.model.base import decode, encode
from galaxy.model.messages.pod import ObservedPod, PodState
from galaxy.model.messages.worker import Exec, ExecStarted, Report, ToWorker
from galaxy.worker_entry.channel import AgentChannel
from galaxy.worker_entry.event_loop import EventLoop


def test_command_whose_files_are_lost_is_answered_with_an_error(tmp_path: Path) -> None:
    faults: list[Exception] = []
    loop, received = EventLoop(faults.append), list[ToWorker]()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(str(tmp_path / "worker"))
    listening.listen(1)
    AgentChannel(
        loop,
        listening.detach(),
        on_packet=lambda packet, files: received.append(packet),
        on_connected=lambda: None,
        on_lost=lambda: None,
        report=lambda: Report(
            pod=ObservedPod(pod="w.0", incarnation=1, generation=0, state=PodState.PENDING)
        ),
    )
    agent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    agent.settimeout(30)
    agent.connect(str(tmp_path / "worker"))
    files = array.array("i", [0] * 5)
    open_before = len(os.listdir("/proc/self/fd"))
    exec_ = encode(Exec(request=7, task="main", argv=("true",)))
    agent.sendmsg([exec_], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
    answers: list[bytes] = []
    while not any(b"exec-started" in answer for answer in answers):
        loop.after(0.05, lambda: None)
        loop.run_once()
        with contextlib.suppress(BlockingIOError):
            answers.append(agent.recv(100_000, socket.MSG_DONTWAIT))
    started = decode(answers[-1], ExecStarted)
    assert started.request == 7
    assert "no descriptor left" in started.error
    assert received == [] and faults == []
    assert len(os.listdir("/proc/self/fd")) <= open_before + 1
    agent.close()
