"""A real agent process with a real launcher, AppWorkers and Redis, and its cleanup."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from galaxy.container.runtime import Destroyed, Runtime
from galaxy.ids import container_key, parse_container_key
from galaxy.model.base import Struct, decode, encode
from galaxy.model.jobspec.spec import CpuSpec, Medium, MemorySpec, PackageSpec, RestartSpec, TaskSpec
from galaxy.model.messages.agent import AgentReport
from galaxy.model.messages.container import (
    ContainerOrders,
    CreateContainer,
    Demand,
    DestroyContainer,
    ObservedContainer,
    ObservedContainerState,
    PortDemand,
    TaskDemand,
    VolumeDemand,
)
from galaxy.model.messages.pod import ObservedPod, PodOrder, PodOrders
from galaxy.nexus.nexus import Nexus
from galaxy.units import MIB
from tests.support.timeouts import TIMEOUT_FACTOR

FAR_S = 1e12
"""An expiry that no test reaches, by Redis' clock."""
SCRIPT = Path(__file__).with_name("agent_process.py")


class Agent:
    """One agent's state directory and its process, which tests may restart."""

    def __init__(self, folder: Path, url: str) -> None:
        self.name = "h1"
        self.folder = folder
        self.state = folder / "agent"
        self.cgroup_root = f"galaxy-{folder.name[-8:]}"
        self.packages = folder / "packages"
        self.packages.mkdir()
        self.nexus = Nexus.connect(url, name="test")
        self.containers: dict[str, ObservedContainer] = {}
        self.pods: dict[str, ObservedPod] = {}
        self.reports: list[AgentReport] = []
        self.url = url
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def start(self, *flags: str) -> None:
        with open(self.folder / "agent.log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    str(SCRIPT),
                    self.name,
                    str(self.state),
                    self.cgroup_root,
                    self.url,
                    *flags,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._lines = queue.Queue()  # A new queue, so that late lines of an earlier process are dropped.
        threading.Thread(target=self._read, args=(self._process, self._lines), daemon=True).start()

    @staticmethod
    def _read(process: subprocess.Popen[bytes], lines: queue.Queue[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)

    def send(self, kind: str, body: Struct | None = None) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(kind.encode() + b" " + (b"" if body is None else encode(body)) + b"\n")
        self.process.stdin.flush()

    def until(
        self, what: str, condition: Callable[[], object], timeout_s: float = 40.0 * TIMEOUT_FACTOR
    ) -> None:
        """Read reports until ``condition()`` is true; a failure shows the end of the agent's log."""
        end_s = time.monotonic() + timeout_s
        while not condition():
            try:
                line = self._lines.get(timeout=max(0.0, end_s - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"not in {timeout_s:g} s: {what}\n{self.log_end()}") from None
            self._on_line(line)

    def _on_line(self, line: bytes) -> None:
        kind, _, body = line.partition(b" ")
        if kind == b"left":
            assert body.strip() == b"[]", self.log_end()
            return
        report = decode(body, AgentReport)
        self.reports.append(report)
        if report.full and kind == b"resman":
            self.containers.clear()
        if report.full and kind == b"appmaster":
            self.pods.clear()
        for container in report.containers:
            self.containers[container_key(container.container, container.incarnation)] = container
        for pod in report.pods:
            self.pods[pod.pod] = pod

    def create(self, pod: str, incarnation: int = 1, *, ports: tuple[PortDemand, ...] = ()) -> None:
        order = CreateContainer(container=pod, incarnation=incarnation, demand=demand(ports))
        self.send("containers", ContainerOrders(agent=self.name, epoch=1, until_s=FAR_S, create=(order,)))

    def destroy(self, pod: str, incarnation: int = 1) -> None:
        order = DestroyContainer(container=pod, incarnation=incarnation)
        self.send("containers", ContainerOrders(agent=self.name, epoch=1, until_s=FAR_S, destroy=(order,)))

    def deploy(self, order: PodOrder) -> None:
        self.send("pods", PodOrders(agent=self.name, epoch=1, until_s=FAR_S, orders=(order,)))

    def await_state(self, pod: str, state: ObservedContainerState, incarnation: int = 1) -> ObservedContainer:
        key = container_key(pod, incarnation)
        self.until(
            f"{key} is {state}",
            lambda: key in self.containers and self.containers[key].state is state,
        )
        return self.containers[key]

    def await_pod(self, pod: str, state: str, generation: int = 1, *, incarnation: int = 1) -> ObservedPod:
        def is_reached() -> bool:
            observed = self.pods.get(pod)
            if observed is None or observed.state != state:
                return False
            return (observed.incarnation, observed.generation) >= (incarnation, generation)

        self.until(f"pod {pod} is {state}", is_reached)
        return self.pods[pod]

    def kill(self) -> None:
        """Kill the agent and drop its reports."""
        self.process.kill()
        self.process.wait(30)
        self._drop_reports()

    def _drop_reports(self) -> None:
        self.containers.clear()
        self.pods.clear()
        self.reports.clear()
        self._lines = queue.Queue()

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(40)
        self._drop_reports()

    def log_end(self) -> str:
        log = (self.folder / "agent.log").read_text(errors="replace")[-3000:]
        launcher = self.state / "launcher.log"
        return log + (launcher.read_text(errors="replace")[-1000:] if launcher.exists() else "")

    def end(self) -> None:
        """End processes, containers and launcher, whether or not the test passed."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(30)
        if (self.state / "c").exists():
            self._end_launcher()

    def _end_launcher(self) -> None:
        runtime = Runtime(self.state, cgroup_root=self.cgroup_root, mode="full")
        runtime.start()
        waiting = set()
        for directory in (self.state / "c").iterdir():
            container, incarnation = parse_container_key(directory.name) or ("", 0)
            waiting.add((container, incarnation))
            runtime.destroy(container, incarnation)
        end_s = time.monotonic() + 20 * TIMEOUT_FACTOR
        while waiting and time.monotonic() < end_s:
            for event in runtime.events():
                if isinstance(event, Destroyed):
                    waiting.discard((event.container, event.incarnation))
            time.sleep(0.02)
        runtime.stop_launcher()
        runtime.close()


@contextmanager
def one_agent(url: str) -> Iterator[Agent]:
    """Run an agent in a new folder; remove everything afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"galaxy-agent-{uuid.uuid4().hex[:6]}-"))
    agent = Agent(folder, url)
    try:
        agent.start()
        yield agent
    finally:
        agent.end()
        agent.nexus.close()
        left = await_no_launchers(folder)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
    assert not left, f"launchers {left} outlived the test"


def demand(ports: tuple[PortDemand, ...] = ()) -> Demand:
    return Demand(
        tasks=(TaskDemand(name="main", cpu_milli=200, memory_bytes=64 * MIB, pids_max=64),),
        workspace=VolumeDemand(path="/home/work", size_bytes=16 * MIB, medium=Medium.TMPFS),
        ports=ports,
    )


def task(start: str, *, package: PackageSpec | None = None, restart: str = "always") -> TaskSpec:
    return TaskSpec(
        name="main",
        cpu=CpuSpec(millicores=200),
        memory=MemorySpec(size=64 * MIB),
        start=start,
        package=package,
        restart=RestartSpec(policy=restart),
    )


def pod_order(
    pod: str, spec: TaskSpec, generation: int = 1, *, incarnation: int = 1, batch: bool = False
) -> PodOrder:
    return PodOrder(
        pod=pod,
        incarnation=incarnation,
        generation=generation,
        job=pod.rpartition(".")[0],
        index=0,
        revision=1,
        run=True,
        tasks=(spec,),
        stop_timeout=5.0,
        batch=batch,
    )


def leftovers_of(agent: Agent) -> list[str]:
    """Return the mounts, cgroups and processes of an agent's containers on this host."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found = [f"mount {line}" for line in mounts if f"{agent.state}/" in line]
    trees = Path("/sys/fs/cgroup")
    for pattern in (
        f"*/{agent.cgroup_root}/*/",
        f"{agent.cgroup_root}/*/",
    ):  # v1, or v2 mounted beside it; v2 alone.
        found += [f"cgroup {top}" for top in trees.glob(pattern)]
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"/{agent.cgroup_root}/" in (process / "cgroup").read_text():
                found.append(f"process {process.name}")
    return found


def launchers(folder: Path) -> list[int]:
    """Return the pids of launchers for an agent's folder, from their command lines."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            arguments = (process / "cmdline").read_bytes()
            if b"galaxy.container.launcher.server" in arguments and bytes(folder) + b"/" in arguments:
                found.append(int(process.name))
    return found


def await_no_launchers(folder: Path, timeout_s: float = 30.0 * TIMEOUT_FACTOR) -> list[int]:
    """Wait for the launchers of a folder to end; return those that still run after ``timeout_s``."""
    end_s = time.monotonic() + timeout_s
    while left := launchers(folder):
        if time.monotonic() > end_s:
            return left
        time.sleep(0.02)
    return []


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True
