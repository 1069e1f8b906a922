"""Names of jobs, pods, containers and commands. Every id is derived from others; none is random.

A job's id is its name and six hex digits of its idempotency key (``hello-3f9a2c``). Its container
group has the same id. Its pod with index 2 is ``hello-3f9a2c.2``, and so is the container slot
that the pod runs in. An *incarnation* counts the containers that a slot has had, one after the
other; ``container_key`` names one of them.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

NAME: Final = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62})")


def job_id(name: str, key: str) -> str:
    """Return the id of the job that a request with idempotency key ``key`` creates."""
    return f"{name}-{hashlib.blake2b(key.encode(), digest_size=3).hexdigest()}"


def job_name(job: str) -> str:
    """Return the name of the job with this id."""
    return job.rpartition("-")[0] or job


def package_id(user: str, sha256: str) -> str:
    """Return the id of the package with this content that ``user`` stores in the cluster."""
    return hashlib.blake2b(f"{user}\x1f{sha256}".encode(), digest_size=16).hexdigest()


def pod_id(job: str, index: int) -> str:
    """Return the id of a pod, which is also the id of its container slot."""
    return f"{job}.{index}"


def split_pod(pod: str) -> tuple[str, int]:
    """Return the job and the index that a pod id or container id names.

    Raises:
        ValueError: ``pod`` is not such an id.
    """
    job, dot, index = pod.rpartition(".")
    if not dot or not job or not index.isdecimal():
        raise ValueError(f"{pod!r} is not a pod; a pod is written JOB.INDEX")
    return job, int(index)


def container_key(container: str, incarnation: int) -> str:
    """Return the name of one incarnation of a container: of its record, directories and cgroup."""
    return f"{container}_{incarnation}"


def parse_container_key(text: str) -> tuple[str, int] | None:
    """Return the container and incarnation of a ``container_key``, or None if ``text`` is not one."""
    container, separator, incarnation = text.rpartition("_")
    if not separator or not container or not incarnation.isdecimal():
        return None
    return container, int(incarnation)


def command_id(kind: str, container: str, incarnation: int) -> str:
    """Return the id of a command, which is the same every time the command is sent."""
    return f"{kind}:{container}:{incarnation}"
