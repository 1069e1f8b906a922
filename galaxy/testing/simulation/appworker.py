"""A simulated container with its AppWorker: the production pod logic over simulated programs.

The start command says what a program does: ``serve`` runs until stopped, ``deaf`` too, but answers no
health check. ``work 3`` ends with code 0 after 3 s, ``fail 2`` with code 1 after 2 s, ``exit 4 after 2``
with code 4 after 2 s. ``broken`` ends at once with code 1; ``flaky 7`` does so the first 7 times that a
container starts it, and then runs until stopped. Any other program runs until stopped.

The source of a package says which hosts can deploy it: ``file:///on/h1,h2/app`` exists on these hosts
only, and ``http://for/h1,h2/app`` is reached from these hosts only. Any other is deployed everywhere.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from galaxy.model.jobspec.spec import TaskSpec
from galaxy.model.messages.container import Demand, Reason
from galaxy.model.messages.pod import Exit, ObservedPod
from galaxy.testing.simulation.world import World
from galaxy.worker_entry.logic.effects import (
    Effect,
    EndContainer,
    KillTask,
    PlacePackages,
    RunProbe,
    RunReload,
    StagePackages,
    StartProgram,
    StopProgram,
)
from galaxy.worker_entry.logic.events import (
    DeployFailed,
    Event,
    OrderReceived,
    PackagesPlaced,
    PackagesStaged,
    ProbeAnswered,
    ProgramEnded,
    ProgramStarted,
    ReloadEnded,
    TaskEmptied,
    Ticked,
)
from galaxy.worker_entry.logic.pod import step, wake_s
from galaxy.worker_entry.logic.records import SupervisedPod
from galaxy.worker_entry.logic.report import observe

USED_SHARE: Final = 0.25
"""How much of what it asks for a container uses."""


class SimulatedAppWorker:
    """One running container. ``on_program`` is called at every start and end of a program."""

    def __init__(
        self,
        world: World,
        *,
        container: str,
        incarnation: int,
        host: str,
        demand: Demand,
        ports: dict[str, int],
        uid: int,
        pid: int,
        listen_s: float = 0.0,
        on_program: Callable[[str, SimulatedAppWorker, str, TaskSpec], None],
        ended: Callable[[SimulatedAppWorker], None],
    ) -> None:
        self.container: Final = container
        self.incarnation: Final = incarnation
        self.host: Final = host
        self.demand = demand
        """What it demands; a resize changes it."""
        self.ports: Final = ports
        self.uid = uid
        self.pid = pid
        self.listen_s = listen_s
        self.alive = True
        self.began_s = world.now_s
        self.running: dict[str, tuple[int, TaskSpec]] = {}
        self.agent: Callable[[ObservedPod], None] | None = None
        self._world = world
        self._on_program = on_program
        self._ended = ended
        self._pod = SupervisedPod(known=tuple(task.name for task in demand.tasks))
        self._events: deque[Event] = deque()
        self._starts: Counter[str] = Counter()
        self._started_s: dict[str, float] = {}
        self._stepping = False
        self._reported: ObservedPod | None = None

    def observe(self) -> ObservedPod:
        return observe(
            self._pod, pod_id=self.container, incarnation=self.incarnation, pid=self.pid, ports=self.ports
        )

    @property
    def cpu_ns(self) -> int:
        """CPU time since its creation: it always uses a quarter of what it asks for."""
        return round(1e6 * self.demand.resources.cpu_milli * USED_SHARE * (self._world.now_s - self.began_s))

    @property
    def memory_bytes(self) -> int:
        """Memory in use: a quarter of what it asks for."""
        return round(self.demand.resources.memory_bytes * USED_SHARE)

    @property
    def generation(self) -> int:
        return self._pod.order.generation if self._pod.order else 0

    def feed(self, event: Event) -> None:
        """Step the pod logic with ``event`` and perform the effects."""
        if not self.alive:
            return
        self._events.append(event)
        if self._stepping:
            return
        self._stepping = True
        while self._events and self.alive:
            before = self._pod.order
            event = self._events.popleft()
            self._pod, effects = step(self._pod, event, self._world.now_s)
            if isinstance(event, OrderReceived) and self._pod.order is not before:
                self._schedule_tick()
            for effect in effects:
                self._perform(effect)
        self._stepping = False
        self._schedule_tick()
        now = self.observe()
        if self.alive and now != self._reported:
            self._reported = now
            if self.agent is not None:
                self.agent(now)

    def die(self) -> None:
        """Kill PID 1 and with it everything in the container."""
        if not self.alive:
            return
        self.alive = False
        for name in list(self.running):
            self._end_program(name)
        self._ended(self)

    def program_dies(self) -> None:
        """End every ``serve`` program with exit code 1."""
        for name, (run, spec) in list(self.running.items()):
            if spec.start.startswith("serve"):
                self._end_program(name)
                self.feed(ProgramEnded(task=name, run=run, exit=Exit(at_s=self._world.now_s, code=1)))

    def _schedule_tick(self) -> None:
        due_s = wake_s(self._pod)
        if due_s is not None:
            self._later(max(due_s - self._world.now_s, 0.001), Ticked())

    def _later(self, delay_s: float, event: Event) -> None:
        self._world.after(delay_s, lambda: self.feed(event))

    def _perform(self, effect: Effect) -> None:
        match effect:
            case StagePackages():
                self._later(0.03, self._staged(effect))
            case PlacePackages():
                self._later(0.005, PackagesPlaced(task=effect.task, deploy=effect.deploy))
            case StartProgram():
                self._start(effect)
            case StopProgram():
                self._world.after(0.05, lambda: self._stop(effect.task, effect.run, 0))
            case KillTask():
                self._world.after(0.01, lambda: self._stop(effect.task, effect.run, None))
            case RunProbe():
                ok = self.listens(effect.task)
                self._later(0.005, ProbeAnswered(task=effect.task, run=effect.run, probe=effect.probe, ok=ok))
            case RunReload():
                self._later(0.05, ReloadEnded(task=effect.task, run=effect.run, status=0))
            case EndContainer():
                self.die()
            case _:
                pass

    def _staged(self, effect: StagePackages) -> Event:
        for package in effect.packages:
            scheme, kind, hosts, *_ = [part for part in package.source.split("/") if part] + [""] * 3
            if kind in ("on", "for") and self.host not in hosts.split(","):
                reason = Reason(code="deploy-failed", message=f"cannot fetch {package.source}")
                retry = scheme != "file:"
                return DeployFailed(
                    task=effect.task, deploy=effect.deploy, reason=reason, retry=retry, elsewhere=True
                )
        return PackagesStaged(task=effect.task, deploy=effect.deploy)

    def _start(self, effect: StartProgram) -> None:
        name, run, spec = effect.task, effect.run, effect.spec
        self.feed(ProgramStarted(task=name, run=run, at_s=self._world.now_s))
        self.running[name] = (run, spec)
        self._started_s[name] = self._world.now_s
        self._on_program("start", self, name, spec)
        self._starts[spec.start] += 1
        end = _end_of(spec.start, self._starts[spec.start])
        if end is not None:
            after_s, code = end
            self._world.after(after_s, lambda: self._exit(name, run, code))

    def listens(self, task: str) -> bool:
        """Return whether the program of ``task`` accepts connections: from ``listen_s`` after its start."""
        program = self.running.get(task)
        if program is None or program[1].start == "deaf":
            return False
        return self._world.now_s >= self._started_s[task] + self.listen_s

    def end(self, code: int, *, task: str = "main") -> None:
        """End the running program of ``task`` with exit code ``code``."""
        self._exit(task, self.running[task][0], code)

    def _exit(self, name: str, run: int, code: int) -> None:
        if self.alive and self.running.get(name, (-1, None))[0] == run:
            if code == 0:
                self._on_program("done", self, name, self.running[name][1])
            self._end_program(name)
            self.feed(ProgramEnded(task=name, run=run, exit=Exit(at_s=self._world.now_s, code=code)))

    def _stop(self, name: str, run: int, code: int | None) -> None:
        if not self.alive:
            return
        if self.running.get(name, (-1, None))[0] == run:
            self._end_program(name)
            signal = None if code is not None else 9
            self.feed(
                ProgramEnded(task=name, run=run, exit=Exit(at_s=self._world.now_s, code=code, signal=signal))
            )
        self.feed(TaskEmptied(task=name, run=run))

    def _end_program(self, name: str) -> None:
        _, spec = self.running.pop(name)
        self._on_program("end", self, name, spec)


def _end_of(start: str, count: int) -> tuple[float, int] | None:
    """Return after how many seconds a program ends, and its exit code; None if it runs until stopped.

    ``count``: how often the container has started it, this time included.
    """
    match start.split():
        case ["work", seconds]:
            return float(seconds), 0
        case ["fail", seconds]:
            return float(seconds), 1
        case ["fail" | "broken", *_]:
            return 0.01, 1
        case ["flaky", failures] if count <= int(failures):
            return 0.01, 1
        case ["exit", code, "after", seconds]:
            return float(seconds), int(code)
        case _:
            return None
