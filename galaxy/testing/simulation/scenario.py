"""A simulated cluster that a unit test drives: no faults unless asked for, and every part under control.

It has the simulator's hosts, bus and store, the production logic of all parts, and leaders that start in
the order of production. What a test cannot reach through the API, it causes where it happens in reality:
on a host (cut off, power off, slow launcher), on a message (lost, late) or on a process (crash).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from galaxy.appmaster.logic import AppMaster
from galaxy.driver.leadership import Leadership
from galaxy.errors import NotFound
from galaxy.model.api.answers import Answer
from galaxy.model.api.request import Request
from galaxy.model.base import Struct, decode
from galaxy.model.messages.agent import AgentInfo
from galaxy.model.messages.names import APPMASTER, RESMAN
from galaxy.model.step import Logic, Send
from galaxy.nexus.in_memory import MemoryNexus
from galaxy.resman.logic import ResMan
from galaxy.testing.simulation.appworker import SimulatedAppWorker
from galaxy.testing.simulation.bus import Bus
from galaxy.testing.simulation.faults import NO_FAULTS, Faults
from galaxy.testing.simulation.host import Host
from galaxy.testing.simulation.leader import LeaderProcess
from galaxy.testing.simulation.world import World

N = TypeVar("N", bound=Struct)

START_WITHIN_S: Final = 15.0
STEP_S: Final = 0.05
"""How often ``run_until`` evaluates its condition, in simulated seconds."""
DELIVER_S: Final = 0.002
"""How long ``deliver`` runs, in simulated seconds: the leader steps, and no answer on the bus arrives."""
REQUEST_WITHIN_S: Final = 30.0


class Scenario:
    """One process for each leader role, and hosts ``h1`` to ``hN``.

    ``sends`` lists every message that any part has sent; tests may clear it.
    """

    def __init__(
        self,
        *,
        hosts: int = 3,
        seed: int = 1,
        faults: Faults = NO_FAULTS,
        resman: Callable[[], Logic] | None = ResMan,
        appmaster: Callable[[], Logic] | None = AppMaster,
        sizes: Sequence[dict[str, int]] = ({},),
        agents: Sequence[AgentInfo] | None = None,
        leadership: type[Leadership] = Leadership,
    ) -> None:
        """``resman`` or ``appmaster`` None: that part is missing, and the test speaks for it.

        ``agents``: facts of the hosts to start, instead of ``hosts`` ordinary ones with ``sizes``.
        ``leadership`` is the class of every leader's leadership.
        """
        self.world = World(seed, faults, float("inf"))
        self.nexus = MemoryNexus(lambda: self.world.now_s)
        self.bus = Bus(self.world, self.nexus)
        self.programs_started: list[tuple[str, int, str]] = []
        """Pod, incarnation and start command of every program start."""
        self.watchers: list[Callable[[], None]] = []
        """Called after every event of the simulated world, so that tests can check what must always hold."""
        self.sends: list[Send] = []
        self.bus.on_send = self.sends.append
        roles = {role: build for role, build in ((RESMAN, resman), (APPMASTER, appmaster)) if build}
        self.leaders = {
            role: LeaderProcess(
                self.world, self.bus, self.nexus, role=role, name=f"{role}-a", build=build, kind=leadership
            )
            for role, build in roles.items()
        }
        self.hosts: dict[str, Host] = {}
        for n in range(1, hosts + 1) if agents is None else ():
            self._start_host(f"h{n}", sizes=sizes[(n - 1) % len(sizes)])
        for info in agents or ():
            self.add_host(info)
        self.run_until(lambda: all(leader.leads for leader in self.leaders.values()), START_WITHIN_S)

    # ---- time

    @property
    def now_s(self) -> float:
        """Unix seconds of simulated time."""
        return self.world.now_s

    def run(self, seconds: float) -> None:
        """Advance simulated time."""
        self.world.run(self.world.elapsed_s + seconds, self._watch)

    def run_until(self, condition: Callable[[], bool], within_s: float) -> float:
        """Advance until ``condition()`` is true; return the simulated seconds that it took.

        Raises:
            AssertionError: it is not true after ``within_s``.
        """
        start_s = self.now_s
        while not condition():
            assert self.now_s - start_s < within_s, f"not true within {within_s} simulated seconds"
            self.run(STEP_S)
        return self.now_s - start_s

    # ---- parts

    def add_host(self, info: AgentInfo) -> Host:
        """Start one more host, with an agent of these facts."""
        return self._start_host(info.agent, info=info)

    def _start_host(
        self, name: str, *, sizes: dict[str, int] | None = None, info: AgentInfo | None = None
    ) -> Host:
        host = Host(
            self.world, self.bus, self.nexus, name=name, on_program=self._on_program, sizes=sizes, info=info
        )
        self.hosts[name] = host
        return host

    def logic(self, role: str) -> Any:
        """Return the logic that leads ``role``."""
        logic = self.leaders[role].logic
        assert logic is not None, f"nobody leads {role}"
        return logic

    def failover(self, role: str) -> None:
        """Crash the leader of ``role`` and run until a new leadership has begun."""
        leader = self.leaders[role]
        epoch = leader.epoch
        leader.crash()
        self.run_until(lambda: leader.leads and leader.epoch > epoch, START_WITHIN_S)

    def deliver(self, role: str, *events: Struct) -> None:
        """Hand ``events`` to the leader of ``role`` as messages that arrive now, and let it step once."""
        for event in events:
            self.leaders[role].receive(event)
        self.run(DELIVER_S)

    def stored(self, role: str, table: str, kind: type[N]) -> dict[str, N]:
        """Return the committed rows of a table, by key."""
        return self.nexus.read_table(role, table, kind)

    def workers(self) -> dict[str, SimulatedAppWorker]:
        """Return every running AppWorker by container."""
        return {worker.container: worker for host in self.hosts.values() for worker in host.living.values()}

    def worker(self, container: str) -> SimulatedAppWorker:
        """Return the running AppWorker of ``container``.

        Raises:
            NotFound: no host runs that container.
        """
        worker = self.workers().get(container)
        if worker is None:
            raise NotFound(f"no host runs container {container}")
        return worker

    def programs(self) -> dict[str, str]:
        """Return the start command of every pod with a running program."""
        return {
            container: spec.start
            for container, worker in self.workers().items()
            for _, spec in worker.running.values()
        }

    def launches_take(self, seconds: float) -> None:
        """Make every host take so many seconds longer to create a container from now on."""
        for host in self.hosts.values():
            host.machine.launch_s = seconds

    # ---- clients

    def request(self, request: Request, role: str = APPMASTER) -> Answer:
        """Send ``request`` until it is answered.

        Raises:
            AssertionError: no answer within ``REQUEST_WITHIN_S``.
        """
        answers: list[bytes] = []

        def answered() -> bool:
            data = self.nexus.await_reply(request.reply, 0.0)
            if data is not None:
                answers.append(data)
            return bool(answers)

        deadline_s = self.now_s + REQUEST_WITHIN_S
        while self.now_s < deadline_s:
            self.bus.send(Send(queue=role, task=request.op, body=request, id=request.key))
            try:
                self.run_until(answered, 2.0)
            except AssertionError:
                continue
            return decode(answers[0], Answer)
        raise AssertionError(f"{request.op} was not answered within {REQUEST_WITHIN_S} simulated seconds")

    def _watch(self) -> None:
        for watcher in self.watchers:
            watcher()

    def _on_program(self, what: str, worker: SimulatedAppWorker, task: str, spec: Any) -> None:
        if what == "start":
            self.programs_started.append((worker.container, worker.incarnation, spec.start))
        self.world.record(f"{worker.container}_{worker.incarnation}/{task} on {worker.host}: {what}")
