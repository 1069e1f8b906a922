"""The live list of ``galaxy up`` and ``galaxy down`` on a terminal."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from galaxy.cli.local.display import Display
from galaxy.cli.local.supervisor import PartChanged


@pytest.fixture
def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=80)


def written(terminal: Console) -> str:
    assert isinstance(terminal.file, io.StringIO)
    return terminal.file.getvalue()


def test_nothing_is_written_before_the_first_change(terminal: Console) -> None:
    with Display(terminal):
        time.sleep(0.3)
        assert written(terminal) == ""


def test_list_in_which_nothing_changes_is_written_once(terminal: Console) -> None:
    with Display(terminal) as display:
        display.show(PartChanged(part="server", state="ready"))
        time.sleep(0.3)
        before = written(terminal)
        time.sleep(0.5)
        assert written(terminal) == before
    assert before.count("server") == 1


def test_last_change_is_written_before_the_end(terminal: Console) -> None:
    with Display(terminal) as display:
        display.show(PartChanged(part="server", state="starting"))
        display.show(PartChanged(part="server", state="ready"))
    assert written(terminal).rstrip().endswith("\x1b[?25h")
    assert "ready" in written(terminal)
