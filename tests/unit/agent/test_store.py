"""The agent's table on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from galaxy.agent.disk_store import AgentStore
from galaxy.agent.logic.records import AcceptedEpoch
from galaxy.errors import HostError
from galaxy.model.stored.table import Table, TableChange


def table() -> Table[AcceptedEpoch]:
    return Table("epochs", AcceptedEpoch)


def rows(path: Path) -> dict[str, int]:
    epochs = table()
    store = AgentStore(path)
    store.load({"epochs": epochs})
    store.close()
    return {key: epochs[key].epoch for key in epochs}


def test_what_was_committed_is_there_after_the_process_was_killed(tmp_path: Path) -> None:
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


def test_damaged_file_is_told_with_its_name_and_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    path.write_bytes(b"this is no database, and long enough to be looked at" * 100)
    with pytest.raises(HostError, match="is damaged") as caught:
        AgentStore(path)
    assert "move it away" in caught.value.hint


def test_row_that_makes_no_sense_is_damage(tmp_path: Path) -> None:
    store = AgentStore(tmp_path / "agent.db")
    store.commit([TableChange(table="epochs", key="x", value=b"{")])
    with pytest.raises(HostError, match="is damaged"):
        store.load({"epochs": table()})
    store.close()


def test_full_disk_is_told_and_nothing_of_the_batch_is_written(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    store = AgentStore(path)
    store.commit([TableChange(table="epochs", key="a", value=b'{"role":"a","epoch":1}')])
    store._base.execute("PRAGMA max_page_count=4")
    big = b'{"role":"' + b"x" * 100_000 + b'","epoch":1}'
    with pytest.raises(HostError, match=r"cannot write .*agent\.db.*full") as caught:
        store.commit(
            [
                TableChange(table="epochs", key="b", value=b'{"role":"b","epoch":1}'),
                TableChange(table="epochs", key="c", value=big),
            ]
        )
    assert caught.value.hint == "free disk space"
    store.close()
    assert rows(path) == {"a": 1}


def test_fact_is_kept_and_the_one_before_is_returned(tmp_path: Path) -> None:
    store = AgentStore(tmp_path / "agent.db")
    assert store.fact("boot", "one") is None
    assert store.fact("boot", "two") == "one"
    assert store.fact("boot", "two") == "two"
    store.close()


def test_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    store = AgentStore(tmp_path / "agent.db")
    store._base.execute("PRAGMA user_version=3")
    store.close()
    with pytest.raises(HostError, match="later version"):
        AgentStore(tmp_path / "agent.db")


def test_file_of_release_0_1_0_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    store = AgentStore(tmp_path / "agent.db")
    store._base.execute("PRAGMA user_version=1")
    store.close()
    with pytest.raises(HostError, match=r"Galaxy 0\.1\.0 wrote it") as caught:
        AgentStore(tmp_path / "agent.db")
    assert "galaxy down" in caught.value.hint


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    AgentStore(tmp_path / "agent.db").close()
    assert (tmp_path / "agent.db").stat().st_mode & 0o077 == 0
