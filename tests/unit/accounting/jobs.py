"""Jobs that tests of usage and quotas run in a scenario."""

from __future__ import annotations

from itertools import count
from typing import Any

from galaxy.model.api.answers import Answer
from galaxy.model.api.jobs import SubmitJob
from galaxy.model.api.request import Request
from galaxy.model.jobspec.spec import CpuSpec, DeploySpec, JobSpec, MemorySpec, PodSpec, TaskSpec, VolumeSpec
from galaxy.testing.simulation.scenario import Scenario
from galaxy.units import MIB

_NUMBERS = count(1)


def job(name: str, replica: int, *, cpu: int = 200, memory: int = 64 * MIB, **deploy: Any) -> JobSpec:
    """Return a service of one task."""
    return JobSpec(
        name=name,
        deploy=DeploySpec(replica=replica, **deploy),
        pod=PodSpec(
            workspace=VolumeSpec(path="/home/galaxy", size=64 * MIB),
            tasks=(
                TaskSpec(
                    name="main", cpu=CpuSpec(millicores=cpu), memory=MemorySpec(size=memory), start="serve 1"
                ),
            ),
        ),
    )


def submit(scenario: Scenario, name: str, replica: int, *, user: str = "ann", **fields: Any) -> Answer:
    """Submit a job of ``user`` and return the answer."""
    key = f"jobs-{next(_NUMBERS)}"
    body = SubmitJob(spec=job(name, replica, **fields))
    return scenario.request(
        Request(
            op=body.op, key=key, reply=f"{key}-reply", deadline_s=scenario.now_s + 60, user=user, body=body
        )
    )
