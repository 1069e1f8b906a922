"""The operation behind ``galaxy top``: what jobs and pods use now."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final

from msgspec import Meta

from galaxy.model.api.body import Body
from galaxy.model.base import Struct
from galaxy.model.messages.agent import AgentState

ROWS_MAX: Final = 1000
"""Rows of one answer."""
SKIP_MAX: Final = 1_000_000


class TopSubject(StrEnum):
    """What is listed."""

    JOBS = "jobs"
    PODS = "pods"


class TopOrder(StrEnum):
    """What comes first: what uses most CPU or memory, or the first name."""

    CPU = "cpu"
    MEMORY = "memory"
    NAME = "name"


class TopRow(Struct, frozen=True, kw_only=True):
    """What a pod uses now, or all pods of a job together, and what they asked for.

    ``agent`` is the host of a pod. Of a job, ``pods`` counts those that have a container.
    ``memory_bytes`` is 0 until it is measured.
    """

    name: str
    user: str = ""
    agent: str = ""
    pods: int = 1
    cpu_milli: int = 0
    memory_bytes: int = 0
    asked_cpu_milli: int = 0
    asked_memory_bytes: int = 0


class TopAgent(Struct, frozen=True, kw_only=True):
    """What a host uses now, programs that are not Galaxy's included, of what it offers.

    It was measured at ``at_s``, Unix seconds, 0 for never. The values of a dead host are its last.
    """

    name: str
    state: str
    cpu_milli: int = 0
    memory_bytes: int = 0
    total_cpu_milli: int = 0
    total_memory_bytes: int = 0
    load1: float = 0.0
    containers: int = 0
    at_s: float = 0.0

    @property
    def is_measured(self) -> bool:
        """Whether the values are what it uses now."""
        return self.at_s > 0.0 and self.state != AgentState.DEAD


class TopView(Struct, frozen=True, kw_only=True):
    """Some rows in order; ``total`` is how many there are."""

    rows: tuple[TopRow, ...] = ()
    total: int = 0


class ShowTop(Body[TopView], frozen=True, kw_only=True):
    """Show the ``limit`` jobs or pods that use most, after ``skip`` of them; of ``user``, or of all users."""

    op: ClassVar[str] = "galaxy.usage.top"
    subject: TopSubject = TopSubject.PODS
    order: TopOrder = TopOrder.CPU
    limit: Annotated[int, Meta(ge=1, le=ROWS_MAX)] = 100
    skip: Annotated[int, Meta(ge=0, le=SKIP_MAX)] = 0
    user: str = ""
