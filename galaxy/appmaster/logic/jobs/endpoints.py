"""Where services answer: a row for every service of every pod that is there."""

from __future__ import annotations

from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.stored.job import EndpointRecord, EndpointState, PodPhase, PodRecord

_GONE = (PodPhase.PENDING, PodPhase.STOPPED, PodPhase.FINISHED)


def refresh(state: AppMasterState, pod: PodRecord) -> None:
    """Bring the endpoints of ``pod`` in line with it."""
    wanted = {} if pod.phase in _GONE or not pod.placed else _rows(state, pod)
    for key in state.endpoints.where("pod", pod.pod):
        if key not in wanted:
            state.endpoints.drop(key)
    for key, row in wanted.items():
        state.endpoints.put(key, row)


def withdraw(state: AppMasterState, pod: str) -> None:
    """Drop every endpoint of a pod that is gone."""
    for key in state.endpoints.where("pod", pod):
        state.endpoints.drop(key)


def published(state: AppMasterState, pod: PodRecord) -> bool:
    """Whether a client may be using ``pod`` through an endpoint."""
    rows = (state.endpoints[key] for key in state.endpoints.where("pod", pod.pod))
    return any(row.state is EndpointState.HEALTHY for row in rows)


def _rows(state: AppMasterState, pod: PodRecord) -> dict[str, EndpointRecord]:
    if not pod.revision:
        return {}
    ports = pod.observed.ports if pod.observed and pod.observed.ports else pod.ports
    rows = {}
    for task in state.spec(pod.job, pod.revision).pod.tasks:
        for service in task.services:
            port = ports.get(service.port, 0)
            if port:
                rows[f"{service.name}/{pod.pod}"] = EndpointRecord(
                    service=service.name,
                    pod=pod.pod,
                    job=pod.job,
                    address=pod.address,
                    port=port,
                    state=_state(pod),
                )
    return rows


def _state(pod: PodRecord) -> EndpointState:
    if pod.phase in (PodPhase.DRAINING, PodPhase.STOPPING):
        return EndpointState.DRAINING
    return EndpointState.HEALTHY if pod.up else EndpointState.UNHEALTHY
