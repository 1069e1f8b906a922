"""What ResMan works with, for its tests: agents that obey, a bus, a store, and AppMaster's side.

Time is virtual. Nothing of ResMan itself is replaced: it runs as the driver runs it, with every
change committed as bytes, which the next leader reads.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from msgspec.structs import replace

from galaxy.model.base import WIRE_VERSION, decode, encode
from galaxy.model.messages.agent import AgentInfo, AgentReport, Heartbeat, HeartbeatsRead
from galaxy.model.messages.container import (
    ContainerOrders,
    ContainerState,
    Demand,
    GroupOrder,
    GroupOrders,
    GroupStatus,
    GroupStatuses,
    ObservedContainer,
    ObservedContainerState,
    PortDemand,
    Reason,
    TaskDemand,
    VolumeDemand,
)
from galaxy.model.messages.digest import digest_of_container
from galaxy.model.resources import NOTHING, RESOURCES
from galaxy.model.step import Send, Step
from galaxy.resman.logic import ResMan, ResManConfig

MIB = 1024**2
GIB = 1024**3
START_S = 1_000_000.0
ON_AGENT = (
    ObservedContainerState.CREATING,
    ObservedContainerState.READY,
    ObservedContainerState.ENDED,
    ObservedContainerState.DESTROYING,
)


def demand(
    *,
    cpu: int = 1000,
    memory: int = GIB,
    disk: int = GIB,
    ports: tuple[int, ...] = (),
    pools: tuple[str, ...] = (),
    tag: str = "",
    max_per_host: int = 0,
) -> Demand:
    """Return a demand of one task; ``ports`` are numbers, 0 for a dynamic one."""
    return Demand(
        tasks=(TaskDemand(name="main", cpu_milli=cpu, memory_bytes=memory),),
        workspace=VolumeDemand(path="/work", size_bytes=disk),
        ports=tuple(PortDemand(name=f"p{i}", port=port) for i, port in enumerate(ports)),
        pools=pools,
        tag=tag,
        max_per_host=max_per_host,
    )


def info(agent: str, **changes: object) -> AgentInfo:
    """Return an agent of 4 cores, 8 GiB, 100 GiB and 20 dynamic ports."""
    return replace(
        AgentInfo(
            agent=agent,
            address=f"10.0.0.{agent[1:] or 0}",
            boot="boot-1",
            version="1",
            cpu_milli=4000,
            memory_bytes=8 * GIB,
            disk_bytes=100 * GIB,
            ports_low=20000,
            ports_high=20019,
        ),
        **changes,
    )


class FakeAgent:
    """An agent that is durable, idempotent and fenced. It asserts that it is never overfull."""

    def __init__(self, agent: AgentInfo) -> None:
        self.info = agent
        self.name = agent.agent
        self.serial = 0
        self.epoch = 0
        self.held: dict[tuple[str, int], ObservedContainer] = {}
        self.demands: dict[tuple[str, int], Demand] = {}
        self.gone: set[tuple[str, int]] = set()
        self.fails: Callable[[str, int], bool] = lambda container, incarnation: False
        self.slow = False
        self.trouble = ""
        self.wire = WIRE_VERSION

    def obey(self, orders: ContainerOrders) -> list[AgentReport]:
        if orders.epoch < self.epoch:
            return []
        self.epoch = orders.epoch
        changed: list[ObservedContainer] = []
        for order in orders.destroy:
            for key in [k for k in self.held if k[0] == order.container and k[1] <= order.incarnation]:
                self.gone.add(key)
                changed.append(replace(self.held.pop(key), state=ObservedContainerState.GONE))
            self.gone.add((order.container, order.incarnation))
            changed.append(_gone(order.container, order.incarnation))
        for order in orders.create:
            key = (order.container, order.incarnation)
            if key in self.gone:
                changed.append(_gone(*key))
            elif key in self.held:
                changed.append(self.held[key])
            else:
                changed.append(self._create(key, order.demand))
        reports = [self.report(changed)] if changed else []
        return [*reports, self.report(full=True)] if orders.report else reports

    def report(self, changed: list[ObservedContainer] | None = None, *, full: bool = False) -> AgentReport:
        self.serial += 1
        return AgentReport(
            agent=self.name,
            boot=self.info.boot,
            serial=self.serial,
            epoch=self.epoch,
            full=full,
            info=self.info if full else None,
            containers=tuple(self.held.values() if full else changed or ()),
        )

    def beat(self, now_s: float) -> Heartbeat:
        digest = 0
        for (container, incarnation), observed in self.held.items():
            if observed.state is ObservedContainerState.READY:
                digest ^= digest_of_container(container, incarnation)
        return Heartbeat(
            agent=self.name, at_s=now_s, boot=self.info.boot, containers=digest, trouble=self.trouble,
            wire=self.wire,
        )  # fmt: skip

    def restart(self) -> AgentReport:
        """Come up as a new process that finds its containers again."""
        self.info = replace(self.info, boot=f"boot-{int(self.info.boot[5:]) + 1}")
        self.serial = 0
        return self.report(full=True)

    def end(self, container: str) -> AgentReport:
        """Let PID 1 of the container's latest incarnation die."""
        key = max(k for k in self.held if k[0] == container)
        reason = Reason(code="killed", message="PID 1 was killed by signal 9")
        self.held[key] = replace(self.held[key], state=ObservedContainerState.ENDED, reason=reason)
        return self.report([self.held[key]])

    def finish_creating(self) -> AgentReport:
        """Finish everything that a slow agent is creating."""
        changed = []
        for key, observed in self.held.items():
            if observed.state is ObservedContainerState.CREATING:
                self.held[key] = replace(observed, state=ObservedContainerState.READY)
                changed.append(self.held[key])
        return self.report(changed)

    def ready(self) -> dict[str, int]:
        return {
            c: i for (c, i), observed in self.held.items() if observed.state is ObservedContainerState.READY
        }

    def _create(self, key: tuple[str, int], asked: Demand) -> ObservedContainer:
        taken = {port for observed in self.held.values() for port in observed.ports.values()}
        ports = {}
        for port in asked.ports:
            number = port.port or next(
                n for n in range(self.info.ports_low, self.info.ports_high + 1) if n not in taken
            )
            assert number not in taken, f"{self.name}: port {number} is given twice"
            taken.add(number)
            ports[port.name] = number
        failed = self.fails(*key)
        state = (
            ObservedContainerState.ENDED
            if failed
            else ObservedContainerState.CREATING
            if self.slow
            else ObservedContainerState.READY
        )
        self.demands[key] = asked
        self.held[key] = ObservedContainer(
            container=key[0],
            incarnation=key[1],
            state=state,
            ports={} if failed else ports,
            reason=Reason(code="mount", message="no loop device") if failed else None,
            resources=asked.resources,
        )
        total = sum((self.demands[k].resources for k in self.held), start=NOTHING)
        assert total.fits(self.info.resources), f"{self.name} is overfull: {total}"
        return self.held[key]


