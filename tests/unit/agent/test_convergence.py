"""An agent under lost, doubled and late messages, crashes, lost requests and failing disks, by seed.

It runs on the simulator's bus and machine. The leader here counts incarnations and nothing else, so that
containers come and go faster than ResMan lets them. Never: two incarnations of a container at once, a
destroyed incarnation again, one port or uid twice. Eventually: the running containers are the desired
ones, and the leader knows it.
"""

from __future__ import annotations

import random

import pytest

from galaxy.driver.interfaces import Grant
from galaxy.model.base import Struct
from galaxy.model.messages.agent import AgentReport
from galaxy.model.messages.container import (
    ContainerOrders,
    CreateContainer,
    DestroyContainer,
    ObservedContainerState,
    PortDemand,
)
from galaxy.model.messages.names import CONTAINER_APPLY, RESMAN, agent_queue
from galaxy.model.step import Send
from galaxy.testing.simulation.checkers.safety import Capacity, EpochsNeverFall, SingleIncarnation
from galaxy.testing.simulation.faults import message_faults
from galaxy.testing.simulation.scenario import Scenario
from tests.unit.agent.build import FAR_S, demand, info

SLOTS = 6
UIDS = (1_000_000, 1_000_019)


class Leader:
    """Desires containers, counts incarnations, and resends orders until they are reported."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.epoch = 1
        self.desired: dict[str, int] = {}
        self.latest: dict[str, int] = {}
        self.doomed: set[tuple[str, int]] = set()
        self.known: dict[tuple[str, int], ObservedContainerState] = {}
        self.last = (0, 0)
        """Number of the agent's process, and serial, of the last report."""

    def change(self) -> None:
        slot = f"job-1.{self.dice.randrange(SLOTS)}"
        if slot in self.desired:
            self.doomed.add((slot, self.desired.pop(slot)))
        else:
            self.latest[slot] = self.latest.get(slot, 0) + 1
            self.desired[slot] = self.latest[slot]

    def orders(self) -> ContainerOrders:
        ports = (PortDemand(name="a"), PortDemand(name="b"))
        create = [
            CreateContainer(container=slot, incarnation=number, demand=demand(*ports))
            for slot, number in sorted(self.desired.items())
            if self.known.get((slot, number)) is not ObservedContainerState.READY
        ]
        destroy = [
            DestroyContainer(container=slot, incarnation=number)
            for slot, number in sorted(self.doomed)
            if self.known.get((slot, number)) is not ObservedContainerState.GONE
        ]
        return ContainerOrders(
            agent="h1",
            epoch=self.epoch,
            until_s=FAR_S,
            create=tuple(create),
            destroy=tuple(destroy),
            report=self.dice.random() < 0.1,
        )

    def on_message(self, report: Struct) -> None:
        """Apply a report, unless a newer one has arrived."""
        assert isinstance(report, AgentReport)
        number = int(report.boot.partition("-")[2]), report.serial
        if number <= self.last:
            return
        self.last = number
        if report.full:
            self.known = {
                one: state for one, state in self.known.items() if state is ObservedContainerState.GONE
            }
        for observed in report.containers:
            one = (observed.container, observed.incarnation)
            if self.known.get(one) is not ObservedContainerState.GONE:
                self.known[one] = observed.state
            ended = observed.state is ObservedContainerState.ENDED
            if ended and self.desired.get(observed.container) == observed.incarnation:
                self.latest[observed.container] += 1
                self.desired[observed.container] = self.latest[observed.container]
                self.doomed.add(one)
        for (slot, number), state in self.known.items():
            if state is ObservedContainerState.READY and self.desired.get(slot) != number:
                self.doomed.add((slot, number))

    def ready(self) -> set[tuple[str, int]]:
        return {one for one, state in self.known.items() if state is ObservedContainerState.READY}


class RandomRun:
    """One agent between a leader and its machine; the bus, the machine and the disk have faults."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.leader = Leader(self.dice)
        self.scenario = Scenario(
            seed=seed,
            faults=message_faults(lose=0.2, double=0.3, late_s=3.0),
            resman=None,
            appmaster=None,
            agents=[info(ports=(20000, 20019))],
        )
        grant = self.scenario.nexus.campaign(RESMAN, "test", ttl_s=1e9, address="")
        assert isinstance(grant, Grant)
        self.grant = grant
        self.scenario.bus.on_posted[RESMAN] = self._take_reports
        self.host = self.scenario.hosts["h1"]
        self.host.uids = UIDS
        self.host.restart()
        self.host.disk_fails = lambda: self.dice.random() < 0.1
        self.host.machine.launch_fails = lambda *_: self.dice.random() < 0.05
        self.host.machine.ports_taken = lambda *_: self.dice.random() < 0.05
        self.capacity, self.single, self.epochs = Capacity(), SingleIncarnation(), EpochsNeverFall()
        self.scenario.watchers.append(self._check)

    def _take_reports(self) -> None:
        for report in self.scenario.nexus.take_reports(self.grant).reports:
            self.leader.on_message(report)

    def end_faults(self) -> None:
        self.scenario.world.end_faults()
        self.host.disk_fails = lambda: False
        self.host.machine.launch_fails = self.host.machine.ports_taken = lambda *_: False

    def turn(self, *, faults: bool) -> None:
        """Send orders, and let half a second to one and a half seconds pass."""
        if faults and self.dice.random() < 0.3:
            self.leader.change()
        if faults and self.dice.random() < 0.05:
            self.leader.epoch += 1
        orders = Send(queue=agent_queue("h1"), task=CONTAINER_APPLY, body=self.leader.orders(), id="orders")
        self.scenario.bus.send(orders)
        self.scenario.run(self.dice.random())
        if faults and self.dice.random() < 0.05:
            self._crash()
        workers = self.scenario.workers()
        if faults and workers and self.dice.random() < 0.03:
            workers[self.dice.choice(sorted(workers))].die()
        self.scenario.run(0.5)

    def settled(self) -> bool:
        """Return whether exactly the desired containers run, and the leader knows it."""
        desired = set(self.leader.desired.items())
        running = {(worker.container, worker.incarnation) for worker in self.host.living.values()}
        return self.host.logic is not None and running == desired == self.leader.ready()

    def _crash(self) -> None:
        """Kill the agent, in half of the cases while the launcher works on its requests."""
        if self.host.logic is None:
            return
        if self.dice.random() < 0.5:
            self.host.on_event(self.leader.orders())
            self.scenario.run(0.005)  # The launcher needs 10 ms.
            self.host.lose_requests()
        self.host.crash()

    def _check(self) -> None:
        for checker in (self.capacity, self.single, self.epochs):
            checker.check(self.host)
        uids = [worker.uid for worker in self.host.living.values()]
        assert len(uids) == len(set(uids)), f"a uid is given twice: {uids}"
        assert set(uids) <= set(range(UIDS[0], UIDS[1] + 1))
        again = self.host.machine.destroyed & set(self.host.living)
        assert not again, f"{again} was launched again after its destruction"


@pytest.mark.parametrize("seed", range(40))
def test_running_containers_become_the_desired_ones_whatever_faults_occurred(seed: int) -> None:
    run = RandomRun(seed)
    for _ in range(150):
        run.turn(faults=True)
    run.end_faults()
    turns = 0
    while not run.settled():
        run.turn(faults=False)
        turns += 1
        assert turns < 60, f"never settled: running {sorted(run.host.living)}, desired {run.leader.desired}"
    assert run.host.logic is not None
    assert {entry.container for entry in run.host.logic.hosted_containers()} <= set(run.leader.latest)
    assert sum(run.leader.latest.values()) > 20, "too little has happened"
