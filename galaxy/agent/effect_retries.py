"""Effects of the agent that failed and are tried again a moment later."""

from __future__ import annotations

from typing import Final

from galaxy.agent.logic.effects import ConnectWorker, DeliverOrder, DisconnectWorker, Effect, QuitWorker

RETRY_S: Final = 1.0
TRIES_MAX: Final = 10


class EffectRetries:
    """Failed effects, each with when it is due and how many tries are left. Times are those of ``now_s``.

    Invariant: nothing is repeated on the connection of an AppWorker after a later ``DisconnectWorker``.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[float, Effect, int]] = []

    def add(self, effect: Effect, *, tries_left: int, now_s: float) -> None:
        """Try ``effect`` again after ``RETRY_S``."""
        self._waiting.append((now_s + RETRY_S, effect, tries_left))

    def drop_superseded(self, effect: Effect) -> None:
        """Drop what ``effect``, which is about to be carried out, makes obsolete."""
        if isinstance(effect, DisconnectWorker):
            self._waiting = [each for each in self._waiting if not _needs_connection(each[1], effect)]

    def due_s(self) -> list[float]:
        """Return when each effect is due."""
        return [at_s for at_s, _, _ in self._waiting]

    def take_due(self, now_s: float) -> list[tuple[Effect, int]]:
        """Remove and return the effects that are due, with the tries that each has left."""
        due = [(effect, tries_left) for at_s, effect, tries_left in self._waiting if at_s <= now_s]
        self._waiting = [each for each in self._waiting if each[0] > now_s]
        return due


def _needs_connection(effect: Effect, closed: DisconnectWorker) -> bool:
    return isinstance(effect, ConnectWorker | DeliverOrder | QuitWorker) and (
        effect.container,
        effect.incarnation,
    ) == (closed.container, closed.incarnation)
