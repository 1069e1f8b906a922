"""ResMan under random orders and the simulator's faults.

Safety is checked after every event: ResMan's view, one incarnation on one agent (``Cluster``), and what
hosts really run (``RandomRun``). Liveness is asserted at the end, when faults have stopped.
"""

import pytest

from tests.unit.resman.random_run import RandomRun


@pytest.mark.parametrize("seed", range(12))
def test_observed_becomes_desired_whatever_faults_occurred(seed: int) -> None:
    run = RandomRun(seed)
    for _ in range(120):
        run.second()
        run.trouble()
    run.cluster.world.end_faults()
    run.run_until_settled(240)
    run.assert_settled()


def test_same_seed_sends_the_same_messages() -> None:
    sent = []
    for _ in range(2):
        run = RandomRun(8)
        for _ in range(60):
            run.second()
            run.trouble()
        sent.append([(send.id, send.queue) for send in run.cluster.sends])
    assert sent[0] == sent[1]
