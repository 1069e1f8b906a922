"""The Python SDK of Galaxy.

A ``Galaxy`` is a connection to one cluster; its methods are the operations that the command line offers:

    from galaxy.client import Galaxy

    job = {
        "name": "hello",
        "deploy": {"replica": 2},
        "pod": {"tasks": [{"cpu": "100m", "memory": "64M", "start": "exec sleep 1000"}]},
    }
    with Galaxy() as galaxy:                      # the cluster that the galaxy command reaches
        view = galaxy.run(job)                    # submit it, and wait until it runs
        print(view.summary.running, "pods run")
        done = galaxy.exec("hello", ["id", "-u"])
        print("exit status", done.status, "output", done.stdout)
        galaxy.remove("hello")

- ``submit``, ``update``, ``stop``, ``start``, ``remove`` and ``recover`` return an ``Accepted`` as soon as
  the change is stored. ``run`` and ``wait`` wait for its effect and return a ``JobView``.
- A job is the path of a job file, a dict with the same fields, or a ``JobSpec``.
- Views (``JobView``, ``PodView``, ``AgentView`` ...) are immutable, with the field names of ``-o json``.
  Times are Unix seconds, CPU is millicores, sizes are bytes. ``to_dict`` turns one into plain data.
- Everything that can go wrong raises a subclass of ``GalaxyError``: what cannot be done is in ``message``,
  why in ``details``, the way out in ``hint``; ``str(error)`` has all three.
- Threads may share a ``Galaxy``. A process that forks creates one in each child.

docs/sdk.md has an example of everything.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from galaxy.errors import (
    Conflict,
    GalaxyError,
    NotFound,
    NotSupportedYet,
    Refused,
    SpecError,
    TimedOut,
    Unreachable,
    UsageError,
)

if TYPE_CHECKING:
    from galaxy.accounting.bills import BillLine
    from galaxy.accounting.reports import UsageTotal
    from galaxy.client.log_stream import LogStream
    from galaxy.client.sdk import Galaxy
    from galaxy.client.streams import ExecStream, Executed
    from galaxy.model.api.agents import AgentList
    from galaxy.model.api.audit import AuditList
    from galaxy.model.api.drains import DrainList, DrainPlan
    from galaxy.model.api.jobs import Accepted, JobList
    from galaxy.model.api.machines import AgentsView, PoolView, TagView
    from galaxy.model.api.safemode import SafeModeView
    from galaxy.model.api.top import TopAgent, TopRow, TopView
    from galaxy.model.api.views import (
        AgentView,
        ClusterStatusView,
        EndpointView,
        JobSummary,
        JobView,
        LeaderView,
        LogChunk,
        PackageView,
        PodView,
        QuotaView,
        RunView,
        SecretView,
        TaskView,
        UserView,
    )
    from galaxy.model.base import to_plain as to_dict
    from galaxy.model.jobspec.spec import JobSpec
    from galaxy.model.messages.agent import HeartbeatsRead
    from galaxy.model.resource_seconds import ResourceSeconds
    from galaxy.model.resources import Ceiling, Resources

__all__ = [
    "Accepted",
    "AgentList",
    "AgentView",
    "AgentsView",
    "AuditList",
    "BillLine",
    "Ceiling",
    "ClusterStatusView",
    "Conflict",
    "DrainList",
    "DrainPlan",
    "EndpointView",
    "ExecStream",
    "Executed",
    "Galaxy",
    "GalaxyError",
    "HeartbeatsRead",
    "JobList",
    "JobSpec",
    "JobSummary",
    "JobView",
    "LeaderView",
    "LogChunk",
    "LogStream",
    "NotFound",
    "NotSupportedYet",
    "PackageView",
    "PodView",
    "PoolView",
    "QuotaView",
    "Refused",
    "ResourceSeconds",
    "Resources",
    "RunView",
    "SafeModeView",
    "SecretView",
    "SpecError",
    "TagView",
    "TaskView",
    "TimedOut",
    "TopAgent",
    "TopRow",
    "TopView",
    "Unreachable",
    "UsageError",
    "UsageTotal",
    "UserView",
    "to_dict",
]

_VIEWS: Final = "galaxy.model.api.views"
_MODULES: Final = {
    "Accepted": "galaxy.model.api.jobs",
    "AgentList": "galaxy.model.api.agents",
    "AgentsView": "galaxy.model.api.machines",
    "AuditList": "galaxy.model.api.audit",
    "ResourceSeconds": "galaxy.model.resource_seconds",
    "TopRow": "galaxy.model.api.top",
    "TopAgent": "galaxy.model.api.top",
    "TopView": "galaxy.model.api.top",
    "UsageTotal": "galaxy.accounting.reports",
    "BillLine": "galaxy.accounting.bills",
    "Ceiling": "galaxy.model.resources",
    "DrainList": "galaxy.model.api.drains",
    "DrainPlan": "galaxy.model.api.drains",
    "ExecStream": "galaxy.client.streams",
    "Executed": "galaxy.client.streams",
    "Galaxy": "galaxy.client.sdk",
    "HeartbeatsRead": "galaxy.model.messages.agent",
    "JobList": "galaxy.model.api.jobs",
    "JobSpec": "galaxy.model.jobspec.spec",
    "LogStream": "galaxy.client.log_stream",
    "PoolView": "galaxy.model.api.machines",
    "Resources": "galaxy.model.resources",
    "SafeModeView": "galaxy.model.api.safemode",
    "TagView": "galaxy.model.api.machines",
}
"""Where names come from that are imported when they are first used; all others are views."""


def __getattr__(name: str) -> Any:
    # The Redis client is slow to import, and contexts and job files do not need it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "to_dict":
        from galaxy.model.base import to_plain

        value: Any = to_plain
    else:
        value = getattr(importlib.import_module(_MODULES.get(name, _VIEWS)), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
