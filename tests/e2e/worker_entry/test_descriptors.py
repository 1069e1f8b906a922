"""AppWorker without a free descriptor: every failure is reported, and everything works again later."""

from __future__ import annotations

import os
import resource

import pytest

from galaxy.model.jobspec.spec import HealthSpec, PackageSpec, PortSpec, RestartSpec
from galaxy.model.messages.pod import TaskState
from galaxy.model.messages.worker import Exec, ExecEnded, ExecStarted
from tests.support.archives import make_tar

QUICK = RestartSpec(policy="always", attempts=-1, delay=0.2, delay_max=0.2)


class Descriptors:
    """Takes away and gives back the free descriptors of a process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = resource.prlimit(pid, resource.RLIMIT_NOFILE)

    def take(self, free: int = 0) -> None:
        used = sorted(int(name) for name in os.listdir(f"/proc/{self._pid}/fd"))
        unused = [fd for fd in range(used[-1] + free + 2) if fd not in used]
        resource.prlimit(self._pid, resource.RLIMIT_NOFILE, (unused[free], self._before[1]))

    def give_back(self) -> None:
        resource.prlimit(self._pid, resource.RLIMIT_NOFILE, self._before)


@pytest.fixture
def descriptors(container):
    return Descriptors(container.pid)


def test_program_starts_once_there_are_descriptors_again(container, spec, descriptors):
    container.order(spec("exec sleep 60"), run=False)
    container.until_task(lambda task: task.state == TaskState.STOPPED)
    descriptors.take()
    container.order(spec("exec sleep 60", restart=QUICK))
    task = container.until_task(lambda task: task.state == TaskState.BACKOFF)
    assert "Too many open files" in task.reason.message
    descriptors.give_back()
    container.until_task(lambda task: task.state == TaskState.RUNNING)


@pytest.mark.parametrize("free", range(6))
def test_package_is_deployed_once_there_are_descriptors_again(container, spec, descriptors, tmp_path, free):
    archive = make_tar(tmp_path / "p.tar", {"a": "1"})
    container.packages["file:///p"] = archive
    container.order(spec("exec sleep 60"), run=False)
    container.until_task(lambda task: task.state == TaskState.STOPPED)
    descriptors.take(free)
    package = PackageSpec(source="file:///p", version="1")
    container.order(spec("exec sleep 60", package=package, restart=QUICK))
    task = container.until_task(lambda task: task.reason is not None or task.state == TaskState.RUNNING)
    descriptors.give_back()
    if task.reason is not None:
        assert task.state in (TaskState.DEPLOYING, TaskState.BACKOFF)
    container.until_task(lambda task: task.state == TaskState.RUNNING)
    assert container.text("a") == "1"


def test_check_fails_without_descriptors_and_passes_with_them(launch, spec):
    container = launch(ports={"web": 1})
    descriptors = Descriptors(container.pid)
    check = HealthSpec(type="tcp", port="web", interval=0.1, failures=1)
    container.order(spec("exec sleep 60", health=check, ports=(PortSpec(name="web"),)))
    container.until_task(lambda task: task.reason and "Connection refused" in task.reason.message)
    descriptors.take()
    container.until_task(lambda task: task.reason and "Too many open files" in task.reason.message)
    descriptors.give_back()
    container.until_task(lambda task: task.reason and "Connection refused" in task.reason.message)


@pytest.mark.parametrize("free", range(5))
def test_terminal_without_descriptors_is_refused_or_works(container, spec, descriptors, free):
    container.order(spec("exec sleep 60"))
    container.until_task(lambda task: task.state == TaskState.RUNNING)
    descriptors.take(free)
    container.send(Exec(request=1, task="main", argv=("true",), tty=True))
    started, files = container.until_packet(ExecStarted)
    for fd in files:
        os.close(fd)
    if started.error:
        assert "Too many open files" in started.error
    else:
        container.until_packet(ExecEnded)
    descriptors.give_back()


def test_stop_without_descriptors_kills_what_remains_once_there_are_some(container, spec, descriptors):
    container.order(spec("trap '' TERM; while :; do sleep 0.1; done"))
    container.until_task(lambda task: task.state == TaskState.RUNNING)
    descriptors.take()
    container.order(spec("exec sleep 60"), run=False, stop_timeout=0.3)
    container.until_task(lambda task: task.state == TaskState.STOPPING)
    descriptors.give_back()
    container.until_task(lambda task: task.state == TaskState.STOPPED)


def test_agent_is_accepted_once_there_are_descriptors_again(container, spec, descriptors):
    container.order(spec("exec sleep 60"))
    container.until_task(lambda task: task.state == TaskState.RUNNING)
    descriptors.take()
    first = container.agent  # Its end would free a descriptor.
    container.connect()
    before = _cpu_ticks(container.pid)
    assert container.receive(0.7) is None
    assert _cpu_ticks(container.pid) - before < 30  # It waits, instead of trying again at once.
    descriptors.give_back()
    assert container.receive(10.0) is not None
    first.close()


def _cpu_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
