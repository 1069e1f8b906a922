"""ResMan after a step that raised, wherever that was: as if the step had never been."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from galaxy.model.messages.container import ContainerOrders, GroupStatuses
from galaxy.model.step import Step
from galaxy.resman.logic import ResMan
from galaxy.resman.logic.state.state import IDENTITY, ResManState
from galaxy.scheduler.cluster_view import Standing
from tests.property.effort import examples
from tests.property.test_resman_messages import BATCHES, CONFIG, EVENTS, Leader
from tests.support.stumble import stumble

OURS = ("/galaxy/resman/logic/", "/galaxy/scheduler/")
COLUMNS = ("cpu", "memory", "disk", "ports", "ports_low", "ports_high", "slots", "making", "held")
FIRST = 16
"""Before this line of a step ResMan only notes that one begins."""
LINES = st.one_of(st.integers(FIRST, 60), st.integers(FIRST, 600), st.integers(FIRST, 6000))


def derived(books: ResManState) -> dict[str, Any]:
    """Return what follows from the tables, whatever order it was derived in."""
    view, names = books.view, books.view.names
    view.settle()
    return {
        "columns": {name: [int(getattr(view, c)[view.row(name)]) for c in COLUMNS] for name in names},
        "ports": {(port, names[r]): n for port, rows in view.port_rows.items() for r, n in rows.items()},
        "groups": {(group, names[r]): n for group, rows in view.group_rows.items() for r, n in rows.items()},
        "infos": {name: view.infos[view.row(name)] for name in names},
        "digests": {name: watch.digest for name, watch in books.watches.items()},
        "owed": set(books.owed),
        "charged": {user: dict(used) for user, used in books.charges._used.items()},
    }


def heard(resman: ResMan) -> dict[str, Any]:
    """Return what only this leadership knows."""
    books = resman.books
    return {
        "watches": {
            name: (w.boot, w.old_boots, w.full, w.heard, dict(w.news), w.failures, w.failed_s, w.troubled)
            for name, w in books.watches.items()
        },
        "foreign": dict(books.foreign),
        "flaky": (set(books.flaky), books.view.flaky_any),
        "flaky in view": [name for name in books.agents if books.view.flaky[books.view.row(name)]],
        "safe": (resman.safe_mode, resman._safe.since_s, resman._safe.believed),
        "stored safe": dict.fromkeys(books.cluster),
        "tokens": (resman._replacing.tokens, resman._replacing.filled_s),
    }


def owed_to_tell(books: ResManState) -> tuple[set[str], set[str], bool]:
    """Return agents to ask, known groups to tell of, and whether to answer on quotas."""
    told = {group for group in {**books.changed, **books.answer} if group in books.groups}
    return set(books.asks), told, books.answer_identity and IDENTITY in books.identity


def told_in(step: Step) -> tuple[set[str], set[str], bool]:
    """Return agents asked, groups told of in full, and whether quotas were answered."""
    bodies = [send.body for send in step.sends]
    asked = {body.agent for body in bodies if isinstance(body, ContainerOrders) and body.report}
    statuses = [body for body in bodies if isinstance(body, GroupStatuses)]
    told = {status.group for body in statuses for status in body.statuses if status.full}
    return asked, told, any(body.identity is not None for body in statuses)


def standings(books: ResManState) -> dict[str, Standing]:
    return {name: Standing(int(books.view.standing[books.view.row(name)])) for name in books.view.names}


@examples(100)
@given(BATCHES, st.lists(EVENTS, max_size=4), LINES, BATCHES)
def test_step_that_raises_anywhere_leaves_resman_as_it_was_before_it(
    first: list[Any], bad: list[Any], line: int, then: list[Any]
) -> None:
    leader = Leader()
    for seconds, events in first:
        leader.now_s += seconds
        leader.step(events)
    resman, books = leader.resman, leader.resman.books
    before, known, open_before = derived(books), heard(resman), standings(books)
    version, serial, floor_s = books._version, resman._dispatch._serial, books.pulse.floor_s
    beats = {name: books.pulse.at_s(books.view.row(name)) for name in books.view.names}

    stumble(lambda: resman.step(leader.now_s + 1, bad), at=line, within=OURS)
    for table in resman.tables.values():
        table.discard()
    asks, groups, quotas = owed_to_tell(books)
    resman.recover(leader.now_s + 1)

    assert derived(books) == before
    assert heard(resman) == known
    assert (books._version, resman._dispatch._serial, books.pulse.floor_s) >= (version, serial, floor_s)
    for name, at_s in beats.items():
        assert books.pulse.at_s(books.view.row(name)) >= at_s
    for name, standing in standings(books).items():
        dead = Standing.DEAD in (standing, open_before[name])
        assert standing is open_before[name] if dead else standing >= Standing.OPEN
    successor = ResMan(CONFIG)
    leader.disk.load(successor.tables)
    successor.lead(leader.epoch + 1, leader.now_s)
    assert derived(successor.books) == before
    asked, told, answered = told_in(leader.step([]))
    assert asks <= asked
    assert groups <= told
    assert answered >= quotas
    for seconds, events in then:
        leader.now_s += seconds
        leader.step(events)
        leader.check_books()
