"""Small examples of the views in AppMaster's answers."""

from __future__ import annotations

from typing import Any

from galaxy.model.api.views import JobSummary, JobView, PodView
from galaxy.model.jobspec import parsing

SPEC = parsing.load({"name": "web", "pod": {"tasks": [{"cpu": "100m", "memory": "16M", "start": "run"}]}})


def pod(index: int, state: str = "running", **fields: Any) -> PodView:
    facts: dict[str, Any] = {"healthy": state == "running", "revision": 1, "incarnation": 1, "agent": "h1"}
    name = f"web-1.{index}"
    return PodView(pod=name, index=index, state=state, container=name, **facts | fields)


def view(*pods: PodView, state: str = "running", settled: bool = False, **fields: Any) -> JobView:
    summary = JobSummary(
        job="web-1",
        name="web",
        type=fields.pop("type", "service"),
        state=state,
        revision=fields.pop("revision", 1),
        replica=len(pods),
        running=sum(one.state == "running" for one in pods),
        healthy=sum(one.healthy for one in pods),
        pending=sum(one.state == "pending" for one in pods),
        deploying=sum(one.state in ("deploying", "backoff", "stopping") for one in pods),
        failed=sum(one.state == "failed" for one in pods),
        finished=sum(one.state == "finished" for one in pods),
        reason=fields.pop("reason", None),
    )
    return JobView(summary=summary, spec=SPEC, pods=pods, settled=settled, **fields)
