"""What a simulated agent has its machine do: requests to the launcher and messages to AppWorkers."""

from __future__ import annotations

from collections.abc import Callable

from galaxy.agent.logic.effects import (
    ConnectWorker,
    DeliverOrder,
    DisconnectWorker,
    Effect,
    LaunchContainer,
    QuitWorker,
    RemoveContainer,
    ResizeContainer,
)
from galaxy.testing.simulation.machine import Machine, Notify
from galaxy.testing.simulation.world import World


class AgentEffects:
    """Performs effects on a machine. ``lag_s`` returns how much longer each takes than usual."""

    def __init__(self, world: World, machine: Machine, lag_s: Callable[[], float]) -> None:
        self._world = world
        self._machine = machine
        self._lag_s = lag_s
        self._lost = 0

    def perform(self, effect: Effect, notify: Notify) -> None:
        """Begin ``effect``; ``notify`` delivers events to the agent process that asks for it."""
        machine = self._machine
        match effect:
            case LaunchContainer():
                self._request(0.01 + machine.launch_s + self._lag_s(), lambda: machine.launch(effect.hosted))
            case ResizeContainer():
                self._world.after(0.005 + self._lag_s(), lambda: machine.resize(effect.hosted, notify))
            case RemoveContainer():
                self._request(
                    0.02 + self._lag_s(), lambda: machine.destroy(effect.container, effect.incarnation)
                )
            case ConnectWorker():
                machine.connect(effect.container, effect.incarnation, notify)
            case DisconnectWorker():
                machine.disconnect(effect.container, effect.incarnation)
            case DeliverOrder():
                machine.deliver(effect.container, effect.incarnation, effect.order)
            case QuitWorker():
                machine.quit(effect.container, effect.incarnation, effect.stop_timeout)
            case _:
                pass

    def lose_requests(self) -> None:
        """Lose what the launcher was asked for and has not begun."""
        self._lost += 1

    def _request(self, delay_s: float, act: Callable[[], None]) -> None:
        """Have the launcher act after ``delay_s``, unless the request is lost before."""
        lost = self._lost
        self._world.after(delay_s, lambda: act() if lost == self._lost else None)
