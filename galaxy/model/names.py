"""Names of roles, queues and Celery tasks, as Flower shows them."""

from __future__ import annotations

from typing import Final

RESMAN: Final = "resman"
APPMASTER: Final = "appmaster"

GROUP_APPLY: Final = "galaxy.group.apply"
"""AppMaster to ResMan: ``GroupOrders``."""
GROUP_STATUS: Final = "galaxy.group.status"
"""ResMan to AppMaster: ``GroupStatuses``."""
CONTAINER_APPLY: Final = "galaxy.container.apply"
"""ResMan to an agent: ``ContainerOrders``."""
CONTAINER_REPORT: Final = "galaxy.container.report"
"""An agent to ResMan: ``AgentReport`` with containers; outcomes of commands travel in it."""
POD_DEPLOY: Final = "galaxy.pod.deploy"
"""AppMaster to an agent's AppWorkers: ``PodOrders``."""
POD_REPORT: Final = "galaxy.pod.report"
"""An agent to AppMaster: ``AgentReport`` with pods."""
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
