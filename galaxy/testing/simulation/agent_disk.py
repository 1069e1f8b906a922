"""The disk of a simulated agent, and who watches what an agent does and stores."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from galaxy.agent.logic import AgentLogic
from galaxy.agent.logic.effects import Effect
from galaxy.agent.logic.records import HostedContainer
from galaxy.model.base import Struct


class HostObserver:
    """Watches what an agent does. Each call may raise ``Violation``."""

    def container_created(self, host: str, container: str, incarnation: int) -> None:
        """A container starts."""

    def container_stored(self, hosted: HostedContainer) -> None:
        """An agent has stored a row of its containers table."""

    def finished_pod_stored(self, host: str, pod: str) -> None:
        """An agent has stored that a batch pod has finished."""

    def stepped(
        self, host: str, events: list[Struct], effects: tuple[Effect, ...], changed: Iterable[str]
    ) -> None:
        """An agent has stored what follows from ``events``. ``changed`` are the keys of changed rows."""


NO_OBSERVER: Final = HostObserver()


class AgentDisk:
    """What the agent of ``host`` has stored. It survives crashes of the agent and reboots of the host."""

    def __init__(self, host: str, observer: HostObserver) -> None:
        self.digests = (0, 0)
        """The digests of ready containers and of pods in the stored rows, as heartbeats carry them."""
        self._host = host
        self._observer = observer
        self._rows: dict[str, dict[str, bytes]] = {}

    def load(self, logic: AgentLogic) -> None:
        """Fill the tables of an agent that starts."""
        for table in logic.tables.values():
            table.load(self._rows.get(table.name, {}).items())
        self.digests = logic.digests()

    def commit(self, logic: AgentLogic) -> list[str]:
        """Store the changed rows, accept the changes, and return the keys of these rows."""
        changed = []
        for table in logic.tables.values():
            rows = self._rows.setdefault(table.name, {})
            for change in table.changes():
                changed.append(change.key)
                if change.value is None:
                    rows.pop(change.key, None)
                else:
                    rows[change.key] = change.value
                    if table.name == "finished":
                        self._observer.finished_pod_stored(self._host, change.key)
            table.accept()
        if changed:
            self.digests = logic.digests()
        for key in changed:
            hosted = logic.tables["containers"].get(key)
            if hosted is not None:
                self._observer.container_stored(hosted)
        return changed

    def clear(self) -> None:
        """Lose everything."""
        self._rows.clear()
