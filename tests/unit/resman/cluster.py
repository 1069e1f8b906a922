"""What ResMan's tests work with: ResMan and agents in the simulated world; the test speaks for AppMaster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from galaxy.driver.leadership import Leadership
from galaxy.model.base import Struct, decode, encode
from galaxy.model.messages.agent import AgentInfo, AgentReport
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
    SlotStatus,
    TaskDemand,
    VolumeDemand,
)
from galaxy.model.messages.names import APPMASTER, RESMAN, agent_queue
from galaxy.model.step import Send
from galaxy.model.stored.container import Container
from galaxy.resman.logic import ResMan, ResManConfig
from galaxy.testing.simulation.checkers.scheduler_view import check_view
from galaxy.testing.simulation.faults import NO_FAULTS, Faults
from galaxy.testing.simulation.host import Host
from galaxy.testing.simulation.scenario import Scenario

MIB = 1024**2
GIB = 1024**3
SETTLE_S: Final = 0.3
"""How long an order takes until its containers run and its status has arrived, at most."""
JOIN_WITHIN_S: Final = 30.0


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


def gone(container: str, incarnation: int) -> ObservedContainer:
    """Return what an agent reports of a container that it has destroyed."""
    return ObservedContainer(container=container, incarnation=incarnation, state=ObservedContainerState.GONE)


class Cluster(Scenario):
    """ResMan with hosts. It has no AppMaster: tests order groups, and read what ResMan sends to it.

    After every step, ResMan's view of free resources and ports is checked, and that no incarnation of a
    container was ordered on two agents.
    """

    def __init__(
        self,
        *agents: AgentInfo,
        config: ResManConfig | None = None,
        resman: Callable[[], ResMan] | None = None,
        leadership: type[Leadership] = Leadership,
        seed: int = 1,
        faults: Faults = NO_FAULTS,
    ) -> None:
        """``faults``: the bus has those of messages; a test calls ``inject_faults`` for the others."""
        self.config = config or ResManConfig()
        super().__init__(
            resman=resman or (lambda: ResMan(self.config)),
            appmaster=None,
            agents=agents,
            leadership=leadership,
            seed=seed,
            faults=faults,
        )
        self.statuses: dict[str, GroupStatus] = {}
        """The last status of every group."""
        self.slots: dict[str, SlotStatus] = {}
        """What AppMaster knows of every slot, by container."""
        self._serials: dict[str, int] = {}
        self._created_on: dict[tuple[str, int], str] = {}
        self._checked = 0
        self.bus.on_send = self._on_send
        self.bus.consume(APPMASTER, self._on_message)
        self.watchers.append(self._check)
        self.run_until(self._joined, JOIN_WITHIN_S)
        self.settle()

    # ---- AppMaster's side

    def order(self, group: str, replicas: int, asked: Demand | None = None, **more: object) -> GroupOrders:
        """Send a newer order for a group; it arrives now. Return the message."""
        self._serials[group] = self._serials.get(group, 0) + 1
        order = GroupOrder(
            group=group,
            epoch=1,
            serial=self._serials[group],
            replicas=replicas,
            demand=asked or demand(),
            **more,
        )
        orders = GroupOrders(orders=(order,))
        self.receive(orders)
        return orders

    def receive(self, *events: Struct) -> None:
        """Let messages arrive at ResMan now, as it decodes them; it steps when time passes."""
        for event in events:
            self.leaders[RESMAN].receive(decode(encode(event), type(event)))

    def step(self, *events: Struct) -> list[Send]:
        """Let ResMan step with these events together; return what it sends in that step."""
        before = len(self.sends)
        self.receive(*events)
        ticks = self.leaders[RESMAN].ticks
        while self.leaders[RESMAN].ticks == ticks:
            self.run(0.0002)
        return self.sends[before:]

    # ---- time and faults

    def settle(self) -> None:
        """Run until what was ordered is done, if nothing prevents it."""
        self.run(SETTLE_S)

    def cut_off(self, *hosts: str) -> None:
        """Cut hosts off until ``reconnect``. Messages to them are lost, and do not wait in their queues."""
        for name in hosts:
            self.hosts[name].cut_off(1e9)
        self.bus.loses = lambda send: (
            send.queue in {agent_queue(name) for name, host in self.hosts.items() if host.cut}
        )

    def inject_faults(self) -> None:
        """Apply the faults of hosts and of ResMan; called once per simulated second."""
        self.leaders[RESMAN].inject_faults()
        for host in self.hosts.values():
            host.inject_faults()

    def reconnect(self, *hosts: str) -> None:
        """Reconnect hosts, by default all."""
        for name in hosts or self.hosts:
            self.hosts[name].reconnect()

    # ---- what is observed

    @property
    def resman(self) -> ResMan:
        """The logic that leads."""
        return self.logic(RESMAN)

    def current(self, group: str) -> list[Container]:
        """Return the rows of the current incarnations of a group's slots, by slot."""
        table = self.resman.state.containers
        rows = [table[key] for key in table.where("group", group) if table[key].container == key]
        return sorted(rows, key=lambda row: row.slot)

    def agents_of(self, group: str) -> list[str]:
        """Return the agents of a group's ready containers, by slot."""
        return [row.agent for row in self.current(group) if row.state is ContainerState.READY]

    def ready(self, *hosts: str) -> dict[str, int]:
        """Return every running container of ``hosts``, by default of all, with its incarnation."""
        return {
            worker.container: worker.incarnation
            for name in hosts or self.hosts
            for worker in self.hosts[name].living.values()
        }

    def full_report(self, host: str) -> AgentReport:
        """Return the full report that a host's agent has published last."""
        return next(report for report in reversed(self.reports(host)) if report.full)

    def reports(self, host: str) -> list[AgentReport]:
        """Return every report to ResMan that a host's agent has published, oldest first."""
        return [
            send.body
            for send in self.sends
            if send.queue == RESMAN and isinstance(send.body, AgentReport) and send.body.agent == host
        ]

    def orders_to(self, host: str) -> list[ContainerOrders]:
        """Return every message with commands that ResMan has sent to a host, oldest first."""
        return [
            send.body
            for send in self.sends
            if isinstance(send.body, ContainerOrders) and send.body.agent == host
        ]

    def _joined(self) -> bool:
        if self.leaders[RESMAN].logic is None:
            return False
        state = self.resman.state
        return all(
            name in state.watches and state.heartbeats.at_s(state.watches[name].row) for name in self.hosts
        )

    def _on_message(self, body: Struct) -> None:
        if isinstance(body, GroupStatuses):
            for status in body.statuses:
                self.statuses[status.group] = status
                self.slots.update({slot.container: slot for slot in status.slots})

    def _on_send(self, send: Send) -> None:
        self.sends.append(send)
        if isinstance(send.body, ContainerOrders):
            for order in send.body.create:
                place = self._created_on.setdefault((order.container, order.incarnation), send.body.agent)
                assert place == send.body.agent, f"{order.container}: one incarnation on two agents"

    def _check(self) -> None:
        leader = self.leaders[RESMAN]
        if leader.leads and not leader.must_recover and leader.ticks != self._checked:
            self._checked = leader.ticks
            check_view(self.resman.state)


def hosted(host: Host) -> set[str]:
    """Return the keys of the containers that a host's agent has, in whatever phase."""
    assert host.logic is not None
    return {entry.key for entry in host.logic.hosted_containers()}


def status_of(sends: list[Send]) -> GroupStatus:
    """Return the first group status among messages."""
    return next(one for send in sends if isinstance(send.body, GroupStatuses) for one in send.body.statuses)