class Cluster:
    """ResMan with agents on a bus that delivers at once; see ``BadBus`` for a worse one.

    ``away`` names agents that are cut off: they run, but neither receive nor send.
    """

    def __init__(self, *agents: AgentInfo, config: ResManConfig | None = None) -> None:
        self.config = config or ResManConfig()
        self.now_s = START_S
        self.epoch = 1
        self.store: dict[str, dict[str, bytes]] = {}
        self.agents = {one.agent: FakeAgent(one) for one in agents}
        self.away: set[str] = set()
        self.statuses: dict[str, GroupStatus] = {}
        self.slots: dict[str, object] = {}
        self.inbox: list[object] = []
        self.sent: list[Send] = []
        self.created_on: dict[tuple[str, int], str] = {}
        self.beats: dict[str, Heartbeat] = {}
        self.serials: dict[str, int] = {}
        self.resman = ResMan(self.config)
        self.resman.lead(self.epoch, self.now_s)
        self.deliver = self._deliver_now
        self.inbox += [agent.report(full=True) for agent in self.agents.values()]
        self.run(0.0)
        self.read_heartbeats()
        self.run(0.0)

    def read_heartbeats(self) -> None:
        """Have every agent that is reached beat, and ResMan read all heartbeats."""
        for name, agent in self.agents.items():
            if name not in self.away:
                self.beats[name] = agent.beat(self.now_s)
        self.inbox.append(HeartbeatsRead(now_s=self.now_s, beats=tuple(self.beats.values())))

    def failover(self) -> None:
        """Let another ResMan lead, from what is stored."""
        self.epoch += 1
        self.resman = ResMan(self.config)
        for name, table in self.resman.tables.items():
            table.load(self.store.get(name, {}).items())
        self.resman.lead(self.epoch, self.now_s)

    def order(self, group: str, replicas: int, asked: Demand | None = None, **more: object) -> None:
        """Send a newer order for a group."""
        self.serials[group] = self.serials.get(group, 0) + 1
        order = GroupOrder(
            group=group,
            epoch=1,
            serial=self.serials[group],
            replicas=replicas,
            demand=asked or demand(),
            **more,
        )
        self.inbox.append(GroupOrders(orders=(order,)))

    def run(self, seconds: float, step_s: float = 0.5) -> None:
        """Let time pass; every second all heartbeats are read."""
        end_s = self.now_s + seconds
        while True:
            for _ in range(100):
                events, self.inbox = self.inbox, []
                step = self.step(events)
                if not self.inbox and step.wake_s != self.now_s:
                    break
            if self.now_s >= end_s:
                return
            self.now_s += step_s
            for name, agent in self.agents.items():
                if name not in self.away:
                    self.beats[name] = agent.beat(self.now_s)
            if self.now_s == int(self.now_s):
                self.inbox.append(HeartbeatsRead(now_s=self.now_s, beats=tuple(self.beats.values())))

    def step(self, events: list[object]) -> Step:
        step = self.resman.step(self.now_s, [_over_the_wire(event) for event in events])
        self.check()
        for table in self.resman.tables.values():
            stored = self.store.setdefault(table.name, {})
            for change in table.changes():
                if change.value is None:
                    del stored[change.key]
                else:
                    stored[change.key] = change.value
            table.accept()
        for send in step.sends:
            self.sent.append(send)
            self.deliver(send)
        return step

    def receive(self, body: object) -> None:
        """Let a message arrive at an agent or at AppMaster."""
        if isinstance(body, GroupStatuses):
            for status in body.statuses:
                self.statuses[status.group] = status
                for slot in status.slots:
                    self.slots[slot.container] = slot
        elif isinstance(body, ContainerOrders) and body.agent not in self.away:
            for order in body.create:
                place = self.created_on.setdefault((order.container, order.incarnation), body.agent)
                assert place == body.agent, f"{order.container}: one incarnation on two agents"
            self.inbox += self.agents[body.agent].obey(body)

    def check(self) -> None:
        """Assert that no agent is charged more than it has."""
        view = self.resman.state.view
        for row in range(len(view)):
            name = view.names[row]
            for resource, free in zip(RESOURCES, view.free, strict=True):
                assert free[row] >= 0, f"{name} has too little {resource.name}"
            assert view.ports[row] >= 0, f"{name} has too few ports"
        for port, rows in view.port_rows.items():
            if not 20000 <= port <= 20019:  # An agent may reuse these before its report arrives.
                assert all(count == 1 for count in rows.values()), f"port {port} is given twice"

    def current(self, group: str) -> list[object]:
        """Return the rows of the current incarnations of a group's slots, by slot."""
        table = self.resman.state.containers
        rows = [table[key] for key in table.where("group", group) if table[key].container == key]
        return sorted(rows, key=lambda row: row.slot)

    def agents_of(self, group: str) -> list[str]:
        return [row.agent for row in self.current(group) if row.state is ContainerState.READY]

    def ready(self) -> dict[str, int]:
        """Return every ready container of every agent, with its incarnation."""
        return {c: i for agent in self.agents.values() for c, i in agent.ready().items()}

    def _deliver_now(self, send: Send) -> None:
        self.receive(_over_the_wire(send.body))


