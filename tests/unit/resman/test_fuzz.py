"""A bus that loses, doubles, delays and reorders; agents that restart and vanish; new leaders.

Safety is asserted in every step (``Cluster.check``, ``FakeAgent._create``, ``Cluster.receive``): no
agent is overfull in ResMan's tables or in fact, no port is given twice, no incarnation is on two agents.
Liveness is asserted at the end, when the bus has become calm.
"""

import random

import pytest

from galaxy.model.messages.agent import HeartbeatsRead
from galaxy.model.messages.container import ContainerState, GroupOrder, GroupOrders
from tests.unit.resman.old_cluster import GIB, BadBus, Cluster, demand, info


class RandomRun:
    """A seeded run: orders change, things break, and in the end all is calm."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.cluster = Cluster(*[info(f"h{i}", tags=("ssd",) if i % 2 else ()) for i in range(1, 6)])
        self.bus = BadBus(self.cluster, seed)
        self.orders: dict[str, GroupOrder] = {}
        self.back_s: dict[str, float] = {}

    def second(self) -> None:
        """Let one second pass, with everything that may happen in it."""
        cluster = self.cluster
        for _ in range(2):
            cluster.now_s += 0.5
            self.bus.arrive()
        for name, agent in cluster.agents.items():
            if name not in cluster.away:
                cluster.beats[name] = agent.beat(cluster.now_s)
        cluster.step([HeartbeatsRead(now_s=cluster.now_s, beats=tuple(cluster.beats.values()))])
        for order in self.orders.values():  # AppMaster's audit, often.
            status = cluster.statuses.get(order.group)
            if self.random.random() < 0.2 or status is None or status.serial < order.serial:
                self.bus.send(GroupOrders(orders=(order,)))

    def trouble(self) -> None:
        """Let one of the things happen that do happen."""
        cluster, dice = self.cluster, self.random.random()
        agent = self.random.choice(list(cluster.agents.values()))
        if dice < 0.12:
            self.order()
        elif dice < 0.16 and agent.held and agent.name not in cluster.away:
            self.bus.send(agent.end(self.random.choice(sorted(agent.held))[0]))
        elif dice < 0.19 and agent.name not in cluster.away:
            self.bus.send(agent.restart())
        elif dice < 0.21 and len(cluster.away) < 2:
            cluster.away.add(agent.name)
            self.back_s[agent.name] = cluster.now_s + self.random.choice((5, 15, 50))
        elif dice < 0.22:
            cluster.failover()
        elif dice < 0.23:
            agent.fails = lambda container, incarnation: incarnation % 2 == 1
        for name, at_s in list(self.back_s.items()):
            if cluster.now_s >= at_s:
                cluster.away.discard(name)
                del self.back_s[name]

    def order(self) -> None:
        """Order a group again: another size, some slots finished, or its end."""
        group = f"g-{self.random.randrange(5)}"
        old = self.orders.get(group)
        if old is not None and old.remove:
            return
        number = int(group[2:])
        asked = demand(
            cpu=250 * (1 + number % 3),
            memory=GIB // 2,
            ports=((0, 9000 + number) if number % 2 else (0,)),
            tag="ssd" if number == 3 else "",
            max_per_host=2 if number == 1 else 0,
        )
        replicas = self.random.randrange(4 if number == 3 else 5)  # Three agents have an ssd.
        done = tuple(slot for slot in range(replicas) if number == 4 and self.random.random() < 0.3)
        self.orders[group] = GroupOrder(
            group=group,
            epoch=1,
            serial=old.serial + 1 if old else 1,
            replicas=replicas,
            demand=asked,
            release=done,
            remove=old is not None and self.random.random() < 0.1,
        )

    def calm(self) -> None:
        """End all trouble."""
        self.bus.calm = True
        self.cluster.away.clear()
        self.back_s.clear()
        for agent in self.cluster.agents.values():
            agent.fails = lambda container, incarnation: False

    def desired(self) -> set[str]:
        return {
            f"{order.group}.{slot}"
            for order in self.orders.values()
            if not order.remove
            for slot in range(order.replicas)
            if slot not in order.release
        }


@pytest.mark.parametrize("seed", range(25))
def test_observed_becomes_desired_whatever_the_bus_did(seed: int) -> None:
    run = RandomRun(seed)
    for _ in range(120):
        run.second()
        run.trouble()
    run.calm()
    for _ in range(240):
        run.second()
    cluster = run.cluster
    held = sorted(key[0] for agent in cluster.agents.values() for key in agent.held)
    assert held == sorted(run.desired())
    rows = cluster.resman.state.containers
    stored = {rows[key].container: rows[key].agent for key in rows if rows[key].agent}
    observed = {c: name for name, agent in cluster.agents.items() for c, _ in agent.held}
    assert stored == observed
    for order in run.orders.values():
        assert cluster.statuses[order.group].known is not order.remove
        assert order.remove or cluster.statuses[order.group].serial == order.serial
    for container in run.desired():
        assert cluster.slots[container].state is ContainerState.READY
        assert cluster.slots[container].agent == observed[container]


def test_same_seed_sends_the_same_messages() -> None:
    sent = []
    for _ in range(2):
        run = RandomRun(7)
        for _ in range(60):
            run.second()
            run.trouble()
        sent.append([(send.id, send.queue) for send in run.cluster.sent])
    assert sent[0] == sent[1]
