"""The agent's tables on disk."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from galaxy.agent.disk_store import AgentStore
from galaxy.agent.logic.records import AcceptedEpoch
from galaxy.errors import HostError
from galaxy.model.stored.table import Table, TableChange


def write_format(path: Path, number: int) -> None:
    """Make a database look as if another release wrote it."""
    AgentStore(path).close()
    base = sqlite3.connect(path)
    base.execute(f"PRAGMA user_version={number}")
    base.close()


def table() -> Table[AcceptedEpoch]:
    return Table("epochs", AcceptedEpoch)


def rows(path: Path) -> dict[str, int]:
    epochs = table()
    store = AgentStore(path)
    store.load({"epochs": epochs})
    store.close()
    return {key: epochs[key].epoch for key in epochs}


def test_committed_rows_survive_a_kill_of_the_process(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from galaxy.agent.disk_store import AgentStore
from galaxy.model.stored.table import TableChange
store = AgentStore(Path({str(tmp_path)!r}) / "agent.db")
store.commit([TableChange(table="epochs", key="resman", value=b'{{"role":"resman","epoch":7}}')])
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert rows(tmp_path / "agent.db") == {"resman": 7}


def test_changes_are_written_and_removed_together(tmp_path: Path) -> None:
    store, epochs = AgentStore(tmp_path / "agent.db"), table()
    epochs.put("a", AcceptedEpoch(role="a", epoch=1))
    epochs.put("b", AcceptedEpoch(role="b", epoch=2))
    store.commit(epochs.changes())
    epochs.accept()
    epochs.drop("a")
    store.commit(epochs.changes())
    store.close()
    assert rows(tmp_path / "agent.db") == {"b": 2}


def test_damaged_file_is_refused_with_its_name_and_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    path.write_bytes(b"not a database, and long enough to be read as one" * 100)
    with pytest.raises(HostError, match="is damaged") as caught:
        AgentStore(path)
    assert "move it away" in caught.value.hint


def test_malformed_row_counts_as_damage(tmp_path: Path) -> None:
    store = AgentStore(tmp_path / "agent.db")
    store.commit([TableChange(table="epochs", key="x", value=b"{")])
    with pytest.raises(HostError, match="is damaged"):
        store.load({"epochs": table()})
    store.close()


def test_failing_disk_raises_and_no_row_of_the_batch_is_written(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    store = AgentStore(path)
    store.commit([TableChange(table="epochs", key="a", value=b'{"role":"a","epoch":1}')])
    big = b'{"role":"' + b"x" * 1_000_000 + b'","epoch":1}'
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(HostError, match=r"cannot write .*agent\.db") as caught:
            store.commit(
                [
                    TableChange(table="epochs", key="b", value=b'{"role":"b","epoch":1}'),
                    TableChange(table="epochs", key="c", value=big),
                ]
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "disk" in caught.value.hint
    store.close()
    assert rows(path) == {"a": 1}


def test_fact_is_stored_and_the_previous_value_returned(tmp_path: Path) -> None:
    store = AgentStore(tmp_path / "agent.db")
    assert store.fact("boot", "one") is None
    assert store.fact("boot", "two") == "one"
    assert store.fact("boot", "two") == "two"
    store.close()


def test_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    write_format(tmp_path / "agent.db", 4)
    with pytest.raises(HostError, match="later version"):
        AgentStore(tmp_path / "agent.db")


@pytest.mark.parametrize(("number", "release"), [(1, "0.1.0"), (2, "0.2.0")])
def test_file_of_an_earlier_release_is_refused_and_says_what_to_do(
    tmp_path: Path, number: int, release: str
) -> None:
    write_format(tmp_path / "agent.db", number)
    with pytest.raises(HostError, match=f"Galaxy {release} wrote it") as caught:
        AgentStore(tmp_path / "agent.db")
    assert "galaxy down" in caught.value.hint


def test_only_the_owner_can_read_the_file(tmp_path: Path) -> None:
    AgentStore(tmp_path / "agent.db").close()
    assert (tmp_path / "agent.db").stat().st_mode & 0o077 == 0