class BadBus:
    """Loses, doubles, delays and reorders; ``calm`` makes it behave."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.random = random.Random(seed)
        self.calm = False
        self.in_flight: list[tuple[float, object]] = []
        cluster.deliver = lambda send: self.send(_over_the_wire(send.body))

    def send(self, body: object) -> None:
        """Take a message in either direction."""
        if self.calm:
            self.in_flight.append((self.cluster.now_s, body))
            return
        if self.random.random() < 0.2:
            return
        for _ in range(2 if self.random.random() < 0.2 else 1):
            delay_s = self.random.choice((0.0, 0.0, 0.5, 1.0, 3.0, 8.0))
            self.in_flight.append((self.cluster.now_s + delay_s, body))

    def arrive(self) -> None:
        """Let everything arrive that is due, in any order; answers fly in their turn."""
        due = [body for at_s, body in self.in_flight if at_s <= self.cluster.now_s]
        self.in_flight = [(at_s, body) for at_s, body in self.in_flight if at_s > self.cluster.now_s]
        self.random.shuffle(due)
        events = []
        for body in due:
            if isinstance(body, AgentReport | GroupOrders):
                if not (isinstance(body, AgentReport) and body.agent in self.cluster.away):
                    events.append(body)
            else:
                self.cluster.receive(body)
        answers, self.cluster.inbox = self.cluster.inbox, []
        for body in answers:
            if isinstance(body, HeartbeatsRead):
                events.append(body)
            else:
                self.send(body)
        self.cluster.step(events)


def _gone(container: str, incarnation: int) -> ObservedContainer:
    return ObservedContainer(container=container, incarnation=incarnation, state=ObservedContainerState.GONE)


def _over_the_wire(body: object) -> object:
    """Return what a receiver reads of a message."""
    return decode(encode(body), type(body))
