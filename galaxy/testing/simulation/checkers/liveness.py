"""Liveness: once faults stop, the observed state becomes the desired state, and stays so."""

from __future__ import annotations

from galaxy.model.jobspec.spec import JobType
from galaxy.testing.simulation.host import Host
from galaxy.testing.simulation.leader import LeaderProcess
from galaxy.testing.simulation.simulated_user import ExpectedJob


def differences(
    expected: dict[str, ExpectedJob], hosts: list[Host], appmaster: LeaderProcess | None
) -> list[str]:
    """Return every difference between accepted jobs and running programs; empty means converged."""
    if appmaster is None:
        return ["nobody leads appmaster"]
    found: list[str] = []
    jobs = appmaster.table("jobs")
    programs: dict[str, list[str]] = {}
    for host in hosts:
        for worker in host.living.values():
            starts = [spec.start for _, spec in worker.running.values()]
            programs.setdefault(worker.container.rpartition(".")[0], []).extend(starts or ["-"])
    for name, want in sorted(expected.items()):
        record = jobs.get(want.job)
        there = sorted(programs.pop(want.job, []))
        if record is None:
            found.append(f"job {name} was accepted and is lost")
        elif want.spec.type is JobType.BATCH:
            if not record.state.is_over:
                found.append(f"batch {want.job} is {record.state}, programs {there}")
            elif there:
                found.append(f"batch {want.job} is {record.state} and still holds {there}")
        else:
            replica = want.spec.deploy.replica
            should = ["-"] * replica if want.desired == "stop" else [want.spec.pod.tasks[0].start] * replica
            if there != should:
                found.append(f"{want.job} is {record.state}: programs {there}, expected {should}")
    found += [f"nobody wants {job}: {starts}" for job, starts in sorted(programs.items())]
    found += [f"job {job} is still there" for job in jobs if job not in {w.job for w in expected.values()}]
    return found
