"""The containers of a simulated host. They outlive its agent and end when the host goes down."""

from __future__ import annotations

from collections.abc import Callable

from galaxy.agent.logic.events import (
    ContainerDestroyed,
    ContainerEnded,
    ContainerLaunched,
    ContainerLaunchFailed,
    ContainerResized,
    PortsUnavailable,
    RunningContainer,
    WorkerConnected,
    WorkerLost,
    WorkerReported,
)
from galaxy.agent.logic.records import HostedContainer
from galaxy.ids import container_key
from galaxy.model.base import Struct
from galaxy.model.jobspec.spec import TaskSpec
from galaxy.model.messages.container import RESIZE_IN_USE, Reason
from galaxy.model.messages.pod import ObservedPod, PodOrder
from galaxy.testing.simulation.appworker import SimulatedAppWorker
from galaxy.testing.simulation.world import World
from galaxy.worker_entry.logic.events import OrderReceived, QuitRequested

ProgramObserver = Callable[[str, SimulatedAppWorker, str, TaskSpec], None]
"""Called at every start and end of a program: what happened, the AppWorker, task name and spec."""
Notify = Callable[[float, Struct], None]
"""Delivers an event to an agent after a delay in seconds."""


class Machine:
    """What the kernel and the launcher of one host do, whether or not its agent runs.

    ``notify`` delivers an event to the agent that runs at that time, if any. ``on_created`` is called
    with container and incarnation before a container starts.
    """

    def __init__(
        self,
        world: World,
        *,
        host: str,
        on_program: ProgramObserver,
        notify: Notify,
        on_created: Callable[[str, int], None],
    ) -> None:
        self.living: dict[str, SimulatedAppWorker] = {}
        self.launch_s = 0.0
        """Extra seconds that creating a container takes."""
        self.listen_s = 0.0
        """Seconds from a program's start until it accepts connections, in containers created from now on."""
        self.launch_fails: Callable[[str, int], bool] = lambda *_: False
        """Whether creating this incarnation of a container fails."""
        self.ports_taken: Callable[[str, int], bool] = lambda *_: False
        """Whether another program has taken the ports of this incarnation when it is created."""
        self.destroyed: set[str] = set()
        """Keys of the containers that were destroyed."""
        self.holds_launches = False
        """Whether every launch waits until ``release_launches``, whatever happens to the agent."""
        self.ended_cpu_ns: dict[str, int] = {}
        """By container key, the CPU time of those that ended by themselves, which their cgroups keep."""
        self.memory_used: dict[str, int] = {}
        """By container: memory in use, below which no limit can be lowered."""
        self.resizes = 0
        """How often limits were set, or could not be."""
        self._world = world
        self._host = host
        self._on_program = on_program
        self._notify = notify
        self._on_created = on_created
        self._pids = 1000
        self._held: dict[str, HostedContainer] = {}

    def running_containers(self) -> tuple[RunningContainer, ...]:
        """Return the containers that a starting agent observes."""
        return tuple(
            RunningContainer(container=one.container, incarnation=one.incarnation, pid=one.pid)
            for one in self.living.values()
        )

    def launch(self, hosted: HostedContainer) -> None:
        """Create a container, as the launcher does."""
        container, incarnation = hosted.container, hosted.incarnation
        if hosted.key in self.living:
            return
        if self.holds_launches:
            self._held[hosted.key] = hosted
            return
        if self._world.strikes("launch_fails") or self.launch_fails(container, incarnation):
            reason = Reason(code="launch", message="simulated failure")
            self._notify(
                0.0, ContainerLaunchFailed(container=container, incarnation=incarnation, reason=reason)
            )
            return
        if self.ports_taken(container, incarnation):
            ports = tuple(sorted(hosted.ports.values()))
            self._notify(0.0, PortsUnavailable(container=container, incarnation=incarnation, ports=ports))
            return
        self._on_created(container, incarnation)
        self._pids += 1
        self.living[hosted.key] = SimulatedAppWorker(
            self._world, container=container, incarnation=incarnation, host=self._host,
            demand=hosted.order.demand, ports=hosted.ports, uid=hosted.uid, pid=self._pids,
            listen_s=self.listen_s, on_program=self._on_program, ended=self._ended,
        )  # fmt: skip
        self._notify(0.0, ContainerLaunched(container=container, incarnation=incarnation, pid=self._pids))

    def resize(self, hosted: HostedContainer, notify: Notify) -> None:
        """Set the limits of a container, except those of memory below what a program uses."""
        worker = self.living.get(hosted.key)
        if worker is None:
            return
        new, reason = hosted.order.demand, None
        used = self.memory_used.get(hosted.container, 0)
        limit = sum(task.memory_bytes for task in new.tasks)
        if limit < used:
            message = f"the task uses {used} bytes, more than {limit}"
            reason = Reason(code=RESIZE_IN_USE, message=message)
        else:
            worker.demand = new
        self.resizes += 1
        event = ContainerResized(
            container=hosted.container, incarnation=hosted.incarnation, size=hosted.order.size, reason=reason
        )
        notify(0.001, event)

    def release_launches(self) -> None:
        """Perform the launches that wait, and hold no more."""
        self.holds_launches = False
        held, self._held = self._held, {}
        for hosted in held.values():
            self.launch(hosted)

    def destroy(self, container: str, incarnation: int) -> None:
        """Kill a container and everything in it."""
        self.destroyed.add(container_key(container, incarnation))
        self._held.pop(container_key(container, incarnation), None)
        worker = self.living.pop(container_key(container, incarnation), None)
        if worker is not None:
            worker.agent = None
            worker.die()
        self._notify(0.0, ContainerDestroyed(container=container, incarnation=incarnation))

    def connect(self, container: str, incarnation: int, notify: Notify) -> None:
        """Forward an AppWorker's reports to an agent from now on."""
        worker = self.living.get(container_key(container, incarnation))
        if worker is None:
            return

        def reported(pod: ObservedPod) -> None:
            notify(0.001, WorkerReported(container=container, incarnation=incarnation, pod=pod))

        worker.agent = reported
        notify(0.001, WorkerConnected(container=container, incarnation=incarnation))
        self._world.after(0.002, lambda: reported(worker.observe()) if worker.alive else None)

    def disconnect(self, container: str, incarnation: int) -> None:
        worker = self.living.get(container_key(container, incarnation))
        if worker is not None:
            worker.agent = None

    def disconnect_all(self) -> None:
        """Drop all connections, because the agent's process is gone."""
        for worker in self.living.values():
            worker.agent = None

    def deliver(self, container: str, incarnation: int, order: PodOrder) -> None:
        worker = self.living.get(container_key(container, incarnation))
        if worker is not None:
            feed = worker.feed
            self._world.after(0.001, lambda: feed(OrderReceived(order=order)))

    def quit(self, container: str, incarnation: int, stop_timeout_s: float) -> None:
        worker = self.living.get(container_key(container, incarnation))
        if worker is not None:
            worker.feed(QuitRequested(stop_timeout_s=stop_timeout_s))

    def inject_faults(self) -> None:
        """Apply the faults of containers and programs; called once per simulated second."""
        for worker in list(self.living.values()):
            if self._world.strikes("worker_dies"):
                worker.die()
            elif self._world.strikes("program_dies"):
                worker.program_dies()

    def power_off(self) -> None:
        for worker in list(self.living.values()):
            worker.die()
        self.living.clear()
        self._held.clear()

    def _ended(self, worker: SimulatedAppWorker) -> None:
        """Report that PID 1 has ended, whatever the cause."""
        key = container_key(worker.container, worker.incarnation)
        if self.living.get(key) is worker:
            del self.living[key]
            self.ended_cpu_ns[key] = worker.cpu_ns
            reason = Reason(code="exit", message="PID 1 ended")
            container, incarnation = worker.container, worker.incarnation
            self._notify(0.0, ContainerEnded(container=container, incarnation=incarnation, reason=reason))
            self._notify(0.0, WorkerLost(container=container, incarnation=incarnation))
