"""How things are called: jobs, pods, containers, commands. All ids are derived, none are drawn.

A job id is its name and six hex digits of its idempotency key (``hello-3f9a2c``); its
container group carries the same id. The pod with index 2 of it is ``hello-3f9a2c.2``, and
so is the container slot that the pod lives in; an *incarnation* counts the lives of a slot.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

NAME: Final = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62})")


def job_id(name: str, key: str) -> str:
    """Return the id of the job that a request with idempotency key ``key`` makes."""
    return f"{name}-{hashlib.blake2b(key.encode(), digest_size=3).hexdigest()}"


def pod_id(job: str, index: int) -> str:
    """Return the id of a pod, which is the id of its container slot too."""
    return f"{job}.{index}"


def split_pod(pod: str) -> tuple[str, int]:
    """Return the job and the index that a pod or container id names.

    Raises:
        ValueError: ``pod`` is not such an id.
    """
    job, dot, index = pod.rpartition(".")
    if not dot or not job or not index.isdecimal():
        raise ValueError(f"{pod!r} is not a pod; a pod is written JOB.INDEX")
    return job, int(index)


def command_id(kind: str, container: str, incarnation: int) -> str:
    """Return the id of a command: the same command has the same id however often it is sent."""
    return f"{kind}:{container}:{incarnation}"
