"""Names of roles, queues and Celery tasks, as Flower shows them.

Agents' reports are not Celery messages: see ``nexus.mailboxes``.
"""

from __future__ import annotations

from typing import Final

RESMAN: Final = "resman"
APPMASTER: Final = "appmaster"
PARTS: Final = {RESMAN: "ResMan", APPMASTER: "AppMaster"}
"""Names of the roles in messages to people."""

GROUP_APPLY: Final = "galaxy.group.apply"
"""AppMaster to ResMan: ``GroupOrders``."""
GROUP_STATUS: Final = "galaxy.group.status"
"""ResMan to AppMaster: ``GroupStatuses``."""
CONTAINER_APPLY: Final = "galaxy.container.apply"
"""ResMan to an agent: ``ContainerOrders``."""
POD_DEPLOY: Final = "galaxy.pod.deploy"
"""AppMaster to an agent's AppWorkers: ``PodOrders``."""
LOG_SESSION: Final = "galaxy.pod.log"
"""AppMaster to an agent: ``LogSession``."""
EXEC_SESSION: Final = "galaxy.pod.run"
"""AppMaster to an agent: ``ExecSession``."""


def agent_queue(agent: str) -> str:
    """Return the queue of an agent's container orders."""
    return f"agent.{agent}"


def appworker_queue(agent: str) -> str:
    """Return the queue that an agent consumes for the AppWorkers of its containers."""
    return f"appworker.{agent}"


def leaders_queue(role: str) -> str:
    """Return the queue for what the other leader sends to ``role``; nobody else can write to it."""
    return f"{role}.leaders"


FROM_LEADERS: Final = (GROUP_APPLY, GROUP_STATUS)
"""Tasks that one leader sends to the other, through ``leaders_queue``. Others use the role's or host's."""


def queue_of(task: str, queue: str) -> str:
    """Return the queue that ``task`` is put into, if it is for the role or host of ``queue``."""
    return leaders_queue(queue) if task in FROM_LEADERS else queue


def leader_queues(role: str) -> tuple[str, ...]:
    """Return the queues that a leader of ``role`` consumes."""
    return (leaders_queue(role), role) if role in PARTS else (role,)


def is_wrong_queue(task: str, queue: str) -> bool:
    """Return whether ``task`` came to a leader through the wrong queue, so that its sender may be forged."""
    role = queue.partition(".")[0]
    return role in PARTS and queue in leader_queues(role) and queue != queue_of(task, role)
