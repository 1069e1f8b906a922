"""Effects of the agent that failed are tried again, unless a later effect makes them obsolete."""

from __future__ import annotations

from galaxy.agent.effect_retries import RETRY_S, EffectRetries
from galaxy.agent.logic.effects import ConnectWorker, DisconnectWorker, RemoveContainer

CONNECT = ConnectWorker(container="web.0", incarnation=1)
REMOVE = RemoveContainer(container="web.0", incarnation=1)


def test_failed_effect_is_due_after_the_pause_and_only_once() -> None:
    retries = EffectRetries()
    retries.add(CONNECT, tries_left=3, now_s=10.0)
    assert retries.take_due(10.0 + RETRY_S / 2) == []
    assert retries.take_due(10.0 + RETRY_S) == [(CONNECT, 3)]
    assert retries.take_due(100.0) == []


def test_failed_connection_is_not_repeated_after_the_container_was_disconnected() -> None:
    retries = EffectRetries()
    other = ConnectWorker(container="web.0", incarnation=2)
    for effect in (CONNECT, other, REMOVE):
        retries.add(effect, tries_left=3, now_s=0.0)
    retries.drop_superseded(DisconnectWorker(container="web.0", incarnation=1))
    assert retries.take_due(RETRY_S) == [(other, 3), (REMOVE, 3)]
