"""Endpoints: one row for each service of each pod that serves it or is about to."""

from __future__ import annotations

from galaxy.appmaster.logic.state import AppMasterState
from galaxy.model.stored.job import EndpointRecord, EndpointState, PodPhase, PodRecord

_WITHOUT_ENDPOINTS = (PodPhase.PENDING, PodPhase.STOPPED, PodPhase.FINISHED)


def refresh(state: AppMasterState, pod: PodRecord) -> None:
    """Update the endpoints of ``pod`` to its current state."""
    desired = {} if pod.phase in _WITHOUT_ENDPOINTS or not pod.placed else _endpoints(state, pod)
    for key in state.endpoints.where("pod", pod.pod):
        if key not in desired:
            state.endpoints.drop(key)
    for key, endpoint in desired.items():
        state.endpoints.put(key, endpoint)


def withdraw(state: AppMasterState, pod: str) -> None:
    """Drop every endpoint of ``pod``, which is being dropped itself."""
    for key in state.endpoints.where("pod", pod):
        state.endpoints.drop(key)


def is_published(state: AppMasterState, pod: PodRecord) -> bool:
    """Return whether clients may be using ``pod`` through an endpoint."""
    endpoints = (state.endpoints[key] for key in state.endpoints.where("pod", pod.pod))
    return any(endpoint.state is EndpointState.HEALTHY for endpoint in endpoints)


def _endpoints(state: AppMasterState, pod: PodRecord) -> dict[str, EndpointRecord]:
    if not pod.revision:
        return {}
    ports = pod.observed.ports if pod.observed and pod.observed.ports else pod.ports
    endpoints = {}
    for task in state.spec(pod.job, pod.revision).pod.tasks:
        for service in task.services:
            port = ports.get(service.port, 0)
            if port:
                endpoints[f"{service.name}/{pod.pod}"] = EndpointRecord(
                    service=service.name,
                    pod=pod.pod,
                    job=pod.job,
                    address=pod.address,
                    port=port,
                    state=_state(pod),
                )
    return endpoints


def _state(pod: PodRecord) -> EndpointState:
    if pod.phase in (PodPhase.DRAINING, PodPhase.STOPPING):
        return EndpointState.DRAINING
    return EndpointState.HEALTHY if pod.up else EndpointState.UNHEALTHY
