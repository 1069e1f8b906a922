"""AppWorker's socket: the newest agent gets the current state, and malformed packets are dropped."""

from __future__ import annotations

import pytest

from galaxy.model.messages.pod import PodState, TaskState
from galaxy.model.messages.worker import ExecKill, ExecResize, PackageAnswer, WorkerLog


def test_agent_that_connects_gets_a_report(container):
    report = container.until(lambda pod: True)
    assert (report.state, report.generation, report.pod) == (PodState.PENDING, 0, "web-abc.0")


def test_new_agent_gets_the_current_state_and_the_same_order_changes_nothing(container, spec):
    program = spec("echo up >> ups; exec sleep 60")
    container.order(program)
    container.until_true(lambda: container.text("ups"))
    container.agent.close()
    container.report = None
    container.connect()
    found = container.until(lambda pod: True)
    assert (found.state, found.generation) == (PodState.RUNNING, 1)
    container.order(program, generation=1)
    container.order(program, generation=2, revision=1)
    container.until(lambda pod: pod.generation == 2)
    assert container.text("ups") == "up\n"


def test_connection_of_a_newer_agent_closes_the_older_one(container):
    older = container.agent
    container.connect()
    container.until(lambda pod: True)
    older.settimeout(30)
    while older.recv(65536):
        pass


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"{}", b'{"type":"order"}', b'{"type":"unknown"}', b"[" * 100_000]
)
def test_malformed_packet_is_counted_and_dropped(container, spec, data):
    container.send_raw(data)
    container.send_raw(data)
    assert "number 1" in container.until_packet(WorkerLog)[0].reason.message
    assert "number 2" in container.until_packet(WorkerLog)[0].reason.message
    container.order(spec("exec sleep 60"))
    container.until_task(lambda task: task.state == TaskState.RUNNING)


def test_packets_about_unknown_requests_change_nothing(container, spec):
    for packet in (PackageAnswer(request=99), ExecKill(request=5), ExecResize(request=5, rows=1, columns=1)):
        container.send(packet)
    container.order(spec("exec sleep 60"))
    container.until_task(lambda task: task.state == TaskState.RUNNING)


def test_agent_that_reads_late_eventually_gets_the_latest_state(container, spec):
    for number in range(300):
        container.send_raw(b"malformed")
        container.order(spec(f"exec sleep 6{number}"), run=False)
    assert container.until(lambda pod: pod.generation == 300).state == PodState.STOPPED
