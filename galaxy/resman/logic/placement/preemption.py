"""Makes room for containers that fit nowhere: by preemption of less important ones, or by a reservation.

A victim is stopped with its own notice time and placed again when there is room. The agent is kept for the
container until it is placed there. A batch container for which nothing can be preempted has an agent kept
for it on which enough other batch containers will end, so that small ones do not starve it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from msgspec.structs import replace

from galaxy.model.messages.container import PREEMPTED, ContainerState, GroupOrder, Reason
from galaxy.model.messages.trace import timer_cause
from galaxy.resman.logic.groups.transitions import SlotMoved
from galaxy.resman.logic.state.state import Reservation, ResManState
from galaxy.scheduler.cluster_view import PlacementStatus
from galaxy.scheduler.eligible import Ints
from galaxy.scheduler.preempt import Holder, free_without, preempt, reservable
from galaxy.scheduler.requests import Ask, Load


def make_room(state: ResManState, refused: Sequence[tuple[Ask, Reason]]) -> bool:
    """Make room for containers that no agent has room for, each on an agent of its own.

    Nothing is done while agents with room are only busy creating others. Returns whether the step's limit
    was reached; ``groups_without_room`` are left for the next step.
    """
    left = state.config.preemptions_per_step_max
    if not refused or not left:
        return False
    room = _Room(state)
    held = Counter(kept.group for kept in state.reservations.values())
    for ask, reason in sorted(refused, key=lambda pair: (pair[0].priority, pair[0].group)):
        if "busy" in reason.counts:
            continue
        for container in ask.containers[held[ask.group] :]:
            if not left:
                state.groups_without_room[ask.group] = None
                break
            if not room.make(replace(ask, containers=(container,))):
                break
            left -= 1
    return not left


def end_reservations(state: ResManState) -> None:
    """End reservations that are over, and those of groups that wait no longer or cannot use the agent."""
    for agent, kept in list(state.reservations.items()):
        row = state.view.row(agent)
        usable = row >= 0 and state.view.status[row] == PlacementStatus.OPEN
        if not usable or kept.until_s <= state.now_s or not state.containers.count("waiting", kept.group):
            end_reservation(state, agent)
    for group, again_s in list(state.reserve_again_s.items()):
        if again_s <= state.now_s:
            del state.reserve_again_s[group]


def end_reservation(state: ResManState, agent: str) -> None:
    """Let others use ``agent`` again, and place what still waits of the group for which it was kept."""
    kept = state.reservations.pop(agent)
    state.view.end_reservation(agent)
    if state.containers.count("waiting", kept.group):
        state.want_place(kept.group)


def with_preemption(refusal: Reason, before: Reason | None) -> Reason:
    """Return the reason of a container that found no room: a victim of a preemption says so as well."""
    if before is None or before.code != PREEMPTED:
        return refusal
    made_room = before.message.partition("; ")[0]
    return replace(refusal, code=PREEMPTED, message=f"{made_room}; {refusal.message}")


class _Room:
    """Makes room in one step; sums over all containers are made once."""

    def __init__(self, state: ResManState) -> None:
        self._state = state
        self._without: dict[int, list[Ints]] = {}
        """By priority, what would be free without all containers that are less important."""
        self._without_batch: list[Ints] | None = None

    def make(self, ask: Ask) -> bool:
        """Make room for one container, now or by a reservation; return whether there will be room."""
        state = self._state
        if ask.priority not in self._without:
            less = _groups(state, lambda order: order.priority > ask.priority)
            self._without[ask.priority] = free_without(state.view, less)
        found = preempt(state.view, ask, self._without[ask.priority], lambda agent: _holders(state, agent))
        if found is None:
            return self._reserve_for_later(ask)
        state.cause = timer_cause("placement")
        for key in found.victims:
            row = state.containers[key]
            message = f"made room for {ask.containers[0]} on {found.agent}"
            state.record("container.preempted", key, message)
            state.detach_incarnation(key)
            reason = Reason(code=PREEMPTED, message=message)
            state.apply(key, SlotMoved(incarnation=row.incarnation, avoid=row.avoid, reason=reason))
            state.want_place(row.group)
        _reserve(state, ask, found.agent)
        return True

    def _reserve_for_later(self, ask: Ask) -> bool:
        """Keep an agent for a batch container that waits for long, where enough batch containers will end.

        A group has one such reservation at a time, and a pause as long as it after it.
        """
        state = self._state
        order, row = state.groups[ask.group].order, state.containers[ask.containers[0]]
        waits_long = state.now_s - row.since_s >= state.config.reserve_after_s
        if not order.batch or not waits_long or ask.group in state.reserve_again_s:
            return False
        if self._without_batch is None:
            self._without_batch = free_without(state.view, _groups(state, lambda order: order.batch))
        agent = reservable(
            state.view,
            ask,
            self._without_batch,
            lambda agent: _holders(state, agent),
            lambda holder: state.groups[holder.group].order.batch,
        )
        if not agent:
            return False
        state.cause = timer_cause("placement")
        state.record("container.reserved", row.container, f"{agent} is kept for it")
        state.reserve_again_s[ask.group] = state.now_s + 2 * state.config.reservation_s
        _reserve(state, ask, agent)
        return True


def _reserve(state: ResManState, ask: Ask, agent: str) -> None:
    if agent in state.reservations:  # Of a less important group.
        end_reservation(state, agent)
    state.reservations[agent] = Reservation(ask.group, state.now_s + state.config.reservation_s)
    state.view.reserve(agent, ask.group, ask.priority)


def _groups(state: ResManState, wanted: Callable[[GroupOrder], bool]) -> Iterator[tuple[str, Load]]:
    """Yield the groups whose orders are ``wanted``, and what each container of them takes."""
    for group, known in state.groups.items():
        if wanted(known.order):
            yield group, state.shape(group).load


def _holders(state: ResManState, agent: str) -> Sequence[Holder]:
    holders = []
    for key in state.containers.where("agent", agent):
        row = state.containers[key]
        group = state.groups.get(row.group)  # A stray container has none; it is destroyed in any case.
        holders.append(
            Holder(
                key=key,
                group=row.group,
                priority=group.order.priority if group is not None else 0,
                load=state.load_of(key, row),
                leaving=row.state is ContainerState.DESTROYING,
            )
        )
    return holders
