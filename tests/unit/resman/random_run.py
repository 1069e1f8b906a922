"""A random run of ResMan: orders of all kinds, under the simulator's faults."""

from __future__ import annotations

import random
from typing import Final

from galaxy.model.messages.container import ContainerState, GroupOrder, GroupOrders
from galaxy.model.messages.names import GROUP_APPLY, RESMAN
from galaxy.model.step import Send
from galaxy.testing.simulation.checkers.safety import Capacity, EpochsNeverFall, SingleIncarnation
from galaxy.testing.simulation.faults import Faults, faults_of
from tests.unit.resman.cluster import GIB, Cluster, demand, info

HOSTS: Final = 5


class RandomRun:
    """Orders that seeds of the whole cluster do not have: tags, released slots, demands that change.

    AppMaster's side repeats orders until their status has arrived, and some of them later as well.
    """

    def __init__(self, seed: int, faults: Faults | None = None) -> None:
        self.random = random.Random(seed)
        self.cluster = Cluster(
            *[info(f"h{i}", tags=("ssd",) if i % 2 else ()) for i in range(1, HOSTS + 1)],
            seed=seed,
            faults=faults or faults_of(seed),
        )
        self.orders: dict[str, GroupOrder] = {}
        self._capacity, self._single, self._epochs = Capacity(), SingleIncarnation(), EpochsNeverFall()
        self.cluster.watchers.append(self._check)

    def second(self) -> None:
        """Let one second pass, with everything that may happen in it."""
        cluster = self.cluster
        cluster.run(1.0)
        for order in self.orders.values():
            status = cluster.statuses.get(order.group)
            if self.random.random() < 0.2 or status is None or status.serial < order.serial:
                orders = GroupOrders(orders=(order,))
                cluster.bus.send(Send(queue=RESMAN, task=GROUP_APPLY, body=orders, id=order.group))

    def trouble(self) -> None:
        """Change an order now and then, and apply this second's faults."""
        if self.random.random() < 0.12:
            self.order()
        self.cluster.inject_faults()

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

    def desired(self) -> set[str]:
        """Return the containers that the last orders ask for."""
        return {
            f"{order.group}.{slot}"
            for order in self.orders.values()
            if not order.remove
            for slot in range(order.replicas)
            if slot not in order.release
        }

    def run_until_settled(self, seconds: int) -> None:
        """Run until nothing has differed for ten seconds in a row; at most ``seconds``."""
        calm = 0
        for _ in range(seconds):
            self.second()
            try:
                self.assert_settled()
            except AssertionError:
                calm = 0
            else:
                calm += 1
            if calm == 10:
                return

    def assert_settled(self) -> None:
        """Assert that hosts run what is desired, and that ResMan and AppMaster know it."""
        cluster = self.cluster
        running = [(one, name) for name in cluster.hosts for one in cluster.ready(name)]
        observed = dict(running)
        assert sorted(one for one, _ in running) == sorted(self.desired())
        rows = cluster.resman.state.containers
        assert {rows[key].container: rows[key].agent for key in rows if rows[key].agent} == observed
        for order in self.orders.values():
            assert cluster.statuses[order.group].known is not order.remove
            assert order.remove or cluster.statuses[order.group].serial == order.serial
        for container in self.desired():
            assert cluster.slots[container].state is ContainerState.READY
            assert cluster.slots[container].agent == observed[container]

    def _check(self) -> None:
        for host in self.cluster.hosts.values():
            self._capacity.check(host)
            self._single.check(host)
            self._epochs.check(host)
