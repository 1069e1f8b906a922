"""Liveness: once faults stop, the observed state becomes the desired state, and stays equal to it."""

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
        return ["no leader of appmaster"]
    found: list[str] = []
    jobs = appmaster.table("jobs")
    programs: dict[str, list[str]] = {}
    sizes: dict[str, set[tuple[int, int]]] = {}
    for host in hosts:
        for worker in host.living.values():
            starts = [spec.start for _, spec in worker.running.values()]
            job_id = worker.container.rpartition(".")[0]
            programs.setdefault(job_id, []).extend(starts or ["-"])
            (limits,) = worker.demand.tasks
            sizes.setdefault(job_id, set()).add((limits.cpu_milli, limits.memory_bytes))
    for name, job in sorted(expected.items()):
        record = jobs.get(job.job)
        observed = sorted(programs.pop(job.job, []))
        if record is None:
            found.append(f"job {name} was accepted and is lost")
        elif job.spec.type is JobType.BATCH:
            if not record.state.is_over:
                found.append(f"batch {job.job} is {record.state}, programs {observed}")
            elif observed:
                found.append(f"batch {job.job} is {record.state} and still runs {observed}")
        else:
            replica = job.spec.deploy.replica
            desired = ["-"] * replica if job.desired == "stop" else [job.spec.pod.tasks[0].start] * replica
            if observed != desired:
                found.append(f"{job.job} is {record.state}: programs {observed}, expected {desired}")
            (task,) = job.spec.pod.tasks
            size = task.cpu.millicores, task.memory.size
            if others := sizes.get(job.job, set()) - {size}:
                found.append(f"{job.job} is {record.state}: limits {sorted(others)}, expected {size}")
    found += [f"no job expects programs of {job_id}: {starts}" for job_id, starts in sorted(programs.items())]
    expected_ids = {job.job for job in expected.values()}
    found += [f"job {job_id} still exists" for job_id in jobs if job_id not in expected_ids]
    return found
