"""An index of services by job, and of jobs by service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class ServiceIndex:
    """Names of services, each with the jobs that declare it."""

    def __init__(self) -> None:
        self._jobs: dict[str, set[str]] = {}
        self._services: dict[str, tuple[str, ...]] = {}

    def __contains__(self, service: object) -> bool:
        return service in self._jobs

    def __iter__(self) -> Iterator[str]:
        return iter(self._jobs)

    def set_job(self, job: str, services: Iterable[str]) -> None:
        """Replace the services of ``job``; without services the job is dropped."""
        for service in self._services.pop(job, ()):
            jobs = self._jobs[service]
            jobs.remove(job)
            if not jobs:
                del self._jobs[service]
        names = tuple(dict.fromkeys(services))
        if names:
            self._services[job] = names
        for service in names:
            self._jobs.setdefault(service, set()).add(job)
